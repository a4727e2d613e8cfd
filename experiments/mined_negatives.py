"""Mined against random negatives: how hard they are, and what a short fine-tune makes of them.

    python experiments/mined_negatives.py --model DIR --data TRAIN --eval EVAL [--steps 100]

DIR is a multilingual E5 model (Hugging Face layout; mean pooling, "query: " and "passage: " in
front of texts); TRAIN holds training files and EVAL tasks of BEIR's layout. Examples of two
languages get negatives of their own language: mined (ranks 11 to 110, below 95 % of the positive's
score) or at random from all ranks. Both train the dense head for the same steps with the same
seeds (configs/mini/finetune.py), and nDCG@10 is measured on two small tasks. Run again after a
stop, it goes on. Writes experiments/results/mined_negatives.*. Half an hour on 2 busy cores
(--examples 800 --steps 60).
"""

import argparse
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CONFIG = Path(__file__).parents[1] / "configs" / "mini" / "finetune.py"
FILES = ("qa_de_mlqa", "qa_ja_jaquad")
TASKS = ("qa/ja", "xquad/de")
FIELDS = ("pooling=mean", 'loss.heads=("dense",)', "loss.self_distill=False",
          "data.one_source=False", "data.group_size=4", "data.query_length=48",
          "data.batch_sizes=(8,8,8)", "data.passage_length=96")  # fmt: skip
LENGTH = 96  # tokens of a passage, in mining, training and evaluation


def main() -> None:
    """Mines, trains each variant, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", required=True)
    add("--data", required=True, help="a folder of training files")
    add("--eval", required=True, help="a folder of task families")
    add("--examples", type=int, default=1000, help="of each language")
    add("--steps", type=int, default=100)
    add("--seeds", type=int, default=1)
    add("--max-queries", type=int, default=300)
    add("--name", help="of the model in the table (default: its folder's)")
    add("--work", default="build/mined_negatives")
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    train = work / "train.jsonl"
    if not train.is_file():
        write_sample(Path(options.data), train, options.examples)
    result: dict[str, Any] = {
        key: getattr(options, key) for key in ("examples", "steps", "seeds", "max_queries")
    }
    result |= {"model": options.name or Path(options.model).name, "negatives": {}, "ndcg": {}}
    for kind in ("mined", "random"):
        result["negatives"][kind] = negatives(kind, options.model, train, work, options.results)
    write(result, options.results)
    models = {"before": options.model}
    for seed in range(options.seeds):
        for kind in ("mined", "random"):
            models[f"{kind} {seed}"] = fine_tune(options, work, kind, seed)
    for name, model in models.items():
        result["ndcg"][name] = measure(model, options, work / "eval")
        write(result, options.results)


def write_sample(folder: Path, path: Path, count: int) -> None:
    """`count` examples of each file by a fixed seed, with E5's words in front of every text."""
    rows = []
    for name in FILES:
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
            lines = stream.readlines()
        for line in random.Random(0).sample(lines, min(count, len(lines))):
            row = json.loads(line) | {"prompt": "query: "}
            row["pos"] = [f"passage: {text}" for text in row["pos"]]
            rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.write_text("".join(rows), encoding="utf-8")


def negatives(kind: str, model: str, train: Path, work: Path, results: Path) -> dict[str, Any]:
    """A file of examples with their negatives, and what their scores are."""
    report = work / f"{kind}.json"
    if not report.is_file():
        (work / f"{kind}.jsonl").unlink(missing_ok=True)
        command = [sys.executable, "-m", "m3jax", "mine", "--model", model, "--pooling", "mean"]
        command += ["--input", str(train), "--output", str(work / f"{kind}.jsonl")]
        command += ["--same-language", "--passage-length", str(LENGTH)]
        command += ["--workdir", str(work / "w")]
        command += ["--report", str(report), "--allow-small-pool"]
        # A random passage: any rank will do.
        how = ["--range", "0-1000000"]
        if kind == "mined":
            picture = results / "mined_negatives.png"
            picture.unlink(missing_ok=True)
            how = ["--range", "10-110", "--max-positive-ratio", "0.95", "--plot", str(picture)]
        subprocess.run([*command, *how], check=True)
    found = json.loads(report.read_text(encoding="utf-8"))
    names = ("queries", "negatives", "queries_with_fewer_than_asked", "dropped", "scores")
    return {name: found[name] for name in names}


def fine_tune(options: argparse.Namespace, work: Path, kind: str, seed: int) -> str:
    """`m3jax train`, as a user runs it; the model's directory."""
    run = work / f"run-{kind}-{seed}"
    command = [sys.executable, "-m", "m3jax", "train", "--config", str(CONFIG)]
    command += ["--model", options.model, "--data", str(work / f"{kind}.jsonl")]
    for field in (*FIELDS, f"steps={options.steps}", f"seed={seed}", f"data.seed={seed}"):
        command += ["--set", field]
    if not (run / "model").is_dir():
        subprocess.run([*command, "--workdir", str(run)], check=True)
    return str(run / "model")


def measure(model: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """nDCG@10 in percent of the dense head by task."""
    from m3jax import M3Embedder
    from m3jax.evaluate.protocol import Settings
    from m3jax.evaluate.run import evaluate
    from m3jax.evaluate.tasks import read_task

    tasks = [
        read_task(Path(options.eval) / name, name=name, max_queries=options.max_queries)
        for name in TASKS
    ]
    embedder = M3Embedder.from_pretrained(
        model, pooling="mean", query_instruction="query: ", passage_instruction="passage: "
    )
    settings = Settings(methods=("dense",), passage_length=LENGTH, store="needed")
    results = evaluate(embedder, tasks, folder, settings)
    return {result.task: round(100 * result.measures[result.primary], 2) for result in results}


def write(result: dict[str, Any], folder: Path) -> None:
    """The numbers, and two tables of them."""
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (folder / "mined_negatives.json").write_text(text, encoding="utf-8")
    lines = [f"{result['model']}, {result['examples']} examples of each language. Mean scores of "
             "the dense head:\n", "| positives | mined | random |", "|---|---|---|"]  # fmt: skip
    mined, chance = (result["negatives"][kind]["scores"] for kind in ("mined", "random"))
    means = (mined["positive"]["mean"], mined["mined"]["mean"], chance["mined"]["mean"])
    lines.append(f"| {' | '.join(f'{mean:.3f}' for mean in means)} |")
    if result["ndcg"]:
        lines += [f"\nnDCG@10 after {result['steps']} steps (negatives, seed):\n",
                  f"| | {' | '.join(TASKS)} |", f"|---|{'---|' * len(TASKS)}"]  # fmt: skip
        for name, row in result["ndcg"].items():
            lines.append(f"| {name} | {' | '.join(f'{row[task]:.1f}' for task in TASKS)} |")
    (folder / "mined_negatives.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
