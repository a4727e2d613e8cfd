"""Late interaction over ragged vectors in memory or in mapped files.

s_mul = (1 / I) sum_i max_j <E_q[i], E_p[j]> [M3 sec. 3.2], 0 where either side has no vector.

Engines: `numba` (extra `search`; reads float32, float16 and int8 as they are stored, on all
cores, faster than BLAS on these narrow products), `numpy`, and `jax` for accelerators, where
documents are padded to few widths so that few shapes are compiled. All compute in float32; with
int8 rows `numba` rounds the query to 16-bit integers, with an error of the same size.

i  query vectors    c  width    m  documents scored
"""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from m3jax.embed.pairs import late_interaction
from m3jax.embed.vectors import StoredMatrices
from m3jax.search.hits import Hits, rescore_close, rounding_bound
from m3jax.search.options import check_engine
from m3jax.search.threads import cores, have_numba, parallel_map

QUERY_WIDTHS = (32, 128, 512, 2048, 8192)
WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)  # of documents, in vectors
VECTORS = 32_768  # of a batch of documents on the device


@dataclasses.dataclass(frozen=True)
class ColbertRetriever:
    """The token vectors of the documents, scored by late interaction."""

    vectors: StoredMatrices
    engine: str = "auto"

    def __post_init__(self):
        check_engine("colbert", self.engine)

    def search(self, queries: Iterable[Float[np.ndarray, "_ c"]], top_k: int) -> Hits:
        """The `top_k` of all documents for each query; time is linear in their number.

        The method `colbert` scores the dense top documents only.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        everything, hits = np.arange(len(self.vectors)), Hits([], [])
        for query in queries:
            documents, scores = rescore_close(
                everything,
                self.scores(query, everything),
                self.error_bound(query),
                lambda documents, query=query: self.scores(query, documents, exact=True),
                top_k,
            )
            hits.documents.append(documents)
            hits.scores.append(scores)
        return hits

    def scores(
        self,
        query: Float[np.ndarray, "i c"],
        documents: Int[np.ndarray, " m"],
        *,
        exact: bool = False,
    ) -> Float[np.ndarray, " m"]:
        """s_mul of one query and some documents: in float32, off by at most `error_bound`, or with
        `exact` in float64."""
        if exact:
            return _exact_scores(query.astype(np.float64), self.vectors, documents)
        if not len(query) or not len(documents):
            return np.zeros(len(documents), np.float32)
        width = self.vectors.rows.width
        if query.shape[1] != width:
            raise ValueError(f"query vectors of width {query.shape[1]} against {width}")
        engine = self.engine
        if engine == "auto":
            engine = "numba" if have_numba() else "numpy"
            engine = engine if jax.default_backend() == "cpu" else "jax"
        score = {"numba": _with_numba, "numpy": _with_numpy, "jax": _with_jax}[engine]
        return score(np.ascontiguousarray(query, np.float32), self.vectors, documents)

    def error_bound(self, query: Float[np.ndarray, "i c"]) -> float:
        """The largest difference between float32 and exact `scores`.

        An error e of a query vector moves its best match by at most |e| |row|, and s_mul by the
        mean over the query's vectors. With int8 rows it includes rounding the query to integers.
        """
        rows = self.vectors.rows
        if not len(query) or not len(rows):
            return 0.0
        error = rounding_bound(query.shape[1] + 4) * float(np.linalg.norm(query, axis=1).mean())
        if any(part.dtype == np.int8 for part in rows.parts):
            codes, factors = _to_int16(query)
            lost = query - codes * factors[:, None].astype(np.float64)
            error += float(np.linalg.norm(lost, axis=1).mean())
        return 1.01 * error * rows.largest_norm


def _exact_scores(query: np.ndarray, documents: StoredMatrices, numbers: np.ndarray) -> np.ndarray:
    if have_numba() and len(query):
        return _with_numba(query, documents, numbers)
    out = np.zeros(len(numbers), np.float64)
    for position, matrix in documents.matrices(numbers, np.float64):
        out[position] = late_interaction(query, matrix)
    return out


def _with_numba(query: np.ndarray, documents: StoredMatrices, numbers: np.ndarray) -> np.ndarray:
    """Scores in the query's dtype."""
    out = np.zeros(len(numbers), query.dtype)
    missing = -len(query) % 4
    padded = np.concatenate([query, np.repeat(query[-1:], missing, axis=0)])
    for part, positions, starts, stops in documents.located(numbers):
        values, scales = np.asarray(documents.rows.parts[part]), documents.rows.scales[part]
        scales = np.broadcast_to(np.float32(1), len(values)) if scales is None else scales
        kernel = _kernel(values, scales, padded, len(query))
        nonempty = np.flatnonzero(stops > starts)
        scores = np.zeros(len(positions), query.dtype)

        def score(chunk: np.ndarray, scores=scores, starts=starts, stops=stops, kernel=kernel):
            computed = np.empty(len(chunk), query.dtype)
            kernel(starts[chunk], stops[chunk], computed)
            scores[chunk] = computed

        chunks = np.array_split(nonempty, cores()) if len(nonempty) >= 8 else [nonempty]
        parallel_map(score, chunks)
        out[positions] = scores
    return out


