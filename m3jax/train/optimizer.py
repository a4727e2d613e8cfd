"""AdamW: a learning rate for each part and layer, no decay where none belongs, and what is frozen.

What does not train is taken out of the tree before gradients are computed: it costs neither a
gradient nor moments. Of a stack of layers only some may be frozen; those get zero updates, and
cost no gradient where the embeddings below them do not train either.
"""

import dataclasses

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
    """For the trained part of the parameters (see `split_params`).

    `schedule` is a factor on every learning rate: a number, or a function of the step. Clipping
    is by the norm of all trained gradients together.
    """
    rates = {"sparse": config.sparse_rate, "colbert": config.colbert_rate, "other": 1.0}
    chain = [_scaled(lambda params: _unfrozen(config, params))] if config.freeze_layers else []
    if config.clip_norm:
        chain.append(optax.clip_by_global_norm(config.clip_norm))
    chain.append(
        optax.partition(
            {part: _adamw(config, rate, schedule) for part, rate in rates.items()}, parts
        )
    )
    if config.layer_decay < 1.0 or config.freeze_layers:
        chain.append(_scaled(lambda params: _layer_rates(config, params)))
    return optax.chain(*chain)


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The factor on every rate: up from 0 in a straight line, then down to `end_rate`."""
    warmup = config.warmup_steps or round(config.warmup_ratio * steps)
    rest = max(steps - warmup, 1)
    after = {
        "linear": optax.linear_schedule(1.0, config.end_rate, rest),
        "cosine": optax.cosine_decay_schedule(1.0, rest, config.end_rate),
        "constant": optax.constant_schedule(1.0),
    }[config.schedule]
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), after], [warmup])


def split_params(
    params: Params, config: OptimizerConfig, loss: LossConfig | None
) -> tuple[Params, Params]:
    """(what trains, what stays as it is); `join_params` puts them together again.

    Without a `loss` (pre-training without heads) the heads stay as they are.
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
        raise ValueError("nothing is left to train: the config freezes every part")
    return unflatten(trained), unflatten({p: x for p, x in flat.items() if p not in trained})


def training_compute(compute: ComputeConfig, config: OptimizerConfig) -> ComputeConfig:
    """No gradient goes through frozen layers with nothing below them that trains."""
    if not (config.freeze_layers and config.freeze_embeddings):
        return compute
    return dataclasses.replace(compute, frozen_layers=config.freeze_layers)


def join_params(trained: Params, frozen: Params) -> Params:
    """The inverse of `split_params`."""
    return unflatten(flatten(frozen) | flatten(trained))


def parts(params: Params) -> Params:
    """The tree of labels: `sparse`, `colbert` or `other`."""
    return map_params(
        lambda path, _: path.split("/")[1] if path.startswith("heads/") else "other", params
    )


def _adamw(config: OptimizerConfig, rate: float, schedule: optax.Schedule | float):
    scale = rate * config.learning_rate
    factor = schedule if callable(schedule) else optax.constant_schedule(schedule)
    return optax.adamw(
        lambda step: scale * factor(step),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=_decays,
        mu_dtype=jnp.dtype(config.moments),
    )


def _decays(params: Params) -> Params:
    return map_params(lambda path, _: path.rpartition("/")[2] not in NO_DECAY, params)


def _scaled(factors) -> optax.GradientTransformation:
    """Multiplies updates, leaf by leaf, by a tree of factors made from the parameters."""

    def scale(updates, params):
        flat, factor = flatten(updates), flatten(factors(params))
        return unflatten({p: x * factor[p].astype(x.dtype) for p, x in flat.items()})

    return optax.stateless(scale)


def _unfrozen(config: OptimizerConfig, params: Params) -> Params:
    """1 for what trains, 0 for the lowest layers where they are frozen."""
    return _by_layer(params, lambda layers: jnp.arange(layers) >= config.freeze_layers, 1.0)


def _layer_rates(config: OptimizerConfig, params: Params) -> Params:
    """Layer l of L learns at decay^(L - 1 - l) of the rate, the embeddings at decay^L."""

    def rates(layers: int):
        numbers = jnp.arange(layers)
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
    """How many layers the stack has; one where nothing of it trains."""
    found = [leaf.shape[0] for path, leaf in flatten(params).items() if parameter(path).stacked]
    return found[0] if found else 1
