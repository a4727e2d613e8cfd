"""Scores against the passages of every device, when a batch is spread over a mesh.

    b  local queries    p  local passages    n  devices along the batch axes

Dense vectors and token weights are small: each device gathers all of them. Multi-vectors are not:
they travel from device to device in a ring, so that no device ever holds more than its own and one
visitor's. The backward pass sends them round again, each with the gradient it has gathered.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float

from m3jax.scores import colbert
from m3jax.sharding import BATCH_AXES, batch_shards


def ring_colbert_scores(
    queries: Float[Array, "b s c"],
    query_mask: Bool[Array, "b s"],
    passages: Float[Array, "p t c"],
    passage_mask: Bool[Array, "p t"],
    mesh: Mesh,
    chunk: int | None = None,
    padding_competes: bool = False,
) -> Float[Array, "b p"]:
    """`colbert_scores` of a batch whose rows are split over `data` and `fsdp` of `mesh`.

    Equivalent to it in values and gradients; the result is split by its queries.
    """
    devices = batch_shards(mesh)
    if devices == 1:
        return colbert.colbert_scores(
            queries, query_mask, passages, passage_mask, chunk, padding_competes
        )
    if chunk is None:
        chunk = colbert.passages_at_a_time(query_mask.size // devices, passage_mask.shape[1])
    local = functools.partial(_local, devices, chunk, padding_competes)
    return jax.shard_map(
        local, mesh=mesh, in_specs=(P(BATCH_AXES),) * 4, out_specs=P(BATCH_AXES), check_vma=False
    )(queries, query_mask, passages, passage_mask)


def gathered_scores(
    function: Callable[..., Float[Array, "b p"]],
    queries: tuple[Array, ...],
    passages: tuple[Array, ...],
    mesh: Mesh,
) -> Float[Array, "b p"]:
    """`function(*queries, *passages)` where each device gathers the small arrays of all passages.

    For dense vectors and token weights; equivalent to the plain call in values and gradients.
    """
    specs = (P(BATCH_AXES),) * len(queries) + (P(),) * len(passages)
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=P(BATCH_AXES), check_vma=False
    )(*queries, *passages)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _local(devices, chunk, padding_competes, queries, query_mask, passages, passage_mask):
    """The scores of this device's queries and all passages."""
    return _forward(devices, chunk, padding_competes, queries, query_mask, passages, passage_mask)[
        0
    ]


def _forward(devices, chunk, padding_competes, queries, query_mask, passages, passage_mask):
    def step(visitor, _):
        vectors, mask = visitor
        found = colbert.forward(queries, query_mask, vectors, mask, chunk, padding_competes)
        return _pass_on(visitor, devices), found

    visitors = (passages, passage_mask)
    _, (blocks, places) = jax.lax.scan(step, visitors, None, length=devices)
    # Visitor k of device i comes from device i - k: put the blocks where their passages stand.
    origin = jnp.mod(jax.lax.axis_index(BATCH_AXES) - jnp.arange(devices), devices)
    blocks = jnp.zeros_like(blocks).at[origin].set(blocks)
    return jnp.moveaxis(blocks, 0, 1).reshape(len(queries), -1), places


def _forward_rule(devices, chunk, padding_competes, queries, query_mask, passages, passage_mask):
    scores, places = _forward(
        devices, chunk, padding_competes, queries, query_mask, passages, passage_mask
    )
    return scores, (queries, query_mask, passages, passage_mask, places)


def _backward_rule(devices, chunk, padding_competes, kept, gradient):
    queries, query_mask, passages, passage_mask, places = kept
    b = len(queries)
    origin = jnp.mod(jax.lax.axis_index(BATCH_AXES) - jnp.arange(devices), devices)
    gradients = jnp.moveaxis(gradient.reshape(b, devices, -1), 1, 0)[origin]

    def step(carry, piece):
        visitor, gathered, to_queries = carry
        place, piece_gradient = piece
        vectors, mask = visitor
        for_queries, for_passages = colbert.backward(
            queries, query_mask, vectors, mask, place, piece_gradient, chunk
        )
        visitor, gathered = _pass_on((visitor, gathered + for_passages), devices)
        return (visitor, gathered, to_queries + for_queries), None

    start = (
        (passages, passage_mask),
        jnp.zeros(passages.shape, jnp.float32),
        jnp.zeros(queries.shape, jnp.float32),
    )
    # After as many steps as devices every passage is home again, with all its gradients.
    (_, to_passages, to_queries), _ = jax.lax.scan(step, start, (places, gradients))
    return (
        to_queries.astype(queries.dtype),
        np.zeros(query_mask.shape, jax.dtypes.float0),
        to_passages.astype(passages.dtype),
        np.zeros(passage_mask.shape, jax.dtypes.float0),
    )


_local.defvjp(_forward_rule, _backward_rule)


def _pass_on(tree, devices: int):
    """Everything to the next device of the ring."""
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, BATCH_AXES, ring), tree)
