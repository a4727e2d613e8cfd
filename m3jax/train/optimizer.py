"""AdamW, with a learning rate for each part of the model and no decay where none belongs."""

import optax

from m3jax.config import LossConfig, OptimizerConfig
from m3jax.model.m3 import Params
from m3jax.sharding import map_params

NO_DECAY = ("bias", "scale")  # biases and LayerNorms


def make_optimizer(
    config: OptimizerConfig, loss: LossConfig, schedule: optax.Schedule | float = 1.0
) -> optax.GradientTransformation:
    """Parts that do not train (a frozen encoder, a head that is left out) stay as they are.

    `schedule` is a factor on every learning rate: a number, or a function of the step.
    """
    rates = {"encoder": 1.0, "sparse": config.sparse_rate, "colbert": config.colbert_rate}
    frozen = {"sparse", "colbert"} - set(loss.heads) | ({"encoder"} if loss.fix_encoder else set())
    return optax.partition(
        {
            part: optax.set_to_zero() if part in frozen else _adamw(config, rate, schedule)
            for part, rate in rates.items()
        },
        parts,
    )


def parts(params: Params) -> Params:
    """The tree of labels: `encoder`, `sparse` or `colbert`."""
    return map_params(
        lambda path, _: path.split("/")[1 if path.startswith("heads/") else 0], params
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
    )


def _decays(params: Params) -> Params:
    return map_params(lambda path, _: path.rpartition("/")[2] not in NO_DECAY, params)
