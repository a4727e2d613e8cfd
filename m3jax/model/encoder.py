"""XLM-RoBERTa, exactly (Conneau et al. 2020, arXiv 1911.02116), as thin Linen modules.

Post-LayerNorm blocks, erf GELU, learned positions counted from pad_id + 1, one token-type row.
The layers are stacked along a leading axis and scanned: one layer is traced and compiled.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from m3jax.config import ComputeConfig, EncoderConfig
from m3jax.model.attention import attend
from m3jax.types import TextBatch


class Encoder(nn.Module):
    """Tokens to hidden states, in the compute dtype."""

    config: EncoderConfig
    compute: ComputeConfig = ComputeConfig()

    @nn.compact
    def __call__(self, batch: TextBatch, deterministic: bool = True) -> Float[Array, "n s d"]:
        hidden = Embeddings(self.config, self.compute, name="embeddings")(
            jnp.asarray(batch.token_ids), jnp.asarray(batch.positions), deterministic
        )
        layers, frozen = self.config.layers, min(self.compute.frozen_layers, self.config.layers)
        arguments = (jnp.asarray(batch.segment_ids), jnp.asarray(batch.lengths), deterministic)
        if not frozen or self.is_initializing():
            stack = _stack(self.compute, layers)(self.config, self.compute, name="layers")
            return stack(hidden, *arguments)[0]
        # Two scans over pieces of the one stack: the first is left out of the backward pass.
        params = self.variables["params"]["layers"]
        pieces = ((0, frozen), (frozen, layers)) if frozen < layers else ((0, frozen),)
        for first, last in pieces:
            piece = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], params)
            rngs = None if deterministic else {"dropout": self.make_rng("dropout")}
            stack = _stack(self.compute, last - first)(self.config, self.compute, parent=None)
            result = stack.apply({"params": piece}, hidden, *arguments, rngs=rngs)
            hidden = cast(tuple[jax.Array, None], result)[0]
            hidden = jax.lax.stop_gradient(hidden) if not first else hidden
        return hidden


def _stack(compute: ComputeConfig, layers: int) -> Callable[..., Any]:
    """`Layer`, so many times, its parameters stacked along the first axis."""
    # prevent_cse is for loops that are not scanned; inside a scan it only costs.
    layer = nn.remat(Layer, prevent_cse=False, static_argnums=(4,)) if compute.remat else Layer
    return nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=layers,
        unroll=min(compute.unroll, layers),
    )


class Embeddings(nn.Module):
    """LayerNorm(word + token type + position), added in the order of the PyTorch model."""

    config: EncoderConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "n s"], positions: Int[Array, "n s"], deterministic: bool
    ) -> Float[Array, "n s d"]:
        config = self.config
        init = nn.initializers.normal(0.02)
        word = self.param("word", init, (config.vocab_size, config.hidden_size))
        position = self.param("position", init, (config.max_positions, config.hidden_size))
        token_type = self.param("token_type", init, (1, config.hidden_size))
        words = table_rows(word, token_ids, config.pad_id)
        summed = (words + token_type[0][None, None]) + table_rows(
            position, positions, config.pad_id
        )
        hidden = layer_norm(config, "norm")(summed)
        hidden = nn.Dropout(config.dropout)(hidden, deterministic=deterministic)
        return hidden.astype(self.compute.dtype)


class Layer(nn.Module):
    """One post-LayerNorm block: attention, then the feed-forward, each added and normalised."""

    config: EncoderConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "n s d"],
        segment_ids: Int[Array, "n s"],
        lengths: Int[Array, "n m"],
        deterministic: bool,
    ) -> tuple[Float[Array, "n s d"], None]:
        def mix(query, key, value):
            backend, query_block = self.compute.attention, self.compute.query_block
            return attend(query, key, value, segment_ids, lengths, backend, query_block)

        return block(self.config, hidden, hidden, mix, deterministic), None


def block(
    config: EncoderConfig,
    hidden: Float[Array, "n s d"],
    context: Float[Array, "n s d"],
    mix: Callable[..., jax.Array],
    deterministic: bool,
) -> Float[Array, "n s d"]:
    """A block's computation, its parameters in the module that calls it.

    Queries and residuals come from `hidden`, keys and values from `context` (the encoder: the same
    array); `mix` is the attention of [n, s, h, k] queries, keys and values.
    """
    dropout = nn.Dropout(config.dropout, deterministic=deterministic)
    dense = functools.partial(nn.Dense, dtype=hidden.dtype)

    def add_and_norm(name, hidden, update):
        """LayerNorm in float32 whatever the compute dtype."""
        total = hidden.astype(jnp.float32) + update.astype(jnp.float32)
        return layer_norm(config, name)(total).astype(hidden.dtype)

    shape = (*hidden.shape[:2], config.heads, config.hidden_size // config.heads)
    query, key, value = (
        dense(config.hidden_size, name=name)(source).reshape(shape)
        for name, source in (("query", hidden), ("key", context), ("value", context))
    )
    mixed = mix(query, key, value).reshape(hidden.shape)
    mixed = dropout(dense(config.hidden_size, name="output")(mixed))
    hidden = add_and_norm("output_norm", hidden, mixed)

    inner = jax.nn.gelu(dense(config.intermediate_size, name="up")(hidden), approximate=False)
    outer = dropout(dense(config.hidden_size, name="down")(inner))
    return add_and_norm("down_norm", hidden, outer)


def table_rows(
    table: Float[Array, "v d"], places: Int[Array, "n s"], pad_id: int
) -> Float[Array, "n s d"]:
    """Rows of a table. Row pad_id gets no gradient, as with PyTorch's padding_idx: it would only
    where a text spells `<pad>`."""
    rows = table[places]
    return jnp.where((places == pad_id)[..., None], jax.lax.stop_gradient(rows), rows)


def layer_norm(config: EncoderConfig, name: str) -> nn.LayerNorm:
    """(x - mean) / sqrt(var + eps) in float32, with a scale and a bias, as PyTorch's.

    Two passes: the fast variance E[x^2] - E[x]^2 cancels where PyTorch's does not.
    """
    return nn.LayerNorm(epsilon=config.eps, dtype=jnp.float32, use_fast_variance=False, name=name)
