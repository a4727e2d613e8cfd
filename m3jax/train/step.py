"""One optimiser step on a mesh: gradients, clipping, AdamW, averages, and the numbers of it.

The global batch is split over `data` and `fsdp`, parameters and moments as `sharding` says; the
compiler places the collectives. State is donated: a step needs no second copy of it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from m3jax.config import (
    ComputeConfig,
    LossConfig,
    M3Config,
    OptimizerConfig,
    RetroMAEConfig,
    StepConfig,
)
from m3jax.model.attention import choose_backend
from m3jax.model.families import PARAMETERS, param_sharding
from m3jax.model.m3 import Params
from m3jax.train.gradcache import Gradients, Setting, loss_and_gradients
from m3jax.train.objectives import Metrics
from m3jax.train.optimizer import join_params, split_params
from m3jax.train.retromae import retromae_loss


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Int[Array, ""]  # optimiser steps done
    params: Params
    opt_state: Any  # of the trained part
    ema: Params | None  # the average of the parameters, where it is kept


# (trained, join, batch, step, key) -> ((loss, metrics), gradients of trained)
GradFunction = Callable[
    [Params, Callable[[Params], Params], Any, Int[Array, ""], jax.Array], Gradients
]


class Trainer(NamedTuple):
    """A run's functions; `update` compiles once for each shape of batch.

    What `init` and `update` are given is theirs: the parameters, the old state.
    """

    init: Callable[[Params], TrainState]
    update: Callable[[TrainState, Sequence[Any], jax.Array], tuple[TrainState, Metrics]]


def m3_gradients(
    model: M3Config, loss: LossConfig, step: StepConfig, compute: ComputeConfig, mesh: Mesh | None
) -> GradFunction:
    """Loss and gradients of the three heads, in the way `step.split` names."""
    setting = Setting(model, loss, step, compute, mesh)
    dropout = model.encoder.dropout > 0

    def gradients(trained, join, batch, number, key):
        return loss_and_gradients(trained, join, batch, setting, number, key if dropout else None)

    return gradients


def retromae_gradients(
    model: M3Config, config: RetroMAEConfig, compute: ComputeConfig, mesh: Mesh | None = None
) -> GradFunction:
    """Loss and gradients of RetroMAE: masks and dropout from the step's key."""

    def gradients(trained, join, batch, step, key):
        keys = jax.random.split(key)
        dropout = keys[1] if model.encoder.dropout else None
        chosen = choose_backend(compute, model.encoder, batch, mesh)

        def loss(trained):
            return retromae_loss(
                join(trained), batch, model, config, keys[0], compute=chosen, dropout_key=dropout
            )

        return jax.value_and_grad(loss, has_aux=True)(trained)

    return gradients


def make_trainer(
    gradients: GradFunction,
    optimizer: optax.GradientTransformation,
    config: OptimizerConfig,
    loss: LossConfig | None,
    schedule: optax.Schedule,
    mesh: Mesh,
    like: Params,
) -> Trainer:
    """The functions of a run on parameters of the shapes of `like`.

    `update(state, batches, key)` takes one step on the mean gradient of the batches, each with
    negatives of its own (accumulation). Dropout's keys are folded from (key, step, batch). The
    metrics are those of the last batch, the loss the mean; `gradient_norm` is before clipping.
    """
    compute = functools.partial(_compute, gradients, config, loss)
    start = functools.partial(_start, optimizer, config, loss)
    # Named for the outputs, so that every step, the first and one after a restore too, receives
    # its state in the same way and runs the same program: that is what makes a resumed run equal.
    placed = state_sharding(jax.eval_shape(start, like), mesh)

    def apply(state: TrainState, grads: Params, metrics: Metrics) -> tuple[TrainState, Metrics]:
        new = _apply(optimizer, config, loss, state, grads)
        rate = jnp.asarray(config.learning_rate * schedule(state.step), dtype=jnp.float32)
        metrics = metrics | {"gradient_norm": optax.global_norm(grads), "learning_rate": rate}
        return new, metrics

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(placed, None))
    def whole(state: TrainState, batch: Any, key: jax.Array):
        (_, metrics), grads = compute(state, batch, key, 0)
        return apply(state, grads, metrics)

    one = jax.jit(compute, static_argnums=3)
    finish = jax.jit(apply, donate_argnums=0, out_shardings=(placed, None))

    @functools.partial(jax.jit, donate_argnums=0)
    def add(total: Params, more: Params):
        return jax.tree.map(jnp.add, total, more)

    def update(state: TrainState, batches: Sequence[Any], key: jax.Array):
        if len(batches) == 1:
            return whole(state, batches[0], key)
        (loss, metrics), total = one(state, batches[0], key, 0)
        for number, batch in enumerate(batches[1:], start=1):
            (more, metrics), grads = one(state, batch, key, number)
            total, loss = add(total, grads), loss + more
        mean = jax.tree.map(lambda leaf: leaf / len(batches), total)
        return finish(state, mean, metrics | {"loss": loss / len(batches)})

    return Trainer(jax.jit(start, donate_argnums=0, out_shardings=placed), update)


def _start(
    optimizer: optax.GradientTransformation,
    config: OptimizerConfig,
    loss: LossConfig | None,
    params: Params,
) -> TrainState:
    """The state before the first step."""
    trained, _ = split_params(params, config, loss)
    ema = jax.tree.map(jnp.copy, params) if config.ema else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(trained), ema)


def _compute(
    gradients: GradFunction,
    config: OptimizerConfig,
    loss: LossConfig | None,
    state: TrainState,
    batch: Any,
    key: jax.Array,
    number: int,
) -> Gradients:
    """Loss, metrics and float32 gradients of the trained part, for the step's `number`th batch."""
    trained, frozen = split_params(state.params, config, loss)
    key = jax.random.fold_in(jax.random.fold_in(key, state.step), number)
    join = functools.partial(_join, frozen)
    (value, metrics), grads = gradients(trained, join, batch, state.step, key)
    return (value, metrics), jax.tree.map(lambda g: g.astype(jnp.float32), grads)


def _apply(
    optimizer: optax.GradientTransformation,
    config: OptimizerConfig,
    loss: LossConfig | None,
    state: TrainState,
    grads: Params,
) -> TrainState:
    """The state after a step with these gradients; frozen parameters stay as they are."""
    trained, frozen = split_params(state.params, config, loss)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    params = join_params(cast(Params, optax.apply_updates(trained, updates)), frozen)
    ema = state.ema
    if ema is not None:
        ema = jax.tree.map(lambda a, b: config.ema * a + (1 - config.ema) * b, ema, params)
    return TrainState(state.step + 1, params, opt_state, ema)


def state_sharding(state: Any, mesh: Mesh) -> Any:
    """Parameters, averages and moments by the rules of `sharding`, everything else everywhere.

    A moment is known by the path it ends with: .mu['encoder']['layers'] ... of the optimiser.
    """

    def place(path, leaf) -> NamedSharding:
        names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
        for start in range(len(names)):
            name = "/".join(names[start:])
            if name in PARAMETERS:
                return param_sharding(name, leaf.shape, mesh)
        return NamedSharding(mesh, P())

    return jax.tree.map_with_path(place, state)


def _join(frozen: Params, trained: Params) -> Params:
    return join_params(trained, frozen)
