"""Representations of packed rows back to one text a row, each device its own.

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
    taken = functools.partial(_take, mesh=mesh)
    dense = encoding.dense
    if dense is not None:
        dense = taken(dense, jnp.asarray(text_index))[:, None]
    sparse = None if encoding.sparse is None else taken(encoding.sparse, jnp.asarray(token_index))
    colbert = (
        None if encoding.colbert is None else taken(encoding.colbert, jnp.asarray(token_index))
    )
    return Encoding(dense, sparse, colbert, token_mask(texts))


def _take(
    values: Float[Array, "r w *c"], places: Int[Array, "b ..."], mesh: Mesh | None
) -> Float[Array, "b ..."]:
    """Rows of `values` flattened over its two leading axes; 0 where the place is -1."""
    if mesh is None or batch_shards(mesh) == 1:
        return _rows(values, places, 0)

    def local(values, places):
        first = jax.lax.axis_index(BATCH_AXES) * values.shape[0] * values.shape[1]
        return _rows(values, places, first.astype(places.dtype))

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P(BATCH_AXES), P(BATCH_AXES)),
        out_specs=P(BATCH_AXES),
        check_vma=False,
    )(values, places)


def _rows(values, places, first):
    flat = values.reshape(-1, *values.shape[2:])
    found = flat[jnp.maximum(places - first, 0)]
    there = (places >= 0).reshape(*places.shape, *([1] * (found.ndim - places.ndim)))
    return jnp.where(there, found, jnp.zeros((), found.dtype))
