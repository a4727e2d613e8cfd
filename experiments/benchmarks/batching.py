"""Padding and shapes of batches by method, and the speed of the input pipeline.

    python experiments/benchmarks/batching.py --data FOLDER --model DIR

FOLDER: training files (.jsonl.gz); DIR: an encoder with its tokenizer. At most --most examples of
each file are used, so that short and long sources mix. Four methods of batching with the same
examples and batch sizes: random batches padded to their longest text, the paper's groups padded to
the batch's longest, groups padded to length buckets, and packed rows. Also the tokens per second of
the pipeline and of the encoder (forward and backward), and a plan for --synthetic examples.

Writes experiments/results/batching.json.
"""

import argparse
import dataclasses
import gzip
import itertools
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from m3jax import pretrained
from m3jax.config import DataConfig, LossConfig
from m3jax.data import build
from m3jax.feed.plan import example_stats, plan_epoch
from m3jax.feed.source import BatchSource
from m3jax.text.tokenizer import load_tokenizer
from m3jax.train.objectives import ObjectiveOptions, objective
from m3jax.train.run_log import tokens_of
from m3jax.types import TrainBatch

RESULTS = Path(__file__).parents[1] / "results"
EDGES = (500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8192)  # the paper's
SIZES = (128, 64, 32, 24, 16, 16, 16, 16, 16)
BASE = DataConfig(group_size=1, length_boundaries=EDGES, batch_sizes=SIZES, one_source=False)
WAYS = {
    "random, padded to the longest": dataclasses.replace(
        BASE, length_boundaries=(8192,), batch_sizes=(64,)
    ),
    "the paper's groups, padded to the longest": BASE,
    "groups, padded to a bucket": BASE,
    "packed rows": dataclasses.replace(BASE, batching="packed"),
}


def fullness(way: str, batch_source: BatchSource, longest: bool) -> dict[str, Any]:
    """The share of tokens that are not padding, shapes and batches per second over one epoch."""
    real = places = 0
    shapes = set()
    begun = time.perf_counter()
    steps = len(batch_source.plan(0).groups)
    for step in range(steps):
        batch = batch_source.batch(step)
        assert isinstance(batch, TrainBatch)
        tokens, _, size = tokens_of(batch)
        sides = [batch.packed.rows] if batch.packed else [batch.queries, batch.passages]
        if longest:  # no ladder: as wide as the longest text of the batch, no filling
            used = [(int((s.lengths > 0).sum()), int(s.lengths.max())) for s in sides]
            size = sum(rows * width for rows, width in used)
            shapes.add(tuple(used))
        else:
            shapes.add(batch_source.shape(step)[1:])
        real, places = real + tokens, places + size
    seconds = time.perf_counter() - begun
    row = {
        "way": way,
        "batches": steps,
        "real_tokens": real / places,
        "shapes": len(shapes),
        "batches_per_second": steps / seconds,
        "tokens_per_second": real / seconds,
    }
    print(
        f"{way:42} {real / places:6.1%} real  {len(shapes):4} shapes  "
        f"{steps / seconds:6.1f} batches/s  {real / seconds:9,.0f} tokens/s"
    )
    return row


def encoder_speed(model: pretrained.Pretrained, batch: TrainBatch, repeats: int = 3) -> float:
    """Tokens per second of the loss and its gradients, dense head only, without padding."""
    loss = LossConfig(heads=("dense",), self_distill=False)

    @jax.jit
    def once(params, batch):
        return jax.value_and_grad(
            lambda p: objective(p, batch, ObjectiveOptions(model.config, loss), 0),
            has_aux=True,
        )(params)

    jax.block_until_ready(once(model.params, batch))
    begun = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(once(model.params, batch))
    return tokens_of(batch)[0] * repeats / (time.perf_counter() - begun)


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """Sizes of many examples, memory-mapped as built data are."""

    offsets: Any
    lengths: Any
    positives: Any
    source_ids: Any
    flags: Any
    sources: tuple[str, ...] = ("synthetic",)


