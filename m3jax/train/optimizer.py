"""AdamW with learning rates per head and layer, no weight decay on biases, and frozen parameters.

Frozen parameters are removed from the tree before differentiation: they have neither gradients nor
moments. Layers are stacked in one array, so the lowest layers cannot be removed: if only some are
frozen their updates are set to zero. They have no backward pass if the embeddings are frozen too.
"""

import dataclasses
from typing import Any, cast

import jax.numpy as jnp
import optax

from m3jax.config import ComputeConfig, LossConfig, OptimizerConfig
from m3jax.model.families import parameter
from m3jax.model.m3 import Params
from m3jax.sharding import flatten, map_params, unflatten

NO_DECAY = ("bias", "scale")  # biases and LayerNorms


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule | float = 1.0
) -> optax.GradientTransformation:
    """The optimizer of the trained parameters (see `split_params`).

    `schedule` is a factor on every learning rate: a number, or a function of the step. Gradients
    are clipped by the global norm over all trained parameters.
    """
    rates = {"sparse": config.sparse_rate, "colbert": config.colbert_rate, "other": 1.0}
    chain = [_scaled(lambda params: _unfrozen(config, params))] if config.freeze_layers else []
    if config.clip_norm:
        chain.append(optax.clip_by_global_norm(config.clip_norm))
    heads: dict[Any, Any] = {label: _adamw(config, rate, schedule) for label, rate in rates.items()}
    chain.append(optax.partition(heads, param_labels))
    if config.layer_decay < 1.0 or config.freeze_layers:
        chain.append(_scaled(lambda params: _layer_rates(config, params)))
    return optax.chain(*chain)


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The factor on every learning rate: linear warm-up from 0 to 1, then decay to `end_rate`."""
    warmup = config.warmup_steps or round(config.warmup_ratio * steps)
    rest = max(steps - warmup, 1)
    factor = {
        "linear": optax.linear_schedule(1.0, config.end_rate, rest),
        "cosine": optax.cosine_decay_schedule(1.0, rest, config.end_rate),
        "constant": optax.constant_schedule(1.0),
    }[config.schedule]
    if warmup:
        factor = optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), factor], [warmup])
    # As float32: optax combines the step with Python floats, which integers do not promote to under
    # JAX's strict dtype promotion.
    return lambda step: factor(jnp.asarray(step, jnp.float32))


def split_params(
    params: Params, config: OptimizerConfig, loss: LossConfig | None
) -> tuple[Params, Params]:
    """(trained, frozen) parameters; `join_params` is the inverse.

    Without a `loss` (pre-training without heads) the heads are frozen. Raises ValueError if
    everything is frozen.
    """
    heads = () if loss is None else loss.heads
    frozen = [f"heads/{head}/" for head in ("sparse", "colbert") if head not in heads]
    if loss is not None and loss.fix_encoder:
        frozen.append("encoder/")
    flat = flatten(params)
    all_layers = config.freeze_layers >= _layers(params)

    def trains(path: str) -> bool:
        row = parameter(path)
        return not (
            path.startswith(tuple(frozen))
            or (config.freeze_embeddings and row.part == "embeddings")
            or (config.freeze_positions and row.is_positions)
            or (all_layers and row.part == "layers")
        )

    trained = {path: leaf for path, leaf in flat.items() if trains(path)}
    if not trained:
        raise ValueError("nothing is left to train: the config freezes all parameters")
    return unflatten(trained), unflatten({p: x for p, x in flat.items() if p not in trained})


def training_compute(compute: ComputeConfig, config: OptimizerConfig) -> ComputeConfig:
    """`compute` without a backward pass through frozen layers above frozen embeddings."""
    if not (config.freeze_layers and config.freeze_embeddings):
        return compute
    return dataclasses.replace(compute, frozen_layers=config.freeze_layers)


def join_params(trained: Params, frozen: Params) -> Params:
    """The inverse of `split_params`."""
    return unflatten(flatten(frozen) | flatten(trained))


def param_labels(params: Params) -> Params:
    """The label of every parameter: `sparse`, `colbert` or `other`."""
    return map_params(
        lambda path, _: path.split("/")[1] if path.startswith("heads/") else "other", params
    )


def scale_by_adam(**settings: Any) -> optax.GradientTransformation:
    """`optax.scale_by_adam` for strict dtype promotion, with the same state and the same updates.

    Optax raises the decay rates to the integer step count; here the count is converted to float32.
    (With a bfloat16 first moment Optax itself requires standard promotion.)
    """
    adam = optax.scale_by_adam(**settings)

    def update(updates, state: Any, params=None):
        count = state.count
        state = state._replace(count=count.astype(jnp.float32))
        updates, after = adam.update(updates, state, params)
        return updates, cast(Any, after)._replace(count=optax.safe_increment(count))

    return optax.GradientTransformation(adam.init, update)


def _adamw(config: OptimizerConfig, rate: float, schedule: optax.Schedule | float):
    scale = rate * config.learning_rate
    factor = schedule if callable(schedule) else optax.constant_schedule(schedule)
    moments = jnp.dtype(config.moments)
    return optax.chain(
        scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps, mu_dtype=moments),
        optax.add_decayed_weights(config.weight_decay, _decays),
        optax.scale_by_learning_rate(lambda step: scale * factor(step)),
    )


def _decays(params: Params) -> Params:
    return map_params(lambda path, _: path.rpartition("/")[2] not in NO_DECAY, params)


def _scaled(factors) -> optax.GradientTransformation:
    """Multiplies updates by factors, a tree computed from the parameters."""

    def scale(updates, params):
        flat, factor = flatten(updates), flatten(factors(params))
        return unflatten({p: x * factor[p].astype(x.dtype) for p, x in flat.items()})

    return optax.stateless(scale)


def _unfrozen(config: OptimizerConfig, params: Params) -> Params:
    """Factors: 0 for the frozen lowest layers, else 1."""
    return _by_layer(params, lambda layers: jnp.arange(layers) >= config.freeze_layers, 1.0)


def _layer_rates(config: OptimizerConfig, params: Params) -> Params:
    """Factors: decay^(L - 1 - l) for layer l of L, decay^L for the embeddings, 0 if frozen."""

    def rates(layers: int):
        numbers = jnp.arange(layers, dtype=jnp.float32)
        power = jnp.asarray(config.layer_decay, jnp.float32) ** (layers - 1 - numbers)
        return jnp.where(numbers >= config.freeze_layers, power, 0.0)

    return _by_layer(params, rates, config.layer_decay ** _layers(params))


def _by_layer(params: Params, of_layers, of_embeddings: float) -> Params:
    def factor(path: str, leaf):
        part = parameter(path).part
        if part == "layers":
            shape = (leaf.shape[0], *[1] * (leaf.ndim - 1))
            return of_layers(leaf.shape[0]).astype(jnp.float32).reshape(shape)
        value = of_embeddings if part == "embeddings" else 1.0
        return jnp.full((1,) * leaf.ndim, value, jnp.float32)

    return map_params(factor, params)


def _layers(params: Params) -> int:
    """Number of layers of the stack; 1 if none of them is in `params`."""
    sizes = [leaf.shape[0] for path, leaf in flatten(params).items() if parameter(path).stacked]
    return sizes[0] if sizes else 1
