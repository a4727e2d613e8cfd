"""[M3 Table 7] at small scale: what the stages before fine-tuning give.

    python experiments/table7_stages.py --model START --contrastive PAIRS --data MINED \\
        --eval EVAL [--layers 3] [--steps 300] [--seeds 1]

START, PAIRS and MINED are made by experiments/train_m3_mini.py (WORK/start, and contrastive.jsonl
and mined.jsonl in WORK/far). The paper starts from XLM-R, which has seen no retrieval; an E5
backbone has, so that its layers would hide what the stages give. Here they are thrown away: the
encoder has a few new layers over START's token embeddings (kept and frozen: none could be learned
from this little text; of 30,000 pieces, as RetroMAE guesses among all pieces and 250,000 take most
of its time) and goes through fine-tuning alone, RetroMAE and fine-tuning, and all three stages, the
same number of steps in each. Fine-tuning has no sparse head: over layers this young its ReLU is at
0 for every token within ten steps, and stays there. Run again after a stop, it goes on. Writes
results/table7_stages.{json,md,png}.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
from settings import belongs
from table6_self_distillation import MEASURE, draw, measure, spread

RESULTS = Path(__file__).parent / "results"
CONFIGS = Path(__file__).parents[1] / "configs"
WAYS = {
    "fine-tune": ("finetune",),
    "RetroMAE + fine-tune": ("retromae", "finetune"),
    "RetroMAE + contrastive + fine-tune": ("retromae", "contrastive", "finetune"),
}
PAPER = {"fine-tune": 60.5, "RetroMAE + fine-tune": 66.1,
         "RetroMAE + contrastive + fine-tune": 69.2}  # MIRACL nDCG@10, dense  # fmt: skip
NEW_LAYERS = ["optimizer.layer_decay=1.0", "optimizer.freeze_layers=0"]
FINETUNE = ["data.passage_length=256", "data.length_boundaries=(256,)", "data.batch_sizes=(16,)",
            "loss.heads=('dense', 'colbert')", "optimizer.colbert_rate=1.0"]  # fmt: skip
METHODS = ("dense", "colbert")
TASKS = {
    "one language": ["xquad/de", "xquad/en", "qa/ja", "help/fr"],
    "across languages": ["xquad-x", "tatoeba/deu-eng", "tatoeba/jpn-eng"],
}
COLUMNS = [f"{method}, {kind}" for kind in TASKS for method in METHODS]
STAGES = {
    "retromae": ("mini/retromae.py", ["data.batch_sizes=(24,)", "save_every=0",
                                        "optimizer.freeze_embeddings=True"]),
    "contrastive": ("m3_mini/contrastive.py", NEW_LAYERS),
    "finetune": ("m3_mini/finetune.py", NEW_LAYERS + FINETUNE),
}  # fmt: skip
PIECES = 30_000
RATE = "optimizer.learning_rate=3e-4"  # new layers


def main() -> None:
    """Trains every way, measures it, writes after each."""
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
    parser.add_argument("--work", type=Path, default=Path("build/table7"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    belongs(options.work, model=options.model, contrastive=options.contrastive, data=options.data,
            layers=options.layers, steps=options.steps)  # fmt: skip
    texts = passages(options.contrastive, options.work / "texts.jsonl")
    files = {"retromae": str(texts), "contrastive": options.contrastive, "finetune": options.data}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for seed in range(options.seeds):
        for name, stages in WAYS.items():
            model, path = new_layers(options, seed), options.work / str(seed)
            for stage in stages:
                path = path / stage
                model = train(stage, model, files[stage], path, seed, options.steps)
            runs[name].append(measured(model, options))
            write(options, runs)


def new_layers(options: argparse.Namespace, seed: int) -> Path:
    """The model's embeddings under layers that know nothing, and new heads."""
    from m3jax import pretrained
    from m3jax.model.m3 import init_params

    path, small = options.work / str(seed) / "start", options.work / "pruned"
    if path.is_dir():
        return path
    if not small.is_dir():
        command = [sys.executable, "-m", "m3jax", "convert", "prune-vocabulary", options.model,
                   str(small), "--texts", options.contrastive, options.data,
                   "--size", str(PIECES), "--power", "0.6"]  # fmt: skip
        subprocess.run(command, check=True)
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
    """The passages of training pairs, alone."""
    with open(pairs, encoding="utf-8") as stream:
        texts = dict.fromkeys(json.loads(line)["pos"][0] for line in stream)
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def train(stage: str, model: Path, data: str, workdir: Path, seed: int, steps: int) -> Path:
    """`m3jax train`, as a user runs it; the model's directory."""
    config, fields = STAGES[stage]
    command = [sys.executable, "-m", "m3jax", "train", "--config", str(CONFIGS / config)]
    command += ["--model", str(model), "--data", data, "--workdir", str(workdir)]
    for field in (f"steps={steps}", f"seed={seed}", f"data.seed={seed}", RATE, *fields):
        command += ["--set", field]
    if not (workdir / "model").is_dir():
        subprocess.run(command, check=True)
    return workdir / "model"


def measured(model: Path, options: argparse.Namespace) -> dict[str, float]:
    """Each method within one language and across languages."""
    found = {}
    for kind, options.tasks in TASKS.items():
        for method, value in measure(model, options, METHODS).items():
            found[f"{method}, {kind}"] = value
    return found


def write(options: argparse.Namespace, runs: dict[str, list[dict[str, float]]]) -> None:
    """Every seed's numbers, a table beside the paper's, bars."""
    from m3jax.evaluate.protocol import circumstances

    machine = circumstances(None)["machine"]
    seeds = ", ".join(str(len(found)) for found in runs.values())
    result = {"measure": MEASURE, "machine": machine, "runs": runs, "layers": options.layers,
              "steps": options.steps, "tasks": TASKS,
              "max_queries": options.max_queries}  # fmt: skip
    text = json.dumps(result, indent=1) + "\n"
    (options.results / "table7_stages.json").write_text(text, encoding="utf-8")
    lines = [
        "# What the stages give, at small scale",
        "",
        f"{MEASURE} in percent of an encoder of {options.layers} new layers over kept token "
        f"embeddings, {options.steps} steps a stage, seeds a row: {seeds}; {machine}. "
        "The paper's: MIRACL, dense.",
        "",
        f"| stages | {' | '.join(COLUMNS)} | paper |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in runs.items():
        cells = [spread([row[method] for row in found]) for method in COLUMNS]
        lines.append(f"| {' | '.join((name, *cells, str(PAPER[name])))} |")
    path = options.results / "table7_stages.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(options.results / "table7_stages.png", runs, COLUMNS)


if __name__ == "__main__":
    main()
