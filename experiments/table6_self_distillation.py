"""[M3 Table 6] at small scale: fine-tuning with and without self-distillation, several seeds.

    python experiments/table6_self_distillation.py --model DIR --data MINED --eval EVAL \\
        [--steps 60] [--seeds 3] [--new-head]

DIR is a model before fine-tuning, MINED its training file with hard negatives (both are steps of
experiments/train_m3_mini.py: contrastive/model and mined.jsonl in WORK/far). Each pair of runs has
the same steps, data and seed; only `loss.self_distill` differs. With --new-head the sparse head
starts at random, as the paper's does; without, from token weights fitted to the backbone. Run again
after a stop, it goes on. Writes results/table6_self_distillation[_new_head].{json,md,png}.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from settings import belongs

RESULTS = Path(__file__).parent / "results"
CONFIG = Path(__file__).parents[1] / "configs" / "m3_mini" / "finetune.py"
METHODS = ("dense", "sparse", "colbert")
PAPER = {  # MIRACL nDCG@10 [M3 Table 5]: without, with
    "dense": (68.7, 69.2), "sparse": (36.7, 53.9), "colbert": (69.3, 70.5),
}  # fmt: skip
TASKS = ("xquad/de", "qa/ja", "xqa", "help/fr")
MEASURE = "nDCG@10"
COLOURS = ("#bbbbbb", "#4477aa", "#228833")


def main() -> None:
    """Trains every run, measures it, writes after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--eval", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--start", type=int, default=15, help="step at which it sets in")
    parser.add_argument("--new-head", action="store_true", help="a sparse head at random")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--max-queries", type=int, default=100)
    parser.add_argument("--passage-length", type=int, default=256)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--work", type=Path, default=Path("build/table6"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    belongs(options.work, model=options.model, data=options.data, steps=options.steps,
            start=options.start, new_head=options.new_head, set=options.set)  # fmt: skip
    runs: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    if options.new_head:
        options.model = str(new_head(options.model, options.work / "start"))
    for seed in range(options.seeds):
        for name, found in runs.items():
            found.append(measure(train(options, name, seed), options))
            write(options, runs)


def new_head(model: str, path: Path) -> Path:
    """The model with a sparse head that knows nothing."""
    import jax

    from m3jax import pretrained
    from m3jax.model.m3 import init_params

    if not path.is_dir():
        old = pretrained.load(model)
        sparse = init_params(old.config, jax.random.key(0))["heads"]["sparse"]
        params = old.params | {"heads": old.params["heads"] | {"sparse": sparse}}
        pretrained.save(path, dataclasses.replace(old, params=params, heads_trained=True))
    return path


def train(options: argparse.Namespace, name: str, seed: int) -> Path:
    """`m3jax train`, as a user runs it; the model's directory."""
    workdir = options.work / f"{name}-{seed}"
    # The paper's lambda 2; the recipe's own is higher.
    fields = ["loss.weights.sparse=0.1", f"loss.self_distill={name == 'with'}",
              f"steps={options.steps}", f"seed={seed}", f"data.seed={seed}",
              f"loss.self_distill_start={options.start}"]  # fmt: skip
    command = [sys.executable, "-m", "m3jax", "train", "--config", str(CONFIG)]
    command += ["--model", options.model, "--data", options.data, "--workdir", str(workdir)]
    for field in (*fields, *options.set):
        command += ["--set", field]
    if not (workdir / "model").is_dir():
        subprocess.run(command, check=True)
    return workdir / "model"


def measure(model: Path, options: argparse.Namespace, methods=METHODS) -> dict[str, float]:
    """nDCG@10 in percent of each head, the mean over tasks, then families."""
    from m3jax import M3Embedder
    from m3jax.evaluate.averages import summarise
    from m3jax.evaluate.protocol import Settings
    from m3jax.evaluate.run import evaluate
    from m3jax.evaluate.tasks import read_tasks

    tasks = [
        task
        for name in options.tasks
        for task in read_tasks(options.eval / name, max_queries=options.max_queries)
    ]
    settings = Settings(methods=methods, passage_length=options.passage_length)
    results = evaluate(M3Embedder.from_pretrained(model), tasks, options.work / "eval", settings)
    levels = summarise(results).overall[MEASURE]["all"]
    return {method: round(100 * levels[method].value, 2) for method in methods}


def write(options: argparse.Namespace, runs: dict[str, list[dict[str, float]]]) -> None:
    """The numbers of every seed, a table of means beside the paper's, bars."""
    result: dict[str, Any] = {"measure": MEASURE, "runs": runs, "steps": options.steps,
                              "start": options.start, "new_head": options.new_head,
                              "tasks": options.tasks, "max_queries": options.max_queries,
                              "set": options.set}  # fmt: skip
    text = json.dumps(result, indent=1) + "\n"
    path = options.results / f"table6_self_distillation{'_new_head' * options.new_head}.json"
    path.write_text(text, encoding="utf-8")
    head = "at random" if options.new_head else "at fitted token weights"
    seeds = " and ".join(f"{len(found)} {name}" for name, found in runs.items())
    about = (f"mean and deviation over seeds ({seeds}), {options.steps} steps, the sparse head "
             f"starts {head}")  # fmt: skip
    lines = ["# Self-distillation at small scale", "",
             f"{MEASURE} in percent, {about}. The paper's: MIRACL.", "",
             "| head | without | with | paper, without | paper, with |",
             "|---|---:|---:|---:|---:|"]  # fmt: skip
    for method in METHODS:
        cells = [spread([row[method] for row in found]) for found in runs.values()]
        lines.append(f"| {method} | {' | '.join((*cells, *map(str, PAPER[method])))} |")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    named = {f"{name} self-distillation": found for name, found in runs.items()}
    draw(path.with_suffix(".png"), named)


def spread(values: list[float]) -> str:
    """Mean and, of more than one, standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "-"
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}"


def draw(path: Path, runs: dict[str, list[dict[str, float]]], methods=METHODS) -> None:
    """A group of bars for each head, one of each kind of run; a dot a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.2), dpi=150)
    axes = figure.subplots()
    for place, (name, found) in enumerate(runs.items()):
        for number, method in enumerate(methods):
            values = [row[method] for row in found]
            if values:
                x = number + 0.8 * ((place + 0.5) / len(runs) - 0.5)
                axes.bar(x, np.mean(values), 0.72 / len(runs), color=COLOURS[place],
                         label=None if number else name)  # fmt: skip
                axes.plot([x] * len(values), values, "k.", markersize=4)
    labels = [method.replace(", ", "\n") for method in methods]
    axes.set_xticks(range(len(methods)), labels, fontsize=7)
    axes.set_ylabel(f"{MEASURE}, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    main()
