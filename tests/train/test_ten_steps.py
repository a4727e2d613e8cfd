"""Ten steps of training beside a plain PyTorch loop: the same weights, batches and AdamW."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from examples_in_memory import in_memory, make_examples
from test_objectives import torch_model, torch_scores_loss

from m3jax import pretrained, sharding
from m3jax.config import (
    ComputeConfig,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    StepConfig,
)
from m3jax.feed.source import Feed
from m3jax.train.optimizer import make_optimizer, make_schedule
from m3jax.train.prefetch import place
from m3jax.train.step import m3_gradients, make_trainer
from m3jax.types import TrainBatch

STEPS, GROUP, START = 10, 4, 5  # self-distillation sets in half-way
OPTIMIZER = OptimizerConfig(
    learning_rate=2e-4, warmup_steps=3, weight_decay=0.1, clip_norm=1.0, sparse_rate=3.0
)
LOSS = LossConfig(self_distill_start=START, mask_duplicates=False, padding_competes=True)
DATA = DataConfig(group_size=GROUP, query_length=32, passage_length=48, edges=(48,),
                  batch_sizes=(6,), layout="group")  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_dir):
    return pretrained.load(tiny_dir, mesh=sharding.make_mesh(devices=jax.devices()[:1]))


@pytest.fixture(scope="module")
def batches(model) -> list[TrainBatch]:
    return make_batches(model)


def make_batches(model) -> list[TrainBatch]:
    """Two epochs of thirty examples, so that texts come again."""
    examples = in_memory(make_examples(30, negatives=6), model.tokenizer)
    feed = Feed(examples, model.tokenizer, DATA)
    made = [feed.batch(step) for step in range(STEPS)]
    assert all(isinstance(b, TrainBatch) and b.targets.real.all() for b in made)  # pyright: ignore
    return made  # pyright: ignore[reportReturnType]


def our_losses(model, batches, split) -> list[float]:
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    config = dataclasses.replace(
        model.config, encoder=dataclasses.replace(model.config.encoder, dropout=0.0)
    )
    step = StepConfig(split=split, sub_tokens=200)
    gradients = m3_gradients(config, LOSS, step, ComputeConfig(), mesh)
    schedule = make_schedule(OPTIMIZER, STEPS)
    optimizer = make_optimizer(OPTIMIZER, schedule)
    params = jax.tree.map(jnp.array, model.params)  # the trainer takes what it is given
    trainer = make_trainer(gradients, optimizer, OPTIMIZER, LOSS, schedule, mesh, params)
    state, losses = trainer.init(params), []
    for batch in batches:
        state, metrics = trainer.update(state, [place(batch, mesh)], jax.random.key(0))
        losses.append(float(metrics["loss"]))
    return losses


def torch_losses(directory, batches) -> list[float]:
    """Nothing of ours: transformers' encoder, the reference's formulas, torch's AdamW."""
    encoder, heads = torch_model(directory)
    decayed, kept, sparse = [], [], []
    for name, parameter in encoder.named_parameters():
        (kept if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
    decayed.append(heads["colbert_linear"].weight)
    kept.append(heads["colbert_linear"].bias)
    rate, decay, tripled = OPTIMIZER.learning_rate, OPTIMIZER.weight_decay, OPTIMIZER.sparse_rate
    sparse = heads["sparse_linear"]
    optimizer = torch.optim.AdamW([
        {"params": decayed, "lr": rate, "weight_decay": decay},
        {"params": kept, "lr": rate, "weight_decay": 0.0},
        {"params": [sparse.weight], "lr": tripled * rate, "weight_decay": decay},
        {"params": [sparse.bias], "lr": tripled * rate, "weight_decay": 0.0},
    ], betas=(0.9, 0.999), eps=1e-8)  # fmt: skip
    warm, rest = OPTIMIZER.warmup_steps, STEPS - OPTIMIZER.warmup_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: n / warm if n < warm else 1 - (n - warm) / rest
    )
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    losses = []
    for number, batch in enumerate(batches):
        optimizer.zero_grad()
        loss = torch_scores_loss(encoder, heads, batch, GROUP, self_distill=number >= START)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(everything, OPTIMIZER.clip_norm)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parity
@pytest.mark.parametrize("split", ["none", "cached"])
def test_ten_losses_equal_those_of_a_pytorch_loop(tiny_dir, model, batches, split):
    with jax.numpy_dtype_promotion("standard"):  # Optax adds Python numbers to integer arrays
        ours = our_losses(model, batches, split)
    want = torch_losses(tiny_dir, batches)
    np.testing.assert_allclose(ours, want, rtol=1e-4)
    if split == "none":
        again = torch_losses(tiny_dir, [batches[0]] * STEPS)
        assert again[START - 1] < 0.97 * again[0]  # the steps are large enough to matter
