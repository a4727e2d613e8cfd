"""The M3 model, encoder and heads, as functions of (params, batch)."""

from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from m3jax.config import HEADS, ComputeConfig, M3Config
from m3jax.model.attention import choose_backend
from m3jax.model.families import family_of
from m3jax.model.heads import Heads
from m3jax.types import Encoding, TextBatch

Params = dict[str, Any]
PLAIN = ComputeConfig()  # float32


class M3(nn.Module):
    """Encoder and heads as one module; `encode_batch` applies it."""

    config: M3Config
    compute: ComputeConfig = ComputeConfig()
    heads: tuple[str, ...] = HEADS

    @nn.compact
    def __call__(self, batch: TextBatch, deterministic: bool = True) -> Encoding:
        encoder = family_of(self.config.encoder).encoder
        hidden = encoder(self.config.encoder, self.compute, name="encoder")(batch, deterministic)
        return Heads(self.config, self.heads, name="heads")(hidden, batch)


def encode_batch(
    params: Params,
    batch: TextBatch,
    config: M3Config,
    compute: ComputeConfig = PLAIN,
    heads: tuple[str, ...] = HEADS,
    dropout_key: jax.Array | None = None,
    mesh: Mesh | None = None,
) -> Encoding:
    """The representations of the texts of `batch`; dropout is applied if `dropout_key` is given.

    `mesh` holds the devices that the program is compiled for: the attention back end is chosen
    from them, and is `xla` without a mesh.
    """
    compute = choose_backend(compute, config.encoder, batch, mesh)
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    encoding = M3(config, compute, heads).apply(
        {"params": params}, batch, deterministic=dropout_key is None, rngs=rngs
    )
    return cast(Encoding, encoding)


def hidden_states(
    params: Params,
    batch: TextBatch,
    config: M3Config,
    compute: ComputeConfig = PLAIN,
) -> Float[Array, "n s d"]:
    """The encoder's last hidden states, in the compute dtype."""
    encoder = family_of(config.encoder).encoder(config.encoder, compute)
    return cast(jax.Array, encoder.apply({"params": params["encoder"]}, batch))


def abstract_params(config: M3Config) -> Params:
    """The shapes and dtypes of the parameters; nothing is allocated."""
    return jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))


def init_params(config: M3Config, key: jax.Array) -> Params:
    """Random parameters in float32, as the encoder's family initialises them."""
    ids = np.full((1, 2), config.encoder.pad_id, np.int32)
    ones = np.ones((1, 2), np.int32)
    batch = TextBatch(ids, ids, ones, np.zeros((1, 2), bool), np.full((1, 1), 2, np.int32))
    return dict(M3(config).init(key, batch)["params"])
