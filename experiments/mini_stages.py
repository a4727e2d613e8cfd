"""The three training stages on real data, scaled to two CPU cores: does each loss fall?

    python experiments/mini_stages.py --model DIR --data TRAIN [--steps 200]

DIR is a small encoder with M3 heads (`m3jax convert init-heads`), TRAIN a directory of training
files. Each stage is `m3jax train` with its config of configs/mini/, from the same model; this tests
the implementation of each stage, not a recipe. The same command continues after an interruption.
Writes experiments/results/mini_stages.json and mini_stages_STAGE.png. An hour on 2 cores.
"""

import argparse
import gzip
import json
import os
import platform
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from settings import CONFIGS, RESULTS, run

from m3jax.train.run_log import read_metrics

# Stage -> (its files, fields that make its steps small).
STAGES = {
    "retromae": ("qa_*.jsonl.gz", []),
    "contrastive": ("par_*.jsonl.gz", ["data.batch_sizes=(16,12,8)"]),
    "finetune": (
        "qa_*.jsonl.gz",
        ["data.passage_length=128", "data.length_boundaries=(64,128)", "data.batch_sizes=(12,8)"],
    ),
}
FIRST = 20  # steps whose mean loss is compared with that of the last 20


def main() -> None:
    """Trains each stage; writes its curves and the means of its first and last losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="a directory of training files")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--examples", type=int, default=6000, help="a random sample for each stage")
    parser.add_argument("--workdir", default="build/mini_stages")
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=tuple(STAGES),
        default=tuple(STAGES),
        help="default: all; the results of the others are kept",
    )
    options = parser.parse_args()
    work = Path(options.workdir)
    result: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "model": Path(options.model).name,
        "steps": options.steps,
        "stages": {},
    }
    path = RESULTS / "mini_stages.json"
    if len(options.stages) < len(STAGES) and path.is_file():
        result["stages"] = json.loads(path.read_text(encoding="utf-8"))["stages"]
    for stage in options.stages:
        pattern, fields = STAGES[stage]
        sample = work / f"{stage}.jsonl"
        if not sample.is_file():
            write_sample(Path(options.data), pattern, sample, options.examples, stage)
        train(stage, options.model, sample, work / stage, options.steps, fields)
        result["stages"][stage] = summary(stage, work / stage)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def write_sample(folder: Path, pattern: str, path: Path, count: int, stage: str) -> None:
    """Samples `count` lines of the matching files with a fixed seed; for RetroMAE, passages."""
    lines = []
    for file in sorted(folder.glob(pattern)):
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            lines += stream
    lines = random.Random(0).sample(lines, min(count, len(lines)))
    if stage == "retromae":
        lines = [json.dumps({"text": json.loads(line)["pos"][0]}) + "\n" for line in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def train(stage: str, model: str, data: Path, workdir: Path, steps: int, fields: list[str]) -> None:
    """Runs `m3jax train`."""
    fields = [f"steps={steps}", "data.one_source=False", *fields]
    config = CONFIGS / "mini" / f"{stage}.py"
    run("train", config=config, model=model, data=data, workdir=workdir, set=fields)


def summary(stage: str, workdir: Path) -> dict[str, Any]:
    """Means over the first and the last steps of every loss and accuracy."""
    rows = [row for row in read_metrics(workdir) if "loss" in row]
    shutil.copy(workdir / "curves.png", RESULTS / f"mini_stages_{stage}.png")
    names = [n for n in rows[0] if n.startswith(("loss", "nce/", "accuracy/", "mlm", "decoder"))]
    means = {
        name: [
            round(float(np.mean([row[name] for row in part])), 4)
            for part in (rows[:FIRST], rows[-FIRST:])
        ]
        for name in names
    }
    tokens = sum(row["tokens"] for row in rows)
    print(f"{stage}: loss {means['loss'][0]:.3f} -> {means['loss'][1]:.3f}, {tokens:,} tokens")
    return {"first_and_last_20_steps": means, "tokens": tokens}


if __name__ == "__main__":
    main()
