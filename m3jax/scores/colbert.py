"""s_mul of every query and passage [M3 sec. 3.2], arXiv 2402.03216v4, a few passages at a time.

    b  queries    s  their vectors    p  passages    t  their vectors    c  width
    k  passages of a chunk

The products of all vectors never stand together: the forward pass keeps the maximum and where it
was, the backward pass gathers the vectors that met there.
"""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# Products of vectors that stand together: 4 MB on a CPU, whose caches are small, 256 MB elsewhere.
PRODUCTS = {"cpu": 1 << 20, "other": 1 << 26}


def colbert_scores(
    queries: Float[Array, "b s c"],
    query_mask: Bool[Array, "b s"],
    passages: Float[Array, "p t c"],
    passage_mask: Bool[Array, "p t"],
    chunk: int | None = None,
    padding_competes: bool = False,
) -> Float[Array, "b p"]:
    """s_mul = (1 / N) sum_i max_j <E_q[i], E_p[j]>, N the vectors of the query, in float32.

    Masks name the vectors that count (first token out, end of sentence in). A passage or query
    without any scores 0. `padding_competes` is the reference code's rule: a masked place of a
    passage takes part with similarity 0, so that a maximum below 0 becomes 0. Of several equal
    maxima the first gets the gradient. `chunk` passages are taken at a time, by default as many as
    fit a fixed number of products.
    """
    if chunk is None:
        chunk = passages_at_a_time(query_mask.size, passage_mask.shape[1])
    scores = _scores(queries, query_mask, passages, passage_mask, chunk, padding_competes)
    return cast(jax.Array, scores)


def passages_at_a_time(query_vectors: int, passage_width: int) -> int:
    """Passages of a chunk: as many as `PRODUCTS` allows, at least two.

    One at a time, XLA's CPU compiler plans a second copy of all vectors.
    """
    return max(2, _products() // max(1, query_vectors * passage_width))


def _products() -> int:
    return PRODUCTS.get(jax.default_backend(), PRODUCTS["other"])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _scores(queries, query_mask, passages, passage_mask, chunk, padding_competes):
    return forward(queries, query_mask, passages, passage_mask, chunk, padding_competes)[0]


def forward(queries, query_mask, passages, passage_mask, chunk, padding_competes):
    """(scores [b, p], places of the maxima [p, b, s])."""
    share = _share(query_mask)
    width = passage_mask.shape[1]
    place_dtype = jnp.int16 if width <= np.iinfo(np.int16).max else jnp.int32
    places_of = jnp.arange(width, dtype=jnp.int32)[:, None]

    b, s = query_mask.shape
    p = len(passage_mask)
    rows = queries.astype(jnp.float32).reshape(b * s, -1)
    # Long queries of a large batch are too many for one long passage: some of them at a time.
    most = max(1, _products() // (min(chunk, p) * width))

    def one(piece):
        vectors, mask = piece
        vectors = jnp.where(mask[..., None], vectors.astype(jnp.float32), 0.0)

        def meet(some):
            # [k, t, n]: the maximum runs along rows of contiguous memory.
            products = jnp.einsum("ktc,nc->ktn", vectors, some, precision=jax.lax.Precision.HIGHEST)
            if not padding_competes:
                products = jnp.where(mask[..., None], products, -jnp.inf)
            best = products.max(axis=1)
            here = jnp.where(products == best[:, None], places_of, width)
            return best, jnp.minimum(here.min(axis=1), width - 1).astype(place_dtype)

        if most >= b * s:
            best, place = meet(rows)
        else:
            parts = jax.lax.map(meet, _in_chunks((rows,), most)[0])
            best, place = (
                jnp.moveaxis(part, 0, 1).reshape(len(mask), -1)[:, : b * s] for part in parts
            )
        best = jnp.where(jnp.isfinite(best), best, 0.0).reshape(-1, b, s)
        return jnp.sum(best * share[None], axis=-1), place.reshape(-1, b, s)

    scores, places = jax.lax.map(one, _in_chunks((passages, passage_mask), chunk))
    return scores.reshape(-1, b)[:p].T, places.reshape(-1, b, s)[:p]


def _forward_rule(queries, query_mask, passages, passage_mask, chunk, padding_competes):
    scores, places = forward(queries, query_mask, passages, passage_mask, chunk, padding_competes)
    return scores, (queries, query_mask, passages, passage_mask, places)


def _backward_rule(chunk, padding_competes, kept, gradient):
    queries, query_mask, passages, passage_mask, places = kept
    to_queries, to_passages = backward(
        queries, query_mask, passages, passage_mask, places, gradient, chunk
    )
    no_gradient = functools.partial(np.zeros, dtype=jax.dtypes.float0)
    return (
        to_queries.astype(queries.dtype),
        no_gradient(query_mask.shape),
        to_passages.astype(passages.dtype),
        no_gradient(passage_mask.shape),
    )


_scores.defvjp(_forward_rule, _backward_rule)


def backward(queries, query_mask, passages, passage_mask, places, gradient, chunk):
    """d/dE_q[i] = sum_p g[p] E_p[j*] / N and d/dE_p[j*] = sum_i g E_q[i] / N, j* the place kept."""
    share = _share(query_mask)
    queries = queries.astype(jnp.float32)

    def one(total, piece):
        vectors, mask, place, piece_gradient = piece
        k, t, c = vectors.shape
        vectors = jnp.where(mask[..., None], vectors.astype(jnp.float32), 0.0)
        weight = piece_gradient[:, :, None] * share[None]  # k b s
        rows = (jnp.arange(k, dtype=jnp.int32)[:, None, None] * t + place).reshape(-1)
        met = vectors.reshape(k * t, c)[rows].reshape(*weight.shape, c)
        total = total + jnp.einsum("kbs,kbsc->bsc", weight, met)
        pushed = (weight[..., None] * queries[None]).reshape(-1, c)
        into = jnp.zeros((k * t, c), jnp.float32).at[rows].add(pushed).reshape(k, t, c)
        return total, jnp.where(mask[..., None], into, 0.0)

    pieces = _in_chunks(
        (passages, passage_mask, places.astype(jnp.int32), gradient.T.astype(jnp.float32)), chunk
    )
    to_queries, to_passages = jax.lax.scan(one, jnp.zeros_like(queries), pieces)
    p, t, c = passages.shape
    return to_queries, to_passages.reshape(-1, t, c)[:p]


def _share(query_mask):
    """1 / N at the query's vectors, 0 elsewhere."""
    mask = query_mask.astype(jnp.float32)
    return mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1.0)


def _in_chunks(arrays, chunk: int):
    """Leading axis [p] to [chunks, k], the last chunk filled up with zeros."""
    p = len(arrays[0])
    chunk = min(chunk, p)
    chunks = -(-p // chunk)

    def split(array):
        fill = [(0, chunks * chunk - p)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, fill).reshape(chunks, chunk, *array.shape[1:])

    return tuple(map(split, arrays))
