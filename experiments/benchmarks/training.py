"""A fine-tuning step of m3jax and of the reference in PyTorch: tokens per second.

    python experiments/benchmarks/training.py --model DIR --data FOLDER

DIR: an XLM-RoBERTa directory with both heads (`m3jax convert init-heads`); FOLDER: training files.
Both use the same weights and batches, three heads with self-distillation, no dropout, gradient
clipping, AdamW, float32 and frozen embeddings as in configs/mini/finetune.py. The PyTorch step is
transformers' encoder with FlagEmbedding's formulas (a vocabulary axis for sparse scores, the tensor
of all token products). Steps are interleaved; the table has medians. Other load on the machine
changes the times, not their ratio. Writes experiments/results/training.json.
"""

import argparse
import dataclasses
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import torch
import transformers
from torch.nn import functional as F

from m3jax import pretrained, sharding
from m3jax.config import ComputeConfig, DataConfig, LossConfig, OptimizerConfig, StepConfig
from m3jax.data import build
from m3jax.data.examples import read_examples
from m3jax.feed.source import BatchSource
from m3jax.train.optimizer import make_optimizer
from m3jax.train.prefetch import place
from m3jax.train.run_log import tokens_of
from m3jax.train.step import m3_gradients, make_trainer
from m3jax.types import TrainBatch

RESULTS = Path(__file__).parents[1] / "results"
GROUP, TEMPERATURE, SPECIAL = 2, 0.02, [0, 1, 2, 3]
DATA = DataConfig(
    group_size=GROUP,
    query_length=64,
    passage_length=128,
    length_boundaries=(128,),
    batch_sizes=(12,),
    one_source=False,
)
LOSS = LossConfig(self_distill_start=0, mask_duplicates=False, padding_competes=True)
OPTIMIZER = OptimizerConfig(learning_rate=2e-5, freeze_embeddings=True)


def ours(directory: str, batches: list[TrainBatch], split: str) -> Callable[[int], float]:
    """A function from the number of a batch to the loss: one compiled step of m3jax."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    start = pretrained.load(directory, mesh=mesh)
    encoder = dataclasses.replace(start.config.encoder, dropout=0.0)
    config = dataclasses.replace(start.config, encoder=encoder)
    step = StepConfig(split=split, sub_tokens=1024)  # pyright: ignore[reportArgumentType]
    gradients = m3_gradients(config, LOSS, step, ComputeConfig(), mesh)
    optimizer = make_optimizer(OPTIMIZER)
    trainer = make_trainer(gradients, optimizer, OPTIMIZER, LOSS, lambda n: 1.0, mesh, start.params)
    state = [trainer.init(start.params)]

    def once(number: int) -> float:
        batch = place(batches[number], mesh)
        state[0], metrics = trainer.update(state[0], [batch], jax.random.key(0))
        return float(metrics["loss"])

    return once


def theirs(directory: str, batches: list[TrainBatch]) -> Callable[[int], float]:
    """The same in PyTorch, with the reference's formulas."""
    encoder = transformers.XLMRobertaModel.from_pretrained(directory, add_pooling_layer=False)
    encoder.eval()  # no dropout
    encoder.embeddings.requires_grad_(False)
    heads = {}
    for stem in ("colbert_linear", "sparse_linear"):
        state = torch.load(Path(directory) / f"{stem}.pt", weights_only=True)
        heads[stem] = torch.nn.Linear(*state["weight"].shape[::-1])
        heads[stem].load_state_dict(state)
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    parameters += [p for head in heads.values() for p in head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-5, weight_decay=0.01)

    def encode(texts: Any):
        ids, mask = (torch.tensor(x).long() for x in (texts.token_ids, texts.segment_ids))
        hidden = encoder(ids, mask).last_hidden_state
        weights = heads["sparse_linear"](hidden).relu()
        table = torch.zeros(*ids.shape, encoder.config.vocab_size)
        table = torch.scatter(table, -1, ids[..., None], weights).max(1).values
        table[:, SPECIAL] *= 0
        vectors = F.normalize(heads["colbert_linear"](hidden[:, 1:]) * mask[:, 1:, None], dim=-1)
        return F.normalize(hidden[:, 0], dim=-1), table, vectors, mask[:, 1:].float()

    def once(number: int) -> float:
        optimizer.zero_grad()
        q, p = encode(batches[number].queries), encode(batches[number].passages)
        best = torch.einsum("qin,pjn->qipj", q[2], p[2]).max(-1).values
        late = best.sum(1) / q[3].sum(-1, keepdim=True)
        heads_scores = [x / TEMPERATURE for x in (q[0] @ p[0].T, q[1] @ p[1].T, late)]
        dense, sparse, colbert = heads_scores
        fused = dense + 0.3 * sparse + colbert
        target = torch.arange(len(fused)) * GROUP
        teacher = F.softmax(fused.detach(), -1)
        nce = [F.cross_entropy(x, target) for x in (*heads_scores, fused)]
        kd = [-(F.log_softmax(x, -1) * teacher).sum(-1).mean() for x in heads_scores]
        first = (nce[0] + 0.1 * nce[1] + nce[2] + nce[3]) / 4
        loss = (first + (kd[0] + 0.1 * kd[1] + kd[2]) / 3) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return float(loss.detach())

    return once


