"""The whole model: encoder, then heads, used as a function of (params, batch)."""

import flax.linen as nn
import jax
import numpy as np

from m3jax.config import ComputeConfig, M3Config
from m3jax.model.encoder import Encoder
from m3jax.model.heads import HEADS, Heads
from m3jax.types import Encoding, TextBatch

Params = dict


class M3(nn.Module):
    """`M3(config).apply({"params": params}, batch)` returns an `Encoding`."""

    config: M3Config
    compute: ComputeConfig = ComputeConfig()
    heads: tuple[str, ...] = HEADS

    @nn.compact
    def __call__(self, batch: TextBatch, deterministic: bool = True) -> Encoding:
        hidden = Encoder(self.config.encoder, self.compute, name="encoder")(batch, deterministic)
        return Heads(self.config, self.heads, name="heads")(hidden, batch)


def abstract_params(config: M3Config) -> Params:
    """The parameter tree as shapes and dtypes; nothing is allocated."""
    return jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))


def init_params(config: M3Config, key: jax.Array) -> Params:
    """Random parameters, as XLM-R initialises them; float32."""
    ids = np.full((1, 2), config.encoder.pad_id, np.int32)
    ones = np.ones((1, 2), np.int32)
    batch = TextBatch(ids, ids, ones, np.zeros((1, 2), bool), np.full((1, 1), 2, np.int32))
    return M3(config).init(key, batch)["params"]
