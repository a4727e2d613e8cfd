"""Scores against the passages of all devices, for a batch that is sharded over a mesh.

    b  local queries    p  local passages    s, t  their vectors    c  width

Dense vectors and token weights are small: each device gathers all of them. Multi-vectors are not:
the shards of passages rotate from device to device (a ring), and each device holds its own shard
and one in transit. The backward pass rotates them again with their accumulated gradients.
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
from m3jax.sharding import BATCH_AXES, batch_shards, platform_of


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

    Equal to it in values and gradients; the result is split by its queries. `chunk` passages of a
    device are scored at a time.
    """
    devices, platform = batch_shards(mesh), platform_of(mesh)
    if devices == 1:
        return colbert.colbert_scores(
            queries, query_mask, passages, passage_mask, chunk, padding_competes, platform
        )
    options = colbert.make_options(
        query_mask.size // devices, passage_mask.shape[1], platform, chunk, padding_competes
    )
    return jax.shard_map(
        functools.partial(_local, devices, options),
        mesh=mesh,
        in_specs=(P(BATCH_AXES),) * 4,
        out_specs=P(BATCH_AXES),
        check_vma=False,
    )(queries, query_mask, passages, passage_mask)


def gathered_scores(
    function: Callable[..., Float[Array, "b p"]],
    queries: tuple[Array, ...],
    passages: tuple[Array, ...],
    mesh: Mesh,
) -> Float[Array, "b p"]:
    """`function(*queries, *passages)` where each device gathers the arrays of all passages.

    For dense vectors and token weights. Equal to the plain call in values and gradients.
    """
    specs = (P(BATCH_AXES),) * len(queries) + (P(),) * len(passages)
    return jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=P(BATCH_AXES), check_vma=False
    )(*queries, *passages)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _local(devices: int, options: colbert.Options, queries, query_mask, passages, passage_mask):
    """Scores of this device's queries and all passages."""
    return _forward(devices, options, queries, query_mask, passages, passage_mask)[0]


def _forward(devices: int, options: colbert.Options, queries, query_mask, passages, passage_mask):
    def step(shard, _):
        vectors, mask = shard
        scores_and_indices = colbert.forward(queries, query_mask, vectors, mask, options)
        return _to_next_device(shard, devices), scores_and_indices

    shards = (passages, passage_mask)
    _, (blocks, indices) = jax.lax.scan(step, shards, None, length=devices)
    # The k-th shard that device i receives is that of device i - k: reorder to the passages' order.
    origin = jnp.mod(jax.lax.axis_index(BATCH_AXES) - jnp.arange(devices), devices)
    blocks = jnp.zeros_like(blocks).at[origin].set(blocks)
    return jnp.moveaxis(blocks, 0, 1).reshape(len(queries), -1), indices


def _forward_rule(devices, options, queries, query_mask, passages, passage_mask):
    scores, indices = _forward(devices, options, queries, query_mask, passages, passage_mask)
    return scores, (queries, query_mask, passages, passage_mask, indices)


def _backward_rule(devices, options, residuals, gradient):
    queries, query_mask, passages, passage_mask, indices = residuals
    b = len(queries)
    origin = jnp.mod(jax.lax.axis_index(BATCH_AXES) - jnp.arange(devices), devices)
    gradients = jnp.moveaxis(gradient.reshape(b, devices, -1), 1, 0)[origin]

    def step(carry, inputs):
        shard, shard_gradient, to_queries = carry
        index, scores_gradient = inputs
        for_queries, for_passages = colbert.backward(
            (queries, query_mask, *shard, index), scores_gradient, options.chunk
        )
        shard, shard_gradient = _to_next_device((shard, shard_gradient + for_passages), devices)
        return (shard, shard_gradient, to_queries + for_queries), None

    start = (
        (passages, passage_mask),
        jnp.zeros(passages.shape, jnp.float32),
        jnp.zeros(queries.shape, jnp.float32),
    )
    # After as many steps as devices each shard is back on its device with all its gradients.
    (_, to_passages, to_queries), _ = jax.lax.scan(step, start, (indices, gradients))
    return (
        to_queries.astype(queries.dtype),
        np.zeros(query_mask.shape, jax.dtypes.float0),
        to_passages.astype(passages.dtype),
        np.zeros(passage_mask.shape, jax.dtypes.float0),
    )


_local.defvjp(_forward_rule, _backward_rule)


def _to_next_device(tree, devices: int):
    """Sends every leaf to the next device of the ring."""
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, BATCH_AXES, ring), tree)
