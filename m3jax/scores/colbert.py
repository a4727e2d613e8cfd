"""s_mul of every query and passage [M3 sec. 3.2], arXiv 2402.03216v4, in chunks of passages.

    b  queries    s  their vectors    p  passages    t  their vectors    c  width
    k  passages of a chunk    n  query vectors of a chunk

The full [b, s, p, t] similarity tensor is never materialised: the forward pass keeps each maximum
and its index, the backward pass gathers the vectors at these indices.
"""

import functools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# Similarities materialised at once: 4 MB on CPUs, which fits their caches, 256 MB elsewhere.
SIMILARITIES = {"cpu": 1 << 20, "other": 1 << 26}


class Options(NamedTuple):
    """Static arguments of the scores."""

    chunk: int  # passages at a time
    similarities: int  # at most so many are materialised at once
    padding_competes: bool


def colbert_scores(
    queries: Float[Array, "b s c"],
    query_mask: Bool[Array, "b s"],
    passages: Float[Array, "p t c"],
    passage_mask: Bool[Array, "p t"],
    chunk: int | None = None,
    padding_competes: bool = False,
    platform: str = "cpu",
) -> Float[Array, "b p"]:
    """s_mul = (1 / N) sum_i max_j <E_q[i], E_p[j]>, N the vectors of the query, in float32.

    The masks select the vectors that count (all tokens but [CLS] and padding). A query or passage
    without any scores 0. `padding_competes` follows the reference code: a masked vector of a
    passage enters the maximum with similarity 0, so that a maximum below 0 becomes 0. Of several
    equal maxima the first receives the gradient. `chunk` passages are scored at a time; the
    default, and the memory used, depend on `platform` (see `SIMILARITIES`).
    """
    options = make_options(
        query_mask.size, passage_mask.shape[1], platform, chunk, padding_competes
    )
    return cast(jax.Array, _scores(queries, query_mask, passages, passage_mask, options))


def make_options(
    query_vectors: int,
    passage_width: int,
    platform: str,
    chunk: int | None = None,
    padding_competes: bool = False,
) -> Options:
    """The options for a platform; `chunk` defaults to as many passages as `SIMILARITIES` allows.

    The default is at least 2: for one passage at a time, XLA's CPU compiler copies all vectors.
    """
    similarities = SIMILARITIES.get(platform, SIMILARITIES["other"])
    if chunk is None:
        chunk = max(2, similarities // max(1, query_vectors * passage_width))
    return Options(chunk, similarities, padding_competes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _scores(queries, query_mask, passages, passage_mask, options: Options):
    return forward(queries, query_mask, passages, passage_mask, options)[0]


def forward(queries, query_mask, passages, passage_mask, options: Options):
    """(scores [b, p], indices of the maxima [p, b, s])."""
    share = _share(query_mask)
    width = passage_mask.shape[1]
    index_dtype = jnp.int16 if width <= np.iinfo(np.int16).max else jnp.int32
    indices_of = jnp.arange(width, dtype=jnp.int32)[:, None]

    b, s = query_mask.shape
    p = len(passage_mask)
    rows = queries.astype(jnp.float32).reshape(b * s, -1)
    # Where even one chunk of passages exceeds the limit, the query vectors are chunked as well.
    most = max(1, options.similarities // (min(options.chunk, p) * width))

    def score_chunk(chunk):
        vectors, mask = chunk
        vectors = jnp.where(mask[..., None], vectors.astype(jnp.float32), 0.0)

        def maxima(query_rows):
            # [k, t, n]: the maximum runs along rows of contiguous memory.
            similarity = jnp.einsum(
                "ktc,nc->ktn", vectors, query_rows, precision=jax.lax.Precision.HIGHEST
            )
            if not options.padding_competes:
                similarity = jnp.where(mask[..., None], similarity, -jnp.inf)
            best = similarity.max(axis=1)
            index = jnp.where(similarity == best[:, None], indices_of, width)
            return best, jnp.minimum(index.min(axis=1), width - 1).astype(index_dtype)

        if most >= b * s:
            best, index = maxima(rows)
        else:
            parts = jax.lax.map(maxima, _in_chunks((rows,), most)[0])
            best, index = (
                jnp.moveaxis(part, 0, 1).reshape(len(mask), -1)[:, : b * s] for part in parts
            )
        best = jnp.where(jnp.isfinite(best), best, 0.0).reshape(-1, b, s)
        return jnp.sum(best * share[None], axis=-1), index.reshape(-1, b, s)

    chunks = _in_chunks((passages, passage_mask), options.chunk)
    scores, indices = jax.lax.map(score_chunk, chunks)
    return scores.reshape(-1, b)[:p].T, indices.reshape(-1, b, s)[:p]


def _forward_rule(queries, query_mask, passages, passage_mask, options: Options):
    scores, indices = forward(queries, query_mask, passages, passage_mask, options)
    return scores, (queries, query_mask, passages, passage_mask, indices)


def _backward_rule(options: Options, residuals, gradient):
    queries, query_mask, passages, passage_mask, _ = residuals
    to_queries, to_passages = backward(residuals, gradient, options.chunk)
    no_gradient = functools.partial(np.zeros, dtype=jax.dtypes.float0)
    return (
        to_queries.astype(queries.dtype),
        no_gradient(query_mask.shape),
        to_passages.astype(passages.dtype),
        no_gradient(passage_mask.shape),
    )


_scores.defvjp(_forward_rule, _backward_rule)


def backward(residuals, gradient, chunk: int):
    """d/dE_q[i] = sum_p g[p] E_p[j*] / N and d/dE_p[j*] = sum_i g[i] E_q[i] / N, in float32.

    `residuals` are (queries, query_mask, passages, passage_mask, indices), j* the indices.
    """
    queries, query_mask, passages, passage_mask, indices = residuals
    share = _share(query_mask)
    queries = queries.astype(jnp.float32)

    def add_chunk(total, chunk_of):
        vectors, mask, index, chunk_gradient = chunk_of
        k, t, c = vectors.shape
        vectors = jnp.where(mask[..., None], vectors.astype(jnp.float32), 0.0)
        weight = chunk_gradient[:, :, None] * share[None]  # k b s
        rows = (jnp.arange(k, dtype=jnp.int32)[:, None, None] * t + index).reshape(-1)
        best = vectors.reshape(k * t, c)[rows].reshape(*weight.shape, c)
        total = total + jnp.einsum("kbs,kbsc->bsc", weight, best)
        updates = (weight[..., None] * queries[None]).reshape(-1, c)
        summed = jnp.zeros((k * t, c), jnp.float32).at[rows].add(updates).reshape(k, t, c)
        return total, jnp.where(mask[..., None], summed, 0.0)

    arrays = passages, passage_mask, indices.astype(jnp.int32), gradient.T.astype(jnp.float32)
    to_queries, to_passages = jax.lax.scan(
        add_chunk, jnp.zeros_like(queries), _in_chunks(arrays, chunk)
    )
    p, t, c = passages.shape
    return to_queries, to_passages.reshape(-1, t, c)[:p]


def _share(query_mask):
    """[b, s]: 1 / N at the vectors of a query that count, 0 elsewhere."""
    mask = query_mask.astype(jnp.float32)
    return mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1.0)


def _in_chunks(arrays, chunk: int):
    """Leading axis [p] to [chunks, k], the last chunk padded with zeros."""
    p = len(arrays[0])
    chunk = min(chunk, p)
    chunks = -(-p // chunk)

    def split(array):
        fill = [(0, chunks * chunk - p)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, fill).reshape(chunks, chunk, *array.shape[1:])

    return tuple(map(split, arrays))
