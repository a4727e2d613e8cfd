"""Representations of packed rows, rearranged to one text per row.

b  texts    s  tokens of a text    r  packed rows    m  texts of a row    w  width of a row
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from m3jax.model.heads import token_mask
from m3jax.sharding import BATCH_AXES, batch_shards
from m3jax.types import Encoding, TextBatch, TrainBatch


def unpack(
    encoding: Encoding, batch: TrainBatch, mesh: Mesh | None = None
) -> tuple[Encoding, Encoding]:
    """The encodings of the queries and of the passages of a packed batch, as if padded.

    With a `mesh`, a text's tokens must be in rows of the device that holds the text: `BatchSource`
    packs them so, and no communication is needed.
    """
    packed = batch.packed
    assert packed is not None
    sides = (
        (batch.queries, packed.query_text_index, packed.query_token_index),
        (batch.passages, packed.passage_text_index, packed.passage_token_index),
    )
    queries, passages = (_side(encoding, *side, mesh) for side in sides)
    return queries, passages


def _side(
    encoding: Encoding, texts: TextBatch, text_index: Any, token_index: Any, mesh: Mesh | None
):
    take = functools.partial(_take, mesh=mesh)
    dense = encoding.dense
    if dense is not None:
        dense = take(dense, jnp.asarray(text_index))[:, None]
    sparse = None if encoding.sparse is None else take(encoding.sparse, jnp.asarray(token_index))
    colbert = None if encoding.colbert is None else take(encoding.colbert, jnp.asarray(token_index))
    return Encoding(dense, sparse, colbert, token_mask(texts))


def _take(
    values: Float[Array, "r w *c"], index: Int[Array, "b ..."], mesh: Mesh | None
) -> Float[Array, "b ..."]:
    """Gathers from `values` flattened over its two leading axes; 0 where the index is -1."""
    if mesh is None or batch_shards(mesh) == 1:
        return _rows(values, index, 0)

    def local(values, index):
        first = jax.lax.axis_index(BATCH_AXES) * values.shape[0] * values.shape[1]
        return _rows(values, index, first.astype(index.dtype))

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P(BATCH_AXES), P(BATCH_AXES)),
        out_specs=P(BATCH_AXES),
        check_vma=False,
    )(values, index)


def _rows(values, index, first):
    flat = values.reshape(-1, *values.shape[2:])
    gathered = flat[jnp.maximum(index - first, 0)]
    present = (index >= 0).reshape(*index.shape, *([1] * (gathered.ndim - index.ndim)))
    return jnp.where(present, gathered, jnp.zeros((), gathered.dtype))
