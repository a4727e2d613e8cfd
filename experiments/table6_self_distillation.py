"""[M3 Table 6] at small scale: fine-tuning with and without self-distillation, several seeds.

    python experiments/table6_self_distillation.py --model DIR --data MINED --eval EVAL \\
        [--steps 60] [--seeds 3] [--new-head]

DIR is a model before fine-tuning, MINED its training file with hard negatives (both are outputs of
experiments/train_m3_mini.py: contrastive/model and mined.jsonl in WORK/far). The two runs of a seed
have the same steps and data; only `loss.self_distill` differs. With --new-head the sparse head is
initialised randomly, as in the paper; without, from token weights fitted to the backbone. The same
command continues after an interruption. Writes
results/table6_self_distillation[_new_head].{json,md,png}.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from settings import CONFIGS, RESULTS, check_settings, run

METHODS = ("dense", "sparse", "colbert")
PAPER = {  # MIRACL nDCG@10 [M3 Table 5]: without, with
    "dense": (68.7, 69.2),
    "sparse": (36.7, 53.9),
    "colbert": (69.3, 70.5),
}
TASKS = ("xquad/de", "qa/ja", "xqa", "help/fr")
MEASURE = "nDCG@10"
COLOURS = ("#bbbbbb", "#4477aa", "#228833")


def main() -> None:
    """Trains and measures every run; writes the results after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--eval", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--start", type=int, default=15, help="first step with self-distillation")
    parser.add_argument(
        "--new-head", action="store_true", help="initialise the sparse head randomly"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--max-queries", type=int, default=100)
    parser.add_argument("--passage-length", type=int, default=256)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--workdir", type=Path, default=Path("build/table6"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    check_settings(
        options.workdir,
        model=options.model,
        data=options.data,
        steps=options.steps,
        start=options.start,
        new_head=options.new_head,
        set=options.set,
    )
    runs: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    if options.new_head:
        options.model = str(new_head(options.model, options.workdir / "start"))
    for seed in range(options.seeds):
        for name, rows in runs.items():
            rows.append(measure(train(options, name, seed), options))
            write(options, runs)


def new_head(model: str, path: Path) -> Path:
    """Writes the model with a randomly initialised sparse head."""
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
    """Runs `m3jax train`; returns the model's directory."""
    workdir = options.workdir / f"{name}-{seed}"
    fields = [
        "loss.weights.sparse=0.1",  # the paper's; the recipe's is higher
        f"loss.self_distill={name == 'with'}",
        f"steps={options.steps}",
        f"seed={seed}",
        f"data.seed={seed}",
        f"loss.self_distill_start={options.start}",
        *options.set,
    ]
    config = CONFIGS / "m3_mini" / "finetune.py"
    if not (workdir / "model").is_dir():
        run(
            "train",
            config=config,
            model=options.model,
            data=options.data,
            workdir=workdir,
            set=fields,
        )
    return workdir / "model"


def measure(model: Path, options: argparse.Namespace, methods=METHODS) -> dict[str, float]:
    """nDCG@10 of each head in percent, averaged over tasks, then families."""
    from m3jax import M3Embedder
    from m3jax.evaluate.averages import summarise
    from m3jax.evaluate.options import EvaluationOptions
    from m3jax.evaluate.run import evaluate_model
    from m3jax.evaluate.tasks import read_tasks

    tasks = [
        task
        for name in options.tasks
        for task in read_tasks(options.eval / name, max_queries=options.max_queries)
    ]
    evaluation_options = EvaluationOptions(methods=methods, passage_length=options.passage_length)
    results = evaluate_model(
        M3Embedder.from_pretrained(model), tasks, options.workdir / "eval", evaluation_options
    )
    levels = summarise(results).overall[MEASURE]["all"]
    return {method: round(100 * levels[method].value, 2) for method in methods}


def write(options: argparse.Namespace, runs: dict[str, list[dict[str, float]]]) -> None:
    """Writes the numbers of every seed, a table of means with the paper's, and a plot."""
    result: dict[str, Any] = {
        "measure": MEASURE,
        "runs": runs,
        "steps": options.steps,
        "start": options.start,
        "new_head": options.new_head,
        "tasks": options.tasks,
        "max_queries": options.max_queries,
        "set": options.set,
    }
    text = json.dumps(result, indent=1) + "\n"
    path = options.results / f"table6_self_distillation{'_new_head' * options.new_head}.json"
    path.write_text(text, encoding="utf-8")
    head = "random" if options.new_head else "fitted token"
    seeds = ", ".join(f"{len(rows)} {name}" for name, rows in runs.items())
    about = (
        f"mean and standard deviation over seeds ({seeds}), {options.steps} steps; the sparse head "
        f"starts from {head} weights"
    )
    lines = [
        "# Self-distillation at small scale",
        "",
        f"{MEASURE} in percent, {about}. The paper's figures are on MIRACL.",
        "",
        "| head | without | with | paper, without | paper, with |",
        "|---|---:|---:|---:|---:|",
    ]
    for method in METHODS:
        cells = [mean_and_deviation([row[method] for row in rows]) for rows in runs.values()]
        lines.append(f"| {method} | {' | '.join((*cells, *map(str, PAPER[method])))} |")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    labelled = {f"{name} self-distillation": rows for name, rows in runs.items()}
    draw(path.with_suffix(".png"), labelled)


def mean_and_deviation(values: list[float]) -> str:
    """The mean and, of several values, the standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "-"
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}"


def draw(path: Path, runs: dict[str, list[dict[str, float]]], methods=METHODS) -> None:
    """Writes a bar plot: a group for each head, a bar for each variant, a dot for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.2), dpi=150)
    axes = figure.subplots()
    for position, (name, rows) in enumerate(runs.items()):
        for number, method in enumerate(methods):
            values = [row[method] for row in rows]
            if values:
                x = number + 0.8 * ((position + 0.5) / len(runs) - 0.5)
                axes.bar(
                    x,
                    np.mean(values),
                    0.72 / len(runs),
                    color=COLOURS[position],
                    label=None if number else name,
                )
                axes.plot([x] * len(values), values, "k.", markersize=4)
    labels = [method.replace(", ", "\n") for method in methods]
    axes.set_xticks(range(len(methods)), labels, fontsize=7)
    axes.set_ylabel(f"{MEASURE}, percent")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    main()
