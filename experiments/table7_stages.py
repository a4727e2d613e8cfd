"""[M3 Table 7] at small scale: the gain by the stages before fine-tuning.

    python experiments/table7_stages.py --model START --contrastive PAIRS --data MINED \\
        --eval EVAL [--layers 3] [--steps 300] [--seeds 1]

START, PAIRS and MINED are outputs of experiments/train_m3_mini.py (WORK/start, and
contrastive.jsonl and mined.jsonl in WORK/far). The paper starts from XLM-R, which was not trained
for retrieval; an E5 backbone was, and its layers would hide the gain by the stages. Therefore the
encoder has a few new layers over START's token embeddings. These are frozen, because there is too
little text to train them, and pruned to 30,000 tokens, because RetroMAE predicts over the
vocabulary. The encoder is trained by fine-tuning alone, RetroMAE and fine-tuning, and all three
stages, with the same number of steps in each. Fine-tuning has no sparse head: over new layers its
ReLU is 0 for every token within ten steps and stays 0. The same command continues after an
interruption. Writes results/table7_stages.{json,md,png}.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
from settings import CONFIGS, RESULTS, check_settings, run
from table6_self_distillation import MEASURE, draw, mean_and_deviation, measure

WAYS = {
    "fine-tune": ("finetune",),
    "RetroMAE + fine-tune": ("retromae", "finetune"),
    "RetroMAE + contrastive + fine-tune": ("retromae", "contrastive", "finetune"),
}
PAPER = {
    "fine-tune": 60.5,
    "RetroMAE + fine-tune": 66.1,
    "RetroMAE + contrastive + fine-tune": 69.2,
}  # MIRACL nDCG@10, dense
NEW_LAYERS = ["optimizer.layer_decay=1.0", "optimizer.freeze_layers=0"]
FINETUNE = [
    "data.passage_length=256",
    "data.length_boundaries=(256,)",
    "data.batch_sizes=(16,)",
    "loss.heads=('dense', 'colbert')",
    "optimizer.colbert_rate=1.0",
]
METHODS = ("dense", "colbert")
TASKS = {
    "one language": ["xquad/de", "xquad/en", "qa/ja", "help/fr"],
    "across languages": ["xquad-x", "tatoeba/deu-eng", "tatoeba/jpn-eng"],
}
COLUMNS = [f"{method}, {group}" for group in TASKS for method in METHODS]
STAGES = {
    "retromae": (
        "mini/retromae.py",
        ["data.batch_sizes=(24,)", "save_every=0", "optimizer.freeze_embeddings=True"],
    ),
    "contrastive": ("m3_mini/contrastive.py", NEW_LAYERS),
    "finetune": ("m3_mini/finetune.py", NEW_LAYERS + FINETUNE),
}
TOKENS = 30_000  # of the vocabulary
RATE = "optimizer.learning_rate=3e-4"  # new layers


def main() -> None:
    """Trains and measures every sequence of stages; writes the results after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--contrastive", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--eval", required=True, type=Path)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of each stage")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--max-queries", type=int, default=100)
    parser.add_argument("--passage-length", type=int, default=256)
    parser.add_argument("--workdir", type=Path, default=Path("build/table7"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    check_settings(
        options.workdir,
        model=options.model,
        contrastive=options.contrastive,
        data=options.data,
        layers=options.layers,
        steps=options.steps,
    )
    texts = passages(options.contrastive, options.workdir / "texts.jsonl")
    files = {"retromae": str(texts), "contrastive": options.contrastive, "finetune": options.data}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for seed in range(options.seeds):
        for name, stages in WAYS.items():
            model, path = new_layers(options, seed), options.workdir / str(seed)
            for stage in stages:
                path = path / stage
                model = train(stage, model, files[stage], path, seed, options.steps)
            runs[name].append(measured(model, options))
            write(options, runs)


def new_layers(options: argparse.Namespace, seed: int) -> Path:
    """Writes the model's embeddings with randomly initialised layers and heads."""
    from m3jax import pretrained
    from m3jax.model.m3 import init_params

    path, small = options.workdir / str(seed) / "start", options.workdir / "pruned"
    if path.is_dir():
        return path
    if not small.is_dir():
        texts = ("--texts", options.contrastive, options.data)
        command = ("convert", "prune-vocabulary", options.model, small, *texts)
        run(*command, size=TOKENS, language_smoothing=0.6)
    model = pretrained.load(small)
    encoder = dataclasses.replace(model.config.encoder, layers=options.layers)
    config = dataclasses.replace(model.config, encoder=encoder)
    params = init_params(config, jax.random.key(seed))
    params["encoder"]["embeddings"] = model.params["encoder"]["embeddings"]
    pretrained.save(
        path, dataclasses.replace(model, params=params, config=config, heads_trained=True)
    )
    return path


def passages(pairs: str, path: Path) -> Path:
    """Writes the passages of training pairs."""
    with open(pairs, encoding="utf-8") as stream:
        texts = dict.fromkeys(json.loads(line)["pos"][0] for line in stream)
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def train(stage: str, model: Path, data: str, workdir: Path, seed: int, steps: int) -> Path:
    """Runs `m3jax train`; returns the model's directory."""
    config, fields = STAGES[stage]
    fields = [f"steps={steps}", f"seed={seed}", f"data.seed={seed}", RATE, *fields]
    if not (workdir / "model").is_dir():
        run("train", config=CONFIGS / config, model=model, data=data, workdir=workdir, set=fields)
    return workdir / "model"


def measured(model: Path, options: argparse.Namespace) -> dict[str, float]:
    """nDCG@10 of each method within one language and across languages."""
    values = {}
    for group, options.tasks in TASKS.items():
        for method, value in measure(model, options, METHODS).items():
            values[f"{method}, {group}"] = value
    return values


def write(options: argparse.Namespace, runs: dict[str, list[dict[str, float]]]) -> None:
    """Writes the numbers of every seed, a table with the paper's, and a plot."""
    from m3jax.evaluate.protocol import environment

    machine = environment(None)["machine"]
    seeds = ", ".join(str(len(rows)) for rows in runs.values())
    result = {
        "measure": MEASURE,
        "machine": machine,
        "runs": runs,
        "layers": options.layers,
        "steps": options.steps,
        "tasks": TASKS,
        "max_queries": options.max_queries,
    }
    text = json.dumps(result, indent=1) + "\n"
    (options.results / "table7_stages.json").write_text(text, encoding="utf-8")
    lines = [
        "# The gain by each stage, at small scale",
        "",
        f"{MEASURE} in percent of an encoder with {options.layers} new layers over frozen token "
        f"embeddings, {options.steps} steps for each stage, seeds of each row: {seeds}; {machine}. "
        "The paper's figures are of dense retrieval on MIRACL.",
        "",
        f"| stages | {' | '.join(COLUMNS)} | paper |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, rows in runs.items():
        cells = [mean_and_deviation([row[method] for row in rows]) for method in COLUMNS]
        lines.append(f"| {' | '.join((name, *cells, str(PAPER[name])))} |")
    path = options.results / "table7_stages.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(options.results / "table7_stages.png", runs, COLUMNS)


if __name__ == "__main__":
    main()