def main() -> None:
    """Measures interleaved steps; prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=7)
    options = parser.parse_args()
    start = pretrained.load(options.model)
    tokens, encoder = start.tokenizer, start.config.encoder
    with tempfile.TemporaryDirectory() as scratch:
        sample = Path(scratch) / "sample.jsonl"
        files = sorted(Path(options.data).glob("qa_*.jsonl.gz"))
        some = [e for f in files for e in itertools.islice(read_examples([str(f)]), 20)]
        rows = [
            {"query": e.query, "pos": e.positives[:1], "neg": other.positives[:1]}
            for e, other in zip(some, some[1:] + some[:1], strict=True)
        ]
        sample.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        build.build([str(sample)], Path(scratch) / "built", tokens)
        batch_source = BatchSource(build.open_examples(Path(scratch) / "built"), tokens, DATA)
        specs = [batch_source.shape(step) for step in range(len(batch_source.plan(0).groups) - 1)]
        common = max(set(specs), key=specs.count)
        steps = [step for step, spec in enumerate(specs) if spec == common][: options.steps + 1]
        batches = [batch_source.batch(step) for step in steps]
    assert all(isinstance(batch, TrainBatch) for batch in batches)
    sides = {
        "m3jax": ours(options.model, batches, "none"),  # pyright: ignore[reportArgumentType]
        "m3jax, gradient-cached": ours(options.model, batches, "cached"),  # pyright: ignore
        "PyTorch, the reference's formulas": theirs(options.model, batches),  # pyright: ignore
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(len(batches)):  # the first one compiles and warms up
        for name, once in sides.items():
            begun = time.perf_counter()
            losses[name].append(once(number))
            seconds[name].append(time.perf_counter() - begun)
    real = statistics.mean(tokens_of(batch)[0] for batch in batches[1:])  # pyright: ignore
    medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    result: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "model": Path(options.model).name,
        "vocabulary": encoder.vocab_size,
        "queries": common.queries,
        "group": GROUP,
        "widths": [common.query_width, common.passage_width],
        "tokens_a_step": real,
        "sides": {},
    }
    for name, median in medians.items():
        ratio = medians["PyTorch, the reference's formulas"] / median
        result["sides"][name] = {
            "seconds": median,
            "tokens_per_second": real / median,
            "times_the_reference": ratio,
            "losses": losses[name],
        }
        print(
            f"{name:36} {median:7.2f} s a step {real / median:8.0f} tokens/s {ratio:6.2f}x  "
            f"loss {losses[name][0]:.4f} -> {losses[name][-1]:.4f}"
        )
    text = json.dumps(result, indent=1)
    (RESULTS / "training.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
