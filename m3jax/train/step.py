"""One optimizer step on a mesh: gradients, clipping, AdamW, averages and metrics.

The global batch is split over the mesh axes `data` and `fsdp`, parameters and moments as `sharding`
specifies; the compiler inserts the collectives. The state is donated and updated in place.
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
from m3jax.train.gradcache import Gradients, loss_and_gradients
from m3jax.train.objectives import Metrics, ObjectiveOptions
from m3jax.train.optimizer import join_params, split_params
from m3jax.train.retromae import retromae_loss


class TrainState(NamedTuple):
    """The state that a step updates."""

    step: Int[Array, ""]  # optimizer steps done
    params: Params
    opt_state: Any  # optax state of the trained parameters
    ema: Params | None  # moving average of the parameters, if `optimizer.ema` is set


# (trained, join, batch, step, key) -> ((loss, metrics), gradients of `trained`)
GradFunction = Callable[
    [Params, Callable[[Params], Params], Any, Int[Array, ""], jax.Array], Gradients
]


class Trainer(NamedTuple):
    """The compiled functions of a run. `update` compiles once per shape of batch.

    `init` and `update` donate their arguments; do not reuse the parameters or the old state.
    """

    init: Callable[[Params], TrainState]
    update: Callable[[TrainState, Sequence[Any], jax.Array], tuple[TrainState, Metrics]]


def m3_gradients(
    model: M3Config, loss: LossConfig, step: StepConfig, compute: ComputeConfig, mesh: Mesh | None
) -> GradFunction:
    """Loss and gradients of the three heads, computed as `step.split` says."""
    return functools.partial(loss_and_gradients, ObjectiveOptions(model, loss, step, compute, mesh))


def retromae_gradients(
    model: M3Config, config: RetroMAEConfig, compute: ComputeConfig, mesh: Mesh | None = None
) -> GradFunction:
    """Loss and gradients of RetroMAE. Masks and dropout are drawn from the step's key."""

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
    """The functions of a run for parameters of the shapes of `like`.

    `update(state, batches, key)` takes one step on the mean gradient of the batches, which do not
    share negatives. Dropout keys are folded from (key, step, batch). The metrics are those of the
    last batch, the loss is the mean; `gradient_norm` is measured before clipping.
    """
    compute = functools.partial(_compute, gradients, config, loss)
    init = functools.partial(_init, optimizer, config, loss)
    # Explicit output shardings: every step, also the first one and one after a restore, runs the
    # same program. Resumed runs are bitwise equal.
    placed = state_sharding(jax.eval_shape(init, like), mesh)

    def apply(state: TrainState, grads: Params, metrics: Metrics) -> tuple[TrainState, Metrics]:
        new = _apply(optimizer, config, loss, state, grads)
        rate = jnp.asarray(config.learning_rate * schedule(state.step), dtype=jnp.float32)
        metrics = metrics | {"gradient_norm": optax.global_norm(grads), "learning_rate": rate}
        return new, metrics

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(placed, None))
    def single(state: TrainState, batch: Any, key: jax.Array):
        (_, metrics), grads = compute(state, batch, key, 0)
        return apply(state, grads, metrics)

    accumulate = jax.jit(compute, static_argnums=3)
    finish = jax.jit(apply, donate_argnums=0, out_shardings=(placed, None))

    @functools.partial(jax.jit, donate_argnums=0)
    def add(total: Params, more: Params):
        return jax.tree.map(jnp.add, total, more)

    def update(state: TrainState, batches: Sequence[Any], key: jax.Array):
        if len(batches) == 1:
            return single(state, batches[0], key)
        (loss, metrics), total = accumulate(state, batches[0], key, 0)
        for number, batch in enumerate(batches[1:], start=1):
            (more, metrics), grads = accumulate(state, batch, key, number)
            total, loss = add(total, grads), loss + more
        mean = jax.tree.map(lambda leaf: leaf / len(batches), total)
        return finish(state, mean, metrics | {"loss": loss / len(batches)})

    return Trainer(jax.jit(init, donate_argnums=0, out_shardings=placed), update)


def _init(
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
    """Loss, metrics and float32 gradients of the trained parameters for one batch of a step."""
    trained, frozen = split_params(state.params, config, loss)
    key = jax.random.fold_in(jax.random.fold_in(key, state.step), number)
    join = functools.partial(join_params, frozen=frozen)
    (value, metrics), grads = gradients(trained, join, batch, state.step, key)
    return (value, metrics), jax.tree.map(lambda g: g.astype(jnp.float32), grads)


def _apply(
    optimizer: optax.GradientTransformation,
    config: OptimizerConfig,
    loss: LossConfig | None,
    state: TrainState,
    grads: Params,
) -> TrainState:
    """The state after a step with these gradients. Frozen parameters are unchanged."""
    trained, frozen = split_params(state.params, config, loss)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    params = join_params(cast(Params, optax.apply_updates(trained, updates)), frozen)
    ema = state.ema
    if ema is not None:
        ema = jax.tree.map(lambda a, b: config.ema * a + (1 - config.ema) * b, ema, params)
    return TrainState(state.step + 1, params, opt_state, ema)


def state_sharding(state: Any, mesh: Mesh) -> Any:
    """Shardings of parameters, averages and moments by the rules of `sharding`; others replicated.

    A moment is recognized by the end of its path in the optimizer state: .mu['encoder']['layers'].
    """

    def sharding_of(path, leaf) -> NamedSharding:
        names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
        for start in range(len(names)):
            name = "/".join(names[start:])
            if name in PARAMETERS:
                return param_sharding(name, leaf.shape, mesh)
        return NamedSharding(mesh, P())

    return jax.tree.map_with_path(sharding_of, state)
