"""Mined and random negatives: their scores, and the models that a short fine-tuning gives.

    python experiments/mined_negatives.py --model DIR --data TRAIN --eval EVAL [--steps 100]

DIR is a multilingual E5 model (Hugging Face layout; mean pooling, instructions "query: " and
"passage: "); TRAIN holds training files and EVAL tasks in BEIR's layout. Examples of two languages
get negatives of the same language: mined (ranks 11 to 110, below 95 % of the positive's score) or
random from all ranks. Both train the dense head with the same steps and seeds
(configs/mini/finetune.py); nDCG@10 is measured on two small tasks. The same command continues after
an interruption. Writes experiments/results/mined_negatives.*. Half an hour on 2 busy cores
(--examples 800 --steps 60).
"""

import argparse
import gzip
import json
import random
from pathlib import Path
from typing import Any

from settings import CONFIGS, RESULTS, run

FILES = ("qa_de_mlqa", "qa_ja_jaquad")
TASKS = ("qa/ja", "xquad/de")
FIELDS = (
    "pooling=mean",
    'loss.heads=("dense",)',
    "loss.self_distill=False",
    "data.one_source=False",
    "data.group_size=4",
    "data.query_length=48",
    "data.batch_sizes=(8,8,8)",
    "data.passage_length=96",
)
VARIANTS = ("mined", "random")
LENGTH = 96  # tokens of a passage, in mining, training and evaluation


def main() -> None:
    """Mines, trains and measures each variant; writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", required=True)
    add("--data", required=True, help="a directory of training files")
    add("--eval", required=True, help="a directory of task families")
    add("--examples", type=int, default=1000, help="of each language")
    add("--steps", type=int, default=100)
    add("--seeds", type=int, default=1)
    add("--max-queries", type=int, default=300)
    add("--name", help="of the model in the table (default: its directory's)")
    add("--workdir", default="build/mined_negatives")
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    work = Path(options.workdir)
    work.mkdir(parents=True, exist_ok=True)
    train = work / "train.jsonl"
    if not train.is_file():
        write_sample(Path(options.data), train, options.examples)
    result: dict[str, Any] = {
        key: getattr(options, key) for key in ("examples", "steps", "seeds", "max_queries")
    }
    result |= {"model": options.name or Path(options.model).name, "negatives": {}, "ndcg": {}}
    for variant in VARIANTS:
        result["negatives"][variant] = negatives(
            variant, options.model, train, work, options.results
        )
    write(result, options.results)
    models = {"before": options.model}
    for seed in range(options.seeds):
        for variant in VARIANTS:
            models[f"{variant} {seed}"] = fine_tune(options, work, variant, seed)
    for name, model in models.items():
        result["ndcg"][name] = measure(model, options, work / "eval")
        write(result, options.results)


def write_sample(folder: Path, path: Path, count: int) -> None:
    """Samples `count` examples of each file with a fixed seed and prepends E5's instructions."""
    rows = []
    for name in FILES:
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
            lines = stream.readlines()
        for line in random.Random(0).sample(lines, min(count, len(lines))):
            row = json.loads(line) | {"prompt": "query: "}
            row["pos"] = [f"passage: {text}" for text in row["pos"]]
            rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.write_text("".join(rows), encoding="utf-8")


def negatives(variant: str, model: str, train: Path, work: Path, results: Path) -> dict[str, Any]:
    """Writes examples with their negatives; returns the scores of positives and negatives."""
    report = work / f"{variant}.json"
    if not report.is_file():
        output = work / f"{variant}.jsonl"
        output.unlink(missing_ok=True)
        choice: dict[str, Any] = {"range": "0-1000000"}  # a random passage may have any rank
        if variant == "mined":
            picture = results / "mined_negatives.png"
            picture.unlink(missing_ok=True)
            choice = {"range": "10-110", "max_positive_ratio": 0.95, "plot": picture}
        run(
            *("mine", "--same-language", "--allow-small-pool"),
            model=model,
            pooling="mean",
            input=train,
            output=output,
            passage_length=LENGTH,
            workdir=work / "w",
            report=report,
            **choice,
        )
    values = json.loads(report.read_text(encoding="utf-8"))
    names = ("queries", "negatives", "queries_with_fewer_than_asked", "dropped", "scores")
    return {name: values[name] for name in names}


def fine_tune(options: argparse.Namespace, work: Path, variant: str, seed: int) -> str:
    """Runs `m3jax train`; returns the model's directory."""
    workdir = work / f"run-{variant}-{seed}"
    if not (workdir / "model").is_dir():
        run(
            "train",
            config=CONFIGS / "mini" / "finetune.py",
            model=options.model,
            data=work / f"{variant}.jsonl",
            workdir=workdir,
            set=[*FIELDS, f"steps={options.steps}", f"seed={seed}", f"data.seed={seed}"],
        )
    return str(workdir / "model")


def measure(model: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Task -> nDCG@10 of the dense head in percent."""
    from m3jax import M3Embedder
    from m3jax.evaluate.options import EvaluationOptions
    from m3jax.evaluate.run import evaluate_model
    from m3jax.evaluate.tasks import read_task

    tasks = [
        read_task(Path(options.eval) / name, name=name, max_queries=options.max_queries)
        for name in TASKS
    ]
    embedder = M3Embedder.from_pretrained(
        model, pooling="mean", query_instruction="query: ", passage_instruction="passage: "
    )
    evaluation_options = EvaluationOptions(
        methods=("dense",), passage_length=LENGTH, store="needed"
    )
    results = evaluate_model(embedder, tasks, folder, evaluation_options)
    return {result.task: round(100 * result.measures[result.primary], 2) for result in results}


def write(result: dict[str, Any], folder: Path) -> None:
    """Writes the numbers as JSON and as two tables."""
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (folder / "mined_negatives.json").write_text(text, encoding="utf-8")
    lines = [
        f"Mean dense scores, {result['model']}, {result['examples']} examples of each language:\n",
        "| positives | mined | random |",
        "|---|---|---|",
    ]
    mined, randomly = (result["negatives"][variant]["scores"] for variant in VARIANTS)
    means = (mined["positive"]["mean"], mined["mined"]["mean"], randomly["mined"]["mean"])
    lines.append(f"| {' | '.join(f'{mean:.3f}' for mean in means)} |")
    if result["ndcg"]:
        lines += [
            f"\nnDCG@10 in percent after {result['steps']} steps, by negatives and seed:\n",
            f"| | {' | '.join(TASKS)} |",
            f"|---|{'---|' * len(TASKS)}",
        ]
        for name, row in result["ndcg"].items():
            lines.append(f"| {name} | {' | '.join(f'{row[task]:.1f}' for task in TASKS)} |")
    (folder / "mined_negatives.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
