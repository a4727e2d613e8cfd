"""Candidates ranked again by late interaction, from ragged vectors in memory or mapped files.

s_mul = (1 / I) sum_i max_j <E_q[i], E_p[j]> [M3 sec. 3.2], 0 where either side has no vector.

Engines: `numba` (extra `search`; reads float32, float16 and int8 as they are stored, on all
cores, faster than BLAS on these narrow products), `numpy`, and `jax` for accelerators, where
documents are padded to few widths so that few shapes are compiled. All compute in float32, but
that `numba` multiplies int8 rows with the query rounded to 16-bit integers, about as exact.
`rerank` settles in float64 what the scores cannot tell apart.

i  query vectors    c  width    m  candidates
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from m3jax.embed.pairs import late_interaction
from m3jax.embed.vectors import RaggedRows
from m3jax.search.hits import Hits, ranked, rounding, settle
from m3jax.search.threads import cores, have_numba, spread

ENGINES = ("auto", "numba", "numpy", "jax")
QUERY_WIDTHS = (32, 128, 512, 2048, 8192)
WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)  # of documents, in vectors
VECTORS = 32_768  # of a batch of documents on the device


def rerank(
    queries: list[np.ndarray],
    documents: RaggedRows,
    candidates: list[np.ndarray],
    top_k: int,
    *,
    engine: str = "auto",
    exact: bool = True,
) -> Hits:
    """The best `top_k` of each query's candidates by s_mul, ties in document order.

    `exact=False` ranks by the float32 scores: as deterministic, and faster where many candidates
    lie closer together than float32 can tell.
    """
    found = Hits([], [])
    for query, numbers in zip(queries, candidates, strict=True):
        scores = scores_at(query, documents, numbers, engine=engine)
        if exact:
            wide = functools.partial(_exact_at, query, documents, numbers)
            best = settle(numbers, scores, error_bound(query, documents), wide, top_k)
        else:
            best = ranked(numbers, scores, top_k)
        found.documents.append(best[0])
        found.scores.append(best[1])
    return found


def scores_at(
    query: Float[np.ndarray, "i c"],
    documents: RaggedRows,
    numbers: Int[np.ndarray, " m"],
    *,
    engine: str = "auto",
) -> Float[np.ndarray, " m"]:
    """s_mul of one query and some documents, in float32, off by `error_bound` at most."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if not len(query) or not len(numbers):
        return np.zeros(len(numbers), np.float32)
    if query.shape[1] != documents.rows.width:
        raise ValueError(f"query vectors of width {query.shape[1]} against {documents.rows.width}")
    if engine == "auto":
        engine = "numba" if have_numba() else "numpy"
        engine = engine if jax.default_backend() == "cpu" else "jax"
    query = np.ascontiguousarray(query, np.float32)
    score = {"numba": _with_numba, "numpy": _with_numpy, "jax": _with_jax}[engine]
    return score(query, documents, numbers)


def exact_scores_at(
    query: Float[np.ndarray, "i c"], documents: RaggedRows, numbers: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """s_mul in float64."""
    wide = query.astype(np.float64)
    if have_numba() and len(query):
        return _with_numba(wide, documents, numbers)
    out = np.zeros(len(numbers), np.float64)
    for place, matrix in documents.matrices(numbers, np.float64):
        out[place] = late_interaction(wide, matrix)
    return out


def error_bound(query: Float[np.ndarray, "i c"], documents: RaggedRows) -> float:
    """How far `scores_at` may lie from `exact_scores_at`.

    A query vector that is off by e moves its best match by |e| |row| at most, and s_mul by the mean
    of these. int8 rows meet vectors that were rounded to integers first.
    """
    if not len(query) or not len(documents.rows):
        return 0.0
    off = rounding(query.shape[1] + 4) * float(np.linalg.norm(query, axis=1).mean())
    if any(part.dtype == np.int8 for part in documents.rows.parts):
        codes, factors = _to_int16(query)
        lost = query - codes * factors[:, None].astype(np.float64)
        off += float(np.linalg.norm(lost, axis=1).mean())
    return 1.01 * off * documents.rows.largest_norm


def _exact_at(
    query: np.ndarray, documents: RaggedRows, numbers: np.ndarray, places: np.ndarray
) -> np.ndarray:
    return exact_scores_at(query, documents, numbers[places])


def _with_numba(query: np.ndarray, documents: RaggedRows, numbers: np.ndarray) -> np.ndarray:
    """In the query's type."""
    out = np.zeros(len(numbers), query.dtype)
    short = -len(query) % 4
    padded = np.concatenate([query, np.repeat(query[-1:], short, axis=0)])
    for part, places, firsts, ends in documents.located(numbers):
        values, scales = np.asarray(documents.rows.parts[part]), documents.rows.scales[part]
        scales = np.broadcast_to(np.float32(1), len(values)) if scales is None else scales
        kernel = _kernel(values, scales, padded, len(query))
        full = np.flatnonzero(ends > firsts)
        here = np.zeros(len(places), query.dtype)

        def some(piece: np.ndarray, here=here, firsts=firsts, ends=ends, kernel=kernel) -> None:
            scored = np.empty(len(piece), query.dtype)
            kernel(firsts[piece], ends[piece], scored)
            here[piece] = scored

        spread(some, np.array_split(full, cores()) if len(full) >= 8 else [full])
        out[places] = here
    return out


def _kernel(
    values: np.ndarray, scales: np.ndarray, query: np.ndarray, count: int
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], None]:
    """The loop of `kernels` for these types: (first rows, rows behind the last, scores)."""
    from m3jax.search.kernels import lexical, maxsim_llvm

    if values.dtype == np.float16:
        values, loop = values.view(np.uint16), lexical.maxsim_half
    else:
        loop = lexical.maxsim
    if query.dtype == np.float64 or query.shape[1] % maxsim_llvm.WIDTH:
        return lambda firsts, ends, out: loop(values, scales, firsts, ends, query, count, out)
    factors = np.ones(count, np.float32)
    if values.dtype == np.int8:
        query, factors = _to_int16(query)
        factors = factors[:count]
    return lambda firsts, ends, out: lexical.maxsim_tiles(
        values, scales, firsts, ends, query, factors, out
    )