def _kernel(
    values: np.ndarray, scales: np.ndarray, query: np.ndarray, count: int
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], None]:
    """The loop of `kernels.maxsim` for these dtypes, as a function (row starts, stops, scores)."""
    from m3jax.search.kernels import maxsim, maxsim_llvm

    if values.dtype == np.float16:
        values, loop = values.view(np.uint16), maxsim.maxsim_half
    else:
        loop = maxsim.maxsim
    if query.dtype == np.float64 or query.shape[1] % maxsim_llvm.WIDTH:
        return lambda starts, stops, out: loop(values, scales, starts, stops, query, count, out)
    factors = np.ones(count, np.float32)
    if values.dtype == np.int8:
        query, factors = _to_int16(query)
        factors = factors[:count]
    return lambda starts, stops, out: maxsim.maxsim_tiles(
        values, scales, starts, stops, query, factors, out
    )


def _to_int16(
    query: Float[np.ndarray, "i c"],
) -> tuple[Int[np.ndarray, "i c"], Float[np.ndarray, " i"]]:
    """Integers and a factor for each vector: vector ~ factor * integers, off by factor / 2 at most.

    Products with int8 codes fit 32 bits: the factor is such that 128 sum_c |integer| < 2^31.
    """
    width = query.shape[1]
    size = np.abs(query.astype(np.float64))
    factor = np.maximum(size.max(axis=1) / 32_767, size.sum(axis=1) / (2**24 - width))
    factor = np.where(factor > 0, factor, 1)
    return np.rint(query / factor[:, None]).astype(np.int16), factor.astype(np.float32)


def _with_numpy(query: np.ndarray, documents: StoredMatrices, numbers: np.ndarray) -> np.ndarray:
    out = np.zeros(len(numbers), np.float32)
    for position, matrix in documents.matrices(numbers):
        out[position] = late_interaction(query, matrix)
    return out


def _with_jax(query: np.ndarray, documents: StoredMatrices, numbers: np.ndarray) -> np.ndarray:
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
        running.append(([position for position, _ in group], scores))

    for position, matrix in documents.matrices(numbers):
        if len(matrix):
            bucket = _at_least(len(matrix), WIDTHS)
            waiting.setdefault(bucket, []).append((position, matrix))
            if len(waiting[bucket]) == max(VECTORS // bucket, 1):
                send(bucket)
    for bucket in list(waiting):
        send(bucket)
    for positions, scores in running:
        out[positions] = np.asarray(scores)[: len(positions)]
    return out


@jax.jit
def _late_interaction(query, count, block, lengths):
    products = jnp.einsum("ic,pjc->pij", query, block, precision="highest")
    is_vector = jnp.arange(block.shape[1])[None] < lengths[:, None]
    best = jnp.where(is_vector[:, None, :], products, -jnp.inf).max(axis=-1)
    is_query = (jnp.arange(query.shape[0]) < count)[None]
    return jnp.where(is_query, best, 0).sum(axis=-1) / count.astype(jnp.float32)


def _at_least(size: int, ladder: tuple[int, ...]) -> int:
    return next((step for step in ladder if step >= size), size)
