"""Ten training steps of a tiny model."""

import dataclasses

import jax
import jax.numpy as jnp
from support.examples_in_memory import in_memory, make_examples

from m3jax import sharding
from m3jax.config import (
    ComputeConfig,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    StepConfig,
)
from m3jax.feed.source import BatchSource
from m3jax.train.optimizer import make_optimizer, make_schedule
from m3jax.train.prefetch import place
from m3jax.train.step import m3_gradients, make_trainer
from m3jax.types import TrainBatch

STEPS, GROUP, START = 10, 4, 5  # self-distillation sets in half-way
OPTIMIZER = OptimizerConfig(
    learning_rate=2e-4, warmup_steps=3, weight_decay=0.1, clip_norm=1.0, sparse_rate=3.0
)
LOSS = LossConfig(self_distill_start=START, mask_duplicates=False, padding_competes=True)
DATA = DataConfig(
    group_size=GROUP,
    query_length=32,
    passage_length=48,
    length_boundaries=(48,),
    batch_sizes=(6,),
    batching="padded_to_group",
)


def make_batches(model) -> list[TrainBatch]:
    """Two epochs of thirty examples, so that texts come again."""
    examples = in_memory(make_examples(30, negatives=6), model.tokenizer)
    source = BatchSource(examples, model.tokenizer, DATA)
    made = [source.batch(step) for step in range(STEPS)]
    assert all(isinstance(b, TrainBatch) and b.targets.is_real.all() for b in made)  # pyright: ignore
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
