"""RetroMAE's decoder and language model head (Xiao et al. 2022, arXiv 2205.12035, sec. 3).

    n  rows    s  tokens    d  hidden    v  vocabulary    m  texts in a row    t  tokens of a chunk

`params["decoder"]` is one block like the encoder's. `params["mlm"]` is XLM-R's language model head;
its output table is the word embedding. Without both the tree is that of an M3 model.
"""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from m3jax.config import ComputeConfig, EncoderConfig, M3Config
from m3jax.model.attention import Visible, attend_in_blocks
from m3jax.model.m3 import PLAIN, Params
from m3jax.model.xlm_roberta import Embeddings, block, layer_norm, table_rows
from m3jax.types import TextBatch


class Decoder(nn.Module):
    """One post-LayerNorm block in which each query attends to other keys."""

    config: EncoderConfig
    compute: ComputeConfig = PLAIN

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "n s d"],
        context: Float[Array, "n s d"],
        visible: Visible,
        deterministic: bool = True,
    ) -> Float[Array, "n s d"]:
        def mix(query, key, value):
            return attend_in_blocks(query, key, value, visible, self.compute.query_block)

        return block(self.config, query, context, mix, deterministic)


class MLMHead(nn.Module):
    """logits = LayerNorm(gelu(W h + b)) E^T + c, E the word embeddings; float32."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "n t d"], table: Float[Array, "v d"]
    ) -> Float[Array, "n t v"]:
        bias = self.param("bias", nn.initializers.zeros, (self.config.vocab_size,))
        inner = nn.Dense(self.config.hidden_size, dtype=hidden.dtype, name="dense")(hidden)
        inner = jax.nn.gelu(inner, approximate=False).astype(jnp.float32)
        inner = layer_norm(self.config, "norm")(inner).astype(hidden.dtype)
        logits = jnp.einsum(
            "ntd,vd->ntv", inner, table.astype(inner.dtype), preferred_element_type=jnp.float32
        )
        return logits + bias[None, None]


def decode(
    params: Params,
    batch: TextBatch,
    sentences: Float[Array, "n m d"],
    visible: Visible,
    config: EncoderConfig,
    compute: ComputeConfig = PLAIN,
    dropout_key: jax.Array | None = None,
) -> Float[Array, "n s d"]:
    """Hidden states from which the tokens of `batch` are predicted, given the texts' embeddings.

    queries  h + p_i                         h the text's embedding, p_i the i-th position
    context  [h, e_1, e_2, ...]              e_i the true tokens as the encoder embeds them

    Query i receives the tokens that `visible` marks, and no others.
    """
    table = params["encoder"]["embeddings"]["position"]
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    positions = jnp.asarray(batch.positions)
    # The product with 0 and 1 copies each embedding to the tokens of its text. Its gradient is a
    # sum in a fixed order; that of a gather would be a scatter.
    texts = jnp.arange(1, batch.lengths.shape[1] + 1, dtype=jnp.int32)
    member = jnp.asarray(batch.segment_ids)[:, None, :] == texts[None, :, None]
    broadcast = jnp.einsum(
        "nms,nmd->nsd",
        member.astype(jnp.float32),
        sentences.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    query = broadcast + table_rows(table, positions, config.pad_id)
    tokens = _apply(
        Embeddings(config, compute),
        params["encoder"]["embeddings"],
        keys[0],
        jnp.asarray(batch.token_ids),
        positions,
    )
    dtype = jnp.dtype(compute.dtype)
    first = first_tokens(jnp.asarray(batch.segment_ids))
    context = jnp.where(first[..., None], broadcast.astype(dtype), tokens)
    return _apply(
        Decoder(config, compute), params["decoder"], keys[1], query.astype(dtype), context, visible
    )


def cross_entropy(
    params: Params,
    hidden: Float[Array, "n s d"],
    labels: Int[Array, "n s"],
    mask: Bool[Array, "n s"],
    config: EncoderConfig,
    chunk: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(mean loss, accuracy) of the head's predictions where `mask` is True; 0 if it never is.

    Logits are computed for about `chunk` tokens of the batch at a time (a few columns of every row,
    so that rows can be sharded), and recomputed in the backward pass.
    """
    n, s = labels.shape
    columns = min(s, max(1, chunk // n))
    chunks = -(-s // columns)

    def split(array):
        fill = [(0, 0), (0, chunks * columns - s)] + [(0, 0)] * (array.ndim - 2)
        array = jnp.pad(array, fill).reshape(n, chunks, columns, *array.shape[2:])
        return jnp.moveaxis(array, 1, 0)

    @jax.checkpoint
    def sums_of_chunk(arrays):
        hidden, labels, mask = arrays
        # The table is cast inside, so that its gradient is summed over the chunks in float32.
        table = params["encoder"]["embeddings"]["word"]
        logits = cast(jax.Array, MLMHead(config).apply({"params": params["mlm"]}, hidden, table))
        label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        losses = jax.nn.logsumexp(logits, axis=-1) - label_logits
        correct = (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels) & mask
        return jnp.where(mask, losses, 0.0).sum(), correct.astype(jnp.float32).sum()

    total, correct = jax.lax.map(sums_of_chunk, (split(hidden), split(labels), split(mask)))
    count = jnp.maximum(mask.astype(jnp.float32).sum(), 1.0)
    return total.sum() / count, correct.sum() / count


def first_tokens(segment_ids: Int[Array, "n s"]) -> Bool[Array, "n s"]:
    """True at the first token of each text."""
    before = jnp.pad(segment_ids[:, :-1], ((0, 0), (1, 0)))
    return (segment_ids > 0) & (segment_ids != before)


def last_tokens(segment_ids: Int[Array, "n s"]) -> Bool[Array, "n s"]:
    """True at the last token of each text."""
    after = jnp.pad(segment_ids[:, 1:], ((0, 0), (0, 1)))
    return (segment_ids > 0) & (segment_ids != after)


def init_retromae(config: M3Config, key: jax.Array, encoder: Params | None = None) -> Params:
    """{"decoder": ..., "mlm": ...}, to be merged into an M3 model's parameters; float32.

    Random, initialised as XLM-R is; with `encoder`, the encoder's subtree of an M3 model, the
    decoder is a copy of its last layer.
    """
    mlm_key, decoder_key = jax.random.split(key)
    # Shapes instead of arrays: a table of zeros would take the memory of the embeddings.
    width, rows = config.encoder.hidden_size, config.encoder.vocab_size
    hidden = jax.ShapeDtypeStruct((1, 1, width), jnp.float32)
    table = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    mlm = MLMHead(config.encoder).lazy_init(mlm_key, hidden, table)["params"]
    if encoder is not None:
        decoder = jax.tree.map(lambda stacked: stacked[-1], encoder["layers"])
    else:
        module = Decoder(config.encoder)
        decoder = module.lazy_init(decoder_key, hidden, hidden, _all_visible)["params"]
    return {"decoder": dict(decoder), "mlm": dict(mlm)}


def abstract_retromae(config: M3Config) -> Params:
    """The shapes and dtypes of RetroMAE's parameters; nothing is allocated."""
    return jax.eval_shape(lambda key: init_retromae(config, key), jax.random.key(0))


def _all_visible(columns: jax.Array) -> jax.Array:
    return jnp.ones((1, len(columns), 1), bool)


def _apply(module: nn.Module, params: Params, dropout_key: jax.Array | None, *inputs: Any):
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    out = module.apply({"params": params}, *inputs, deterministic=dropout_key is None, rngs=rngs)
    return cast(jax.Array, out)
