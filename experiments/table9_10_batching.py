"""[M3 Tables 9, 10]: throughput and largest batch by length, with and without split batches.

    python experiments/table9_10_batching.py [--model DIR] [--memory 4GB] [--lengths 128,512,1024]

DIR: an encoder with M3 heads. For each length and method (all rows at once, the paper's
split-batch, gradient caching): the largest batch of the fine-tuning step that fits into --memory,
as computed by `m3jax train --fit-memory`, and tokens per second of a step with the same number of
tokens for each method (medians of interleaved steps on random tokens). The table also has the
paper's batches. For XLM-R-large on a device of 80 GB see experiments/results/memory.md.

Writes experiments/results/table9_10_batching.{json,md}. Minutes on 2 cores.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from settings import RESULTS

from m3jax import pretrained, sharding
from m3jax.config import ComputeConfig, DataConfig, LossConfig, StepConfig, TrainConfig
from m3jax.feed.layout import BatchShape, TokenizedExamples, padded_batch
from m3jax.train import fit_memory
from m3jax.train.optimizer import make_optimizer
from m3jax.train.prefetch import place
from m3jax.train.step import m3_gradients, make_trainer

WAYS = {"at once": "none", "split-batch": "remat", "gradient-cached": "cached"}
GROUP, QUERY, PARTS = 2, 32, 4  # passages a query, its tokens, parts of a timed batch
# Table 10: largest batch of a device of 80 GB; Table 9: global batches.
PAPER = (
    "| tokens | largest batch, without / with split-batch (Table 10) |\n|---|---|\n"
    "| 1024 | 262 / 855 |\n| 4096 | 25 / 258 |\n| 8192 | 6 / 130 |\n\n"
    "| tokens | global batch, pre-training / fine-tuning (Table 9) |\n|---|---|\n"
    "| 0-500 | 67,200 / 1,152 |\n| 500-1000 | 54,720 / 768 |\n| 1000-2000 | 37,248 / 480 |\n"
    "| 3000-4000 | 21,504 / 336 |\n| 7000-8192 | 9,984 / 192 |\n"
)


def config(split: str, length: int, sub_tokens: int) -> TrainConfig:
    """The configuration of one method, with at most 4,096 queries."""
    data = DataConfig(
        group_size=GROUP,
        length_boundaries=(length,),
        batch_sizes=(4096,),
        query_length=QUERY,
        passage_length=length,
    )
    step = StepConfig(split=split, sub_tokens=sub_tokens)  # pyright: ignore[reportArgumentType]
    return TrainConfig(data=data, step=step, loss=LossConfig(self_distill_start=0))


def random_batch(queries: int, length: int, vocabulary: int) -> Any:
    """A batch of full rows of random tokens."""
    rng = np.random.default_rng(0)

    def texts(count: int, width: int) -> list[np.ndarray]:
        rows = rng.integers(4, vocabulary, (count, width)).astype(np.int32)
        rows[:, 0], rows[:, -1] = 0, 2
        return list(rows)

    passages = queries * GROUP
    made = TokenizedExamples(
        texts(queries, QUERY), texts(passages, length), [True] * queries, list(range(passages)), []
    )
    return padded_batch(made, BatchShape(0, queries, GROUP, False, QUERY, length), queries, 1)


def timed(start: pretrained.Pretrained, length: int, tokens: int, steps: int) -> dict[str, float]:
    """Tokens per second of each method on a batch of about `tokens` tokens."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    queries = max(PARTS, tokens // (GROUP * length))
    batch = place(random_batch(queries, length, start.config.encoder.vocab_size), mesh)
    real = queries * (QUERY + GROUP * length)
    runs = {}
    for way, split in WAYS.items():
        made = config(split, length, max(length, real // PARTS))
        optimizer = make_optimizer(made.optimizer)
        gradients = m3_gradients(start.config, made.loss, made.step, ComputeConfig(), mesh)
        params = jax.tree.map(jnp.copy, start.params)
        trainer = make_trainer(
            gradients, optimizer, made.optimizer, made.loss, lambda n: 1.0, mesh, params
        )
        runs[way] = [trainer, trainer.init(params)]
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(steps + 1):  # the first one compiles
        for way, run in runs.items():
            begun = time.perf_counter()
            run[1], metrics = run[0].update(run[1], [batch], jax.random.key(0))
            jax.block_until_ready(metrics)
            seconds[way].append(time.perf_counter() - begun)
    return {way: real / statistics.median(taken[1:]) for way, taken in seconds.items()}


def largest(start: pretrained.Pretrained, split: str, length: int, memory: float) -> int:
    """The largest batch; 0 if no query fits."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    try:
        fitted, _ = fit_memory.fit(config(split, length, 8192), start.config, mesh, memory)
    except ValueError:
        return 0
    return fitted.data.batch_sizes[0]


def main() -> None:
    """Measures every length; prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="m3-mini", help="default: m3-mini")
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--lengths", default="128,512,1024")
    parser.add_argument("--tokens", type=int, default=4096, help="of a timed batch")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    start = pretrained.load(options.model, mesh=sharding.make_mesh(devices=jax.devices()[:1]))
    encoder = dataclasses.replace(start.config.encoder, dropout=0.0)
    start = dataclasses.replace(start, config=dataclasses.replace(start.config, encoder=encoder))
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    name = Path(options.model).name
    result: dict[str, Any] = {
        "machine": machine,
        "model": name,
        "memory": options.memory,
        "tokens": options.tokens,
        "steps": options.steps,
        "lengths": {},
    }
    lines = [
        f"Largest batches in {options.memory}, and tokens per second of batches of about "
        f"{options.tokens:,} tokens with at least {PARTS} queries; {name}, {GROUP} passages per "
        f"query, {machine}.",
        "",
        "| tokens | " + " | ".join(f"{w}: batch, tokens/s" for w in WAYS) + " |",
        "|---|" + "---|" * len(WAYS),
    ]
    for length in map(int, options.lengths.split(",")):
        speed = timed(start, length, options.tokens, options.steps)
        memory = fit_memory.device_memory(options.memory)
        batch = {way: largest(start, split, length, memory) for way, split in WAYS.items()}
        result["lengths"][length] = {"tokens_per_second": speed, "largest_batch": batch}
        lines.append(
            f"| {length} | " + " | ".join(f"{batch[w]:,}, {speed[w]:,.0f}" for w in WAYS) + " |"
        )
        print(lines[-1], flush=True)
    text = "\n".join([*lines, "", "The paper's (XLM-R-large):", "", PAPER])
    (options.results / "table9_10_batching.md").write_text(text, encoding="utf-8")
    text = json.dumps(result, indent=1) + "\n"
    (options.results / "table9_10_batching.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