def synthetic(count: int, directory: Path) -> Synthetic:
    """A query of 16 tokens and a passage of log-normal length each, written in blocks."""
    rng = np.random.default_rng(0)

    def mapped(name: str, dtype: Any, size: int, fill: Any) -> Any:
        path = directory / f"{name}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(size,))
        for start in range(0, size, 1 << 20):
            stop = min(start + (1 << 20), size)
            array[start:stop] = fill(start, stop)
        array.flush()
        return np.load(path, mmap_mode="r")

    def lengths(start: int, stop: int) -> np.ndarray:
        drawn = np.clip(rng.lognormal(5, 1, stop - start), 3, 8192).astype(np.int32)
        return np.where(np.arange(start, stop) % 2 == 0, 16, drawn)

    return Synthetic(
        mapped("offsets", np.int64, count + 1, lambda a, b: 2 * np.arange(a, b)),
        mapped("lengths", np.int32, 2 * count, lengths),
        mapped("positives", np.int32, count, lambda a, b: 1),
        mapped("sources", np.uint16, count, lambda a, b: 0),
        mapped("flags", np.uint8, count, lambda a, b: 1),
    )


def big_plan(count: int) -> dict[str, Any]:
    """Time and memory of planning an epoch of `count` examples and reading its batches."""
    with tempfile.TemporaryDirectory() as scratch:
        sizes = synthetic(count, Path(scratch))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.perf_counter()
        plan = plan_epoch(example_stats(sizes, BASE), BASE, 0)
        planned = time.perf_counter() - begun
        seen = sum(len(plan.batch(i)[0]) for i in range(len(plan.groups)))
        seconds = time.perf_counter() - begun - planned
        gained = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert seen + plan.dropped == count
    row = {
        "examples": count,
        "plan_seconds": planned,
        "walk_seconds": seconds,
        "batches": len(plan.groups),
        "memory_bytes": gained * 1024,
    }
    print(
        f"{count:,} examples: planned in {planned:.1f} s, {gained / 1024:,.0f} MB, "
        f"{gained * 1024 / count:.0f} bytes an example"
    )
    return row


def main() -> None:
    """Builds the data set, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--most", type=int, default=100, help="examples of a file")
    parser.add_argument("--synthetic", type=int, default=10_000_000)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "plan": big_plan(options.synthetic),
        "ways": [],
    }
    tokens = load_tokenizer(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        sample = Path(scratch) / "sample"
        sample.mkdir()
        for path in sorted(Path(options.data).rglob("*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as stream:
                lines = list(itertools.islice(stream, options.most))
            (sample / path.name.removesuffix(".gz")).write_text("".join(lines), encoding="utf-8")
        build.build([str(sample)], Path(scratch) / "built", tokens)
        examples = build.open_examples(Path(scratch) / "built")
        batch_sources = {way: BatchSource(examples, tokens, config) for way, config in WAYS.items()}
        for way, batch_source in batch_sources.items():
            result["ways"].append(fullness(way, batch_source, "longest" in way))
        model = pretrained.load(options.model)
        batch_source = BatchSource(
            examples, tokens, dataclasses.replace(BASE, batch_sizes=(16,) * len(EDGES))
        )
        short = next(step for step in range(10_000) if batch_source.shape(step).group == 0)
        batch = batch_source.batch(short)
        assert isinstance(batch, TrainBatch)
        speed = encoder_speed(model, batch)
    result["encoder_tokens_per_second"] = speed
    result["pipeline_over_encoder"] = result["ways"][2]["tokens_per_second"] / speed
    print(
        f"encoder, forward and backward: {speed:,.0f} tokens/s; the pipeline makes "
        f"{result['pipeline_over_encoder']:.0f} times as many"
    )
    text = json.dumps(result, indent=1)
    (RESULTS / "batching.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