def _to_int16(
    query: Float[np.ndarray, "i c"],
) -> tuple[Int[np.ndarray, "i c"], Float[np.ndarray, " i"]]:
    """Integers and a factor a vector: vector ~ factor * integers, off by at most factor / 2.

    Products with int8 codes fit 32 bits: the factor is such that 128 sum_c |integer| < 2^31.
    """
    width = query.shape[1]
    size = np.abs(query.astype(np.float64))
    factor = np.maximum(size.max(axis=1) / 32_767, size.sum(axis=1) / (2**24 - width))
    factor = np.where(factor > 0, factor, 1)
    return np.rint(query / factor[:, None]).astype(np.int16), factor.astype(np.float32)


def _with_numpy(query: np.ndarray, documents: RaggedRows, numbers: np.ndarray) -> np.ndarray:
    out = np.zeros(len(numbers), np.float32)
    for place, matrix in documents.matrices(numbers):
        out[place] = late_interaction(query, matrix)
    return out


def _with_jax(query: np.ndarray, documents: RaggedRows, numbers: np.ndarray) -> np.ndarray:
    width = _at_least(len(query), QUERY_WIDTHS)
    padded = np.zeros((width, query.shape[1]), np.float32)
    padded[: len(query)] = query
    out = np.zeros(len(numbers), np.float32)
    waiting: dict[int, list[tuple[int, np.ndarray]]] = {}
    running = []

    def send(bucket: int) -> None:
        group = waiting.pop(bucket)
        block = np.zeros((max(VECTORS // bucket, 1), bucket, query.shape[1]), np.float32)
        lengths = np.zeros(len(block), np.int32)
        for row, (_, matrix) in enumerate(group):
            block[row, : len(matrix)] = matrix
            lengths[row] = len(matrix)
        scores = _late_interaction(padded, np.int32(len(query)), block, lengths)
        running.append(([place for place, _ in group], scores))

    for place, matrix in documents.matrices(numbers):
        if len(matrix):
            bucket = _at_least(len(matrix), WIDTHS)
            waiting.setdefault(bucket, []).append((place, matrix))
            if len(waiting[bucket]) == max(VECTORS // bucket, 1):
                send(bucket)
    for bucket in list(waiting):
        send(bucket)
    for places, scores in running:
        out[places] = np.asarray(scores)[: len(places)]
    return out


@jax.jit
def _late_interaction(query, count, block, lengths):
    products = jnp.einsum("ic,pjc->pij", query, block, precision="highest")
    real = jnp.arange(block.shape[1])[None] < lengths[:, None]
    best = jnp.where(real[:, None, :], products, -jnp.inf).max(axis=-1)
    counted = (jnp.arange(query.shape[0]) < count)[None]
    return jnp.where(counted, best, 0).sum(axis=-1) / count.astype(jnp.float32)


def _at_least(size: int, ladder: tuple[int, ...]) -> int:
    return next((step for step in ladder if step >= size), size)
