"""Exact dense search by inner product, over any number of documents, in blocks.

s_dense = <e_q, e_p> [M3 sec. 3.2]. Each block is multiplied in float32. Documents that can be among
the best within the rounding error are scored again in float64, so the ranking is that of the exact
products, ties in document order.

Engines: `numpy` (BLAS, then a comparison with each query's running threshold), `jax` (every block
split over all devices, top-k there), `faiss` (flat search; extra `search`). `auto` is `numpy` on
CPUs, where it measured faster than FAISS (experiments/results/search.json), and `jax` elsewhere.

q  queries    b  queries of a batch    d  width    n  documents    m  documents scored
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from m3jax.embed.vectors import BLOCK, StoredVectors, decode
from m3jax.search.hits import Hits, ranked, rounding_bound
from m3jax.search.options import check_engine
from m3jax.search.threads import have_numba, parallel_map

BATCH = 64  # queries
SPARE = 64  # hits that `jax` and `faiss` fetch beyond top_k, for ties at the threshold


@dataclasses.dataclass(frozen=True)
class DenseRetriever:
    """The dense vectors of the documents, searched exactly."""

    vectors: StoredVectors
    engine: str = "auto"

    def __post_init__(self):
        check_engine("dense", self.engine)

    def search(self, queries: Float[np.ndarray, "q d"], top_k: int) -> Hits:
        """The `top_k` documents of each query, all documents where there are fewer."""
        documents, engine = self.vectors, self.engine
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if len(documents) and queries.shape[1] != documents.width:
            raise ValueError(
                f"queries of width {queries.shape[1]} against documents of width {documents.width}"
            )
        if not np.isfinite(queries).all():
            raise ValueError("the queries' vectors hold numbers that are not finite")
        if engine == "auto":
            engine = "numpy" if jax.default_backend() == "cpu" else "jax"
        results = Hits([], [])
        for start in range(0, len(queries), BATCH):
            batch = np.ascontiguousarray(queries[start : start + BATCH], np.float32)
            hits = _search_batch(batch, documents, min(top_k, len(documents)), engine)
            results.documents.extend(hits.documents)
            results.scores.extend(hits.scores)
        return results

    def scores(
        self,
        query: Float[np.ndarray, " d"],
        documents: Int[np.ndarray, " m"],
        *,
        exact: bool = False,
    ) -> Float[np.ndarray, " m"]:
        """The inner products of one query and some documents, always in float64."""
        out = np.zeros(len(documents), np.float64)
        wide = query.astype(np.float64)
        for part, positions, rows in self.vectors.located(documents):
            values, scales = np.asarray(self.vectors.parts[part]), self.vectors.scales[part]
            if have_numba():
                from m3jax.search.kernels import maxsim

                products = np.empty(len(rows), np.float64)
                half = values.dtype == np.float16
                kernel = maxsim.dots_half if half else maxsim.dots
                kernel(values.view(np.uint16) if half else values, rows, wide, products)
                factors = 1.0 if scales is None else scales[rows].astype(np.float64)
                out[positions] = products * factors
            else:
                factors = None if scales is None else scales[rows]
                decoded = decode(values[rows], factors, np.float64)
                # Not a BLAS product, which may sum equal rows in different orders.
                out[positions] = np.einsum("md,d->m", decoded, wide)
        return out

    def error_bound(self, query: Float[np.ndarray, " d"]) -> float:
        """0: `scores` are exact."""
        return 0.0


def _search_batch(
    queries: Float[np.ndarray, "b d"], documents: StoredVectors, top_k: int, engine: str
) -> Hits:
    if not top_k:
        empty = np.zeros(0)
        return Hits([empty.astype(np.int64)] * len(queries), [empty] * len(queries))
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    slack = 2 * rounding_bound(documents.width) * norms * documents.largest_norm
    slack = (slack * (1 + 1e-6) + 1e-40).astype(np.float32)
    if engine == "numpy":
        candidates = _compare(queries, documents, top_k, slack)
    else:
        fetch = _fetch_jax if engine == "jax" else _fetch_faiss
        candidates, complete = _merge(fetch(queries, documents, top_k + SPARE), top_k, slack)
        again = np.flatnonzero(~complete)  # more ties at the threshold than were fetched
        if len(again):
            compared = _compare(queries[again], documents, top_k, slack[again])
            for i, numbers in zip(again, compared, strict=True):
                candidates[i] = numbers
    exact = DenseRetriever(documents)

    def rank(i: int) -> tuple[np.ndarray, np.ndarray]:
        return ranked(candidates[i], exact.scores(queries[i], candidates[i]), top_k)

    pairs = parallel_map(rank, range(len(queries)))
    return Hits([d for d, _ in pairs], [s for _, s in pairs])


def _compare(
    queries: Float[np.ndarray, "b d"],
    documents: StoredVectors,
    top_k: int,
    slack: Float[np.ndarray, " b"],
) -> list[np.ndarray]:
    """For each query the documents whose float32 score is at least its `top_k`-th - `slack`."""
    count = len(queries)
    numbers = [np.zeros(0, np.int64) for _ in range(count)]
    values = [np.zeros(0, np.float32) for _ in range(count)]
    threshold = np.full(count, -np.inf, np.float32)  # documents below cannot be among the best
    buffer = np.empty((count, BLOCK), np.float32)
    for start, block in documents.blocks():
        width = len(block)
        scores = np.matmul(queries, block.T, out=buffer if width == BLOCK else None)
        if width >= top_k and np.isneginf(threshold).any():
            best = np.partition(scores, width - top_k, axis=1)[:, width - top_k]
            threshold = np.maximum(threshold, best - slack)
        flat = np.flatnonzero(scores >= threshold[:, None])
        ends = np.searchsorted(flat, np.arange(count + 1) * width)
        for i in range(count):
            above = flat[ends[i] : ends[i + 1]]
            if not len(above):
                continue
            numbers[i] = np.concatenate([numbers[i], above - i * width + start])
            values[i] = np.concatenate([values[i], scores.reshape(-1)[above]])
            if len(values[i]) > 2 * top_k + 64:
                threshold[i] = _prune(numbers, values, i, top_k, slack[i])
    for i in range(count):
        _prune(numbers, values, i, top_k, slack[i])
    return numbers


def _prune(
    numbers: list[np.ndarray], values: list[np.ndarray], i: int, top_k: int, slack: np.float32
) -> np.float32:
    """Drops the documents of query i that cannot be among the best; returns the threshold."""
    rank = len(values[i]) - top_k
    threshold = np.partition(values[i], rank)[rank] - slack if rank >= 0 else np.float32(-np.inf)
    keep = values[i] >= threshold
    numbers[i], values[i] = numbers[i][keep], values[i][keep]
    return threshold


class _Fetched(NamedTuple):
    """The best rows of one block of documents, for each query of a batch."""

    numbers: Int[np.ndarray, "b fetched"]
    scores: Float[np.ndarray, "b fetched"]
    is_complete: bool  # every row of the block was fetched


def _merge(
    blocks: list[_Fetched], top_k: int, slack: Float[np.ndarray, " b"]
) -> tuple[list[np.ndarray], np.ndarray]:
    """(candidates of each query, False where a block may hold more of them than were fetched)."""
    numbers = np.concatenate([block.numbers for block in blocks], axis=1)
    values = np.concatenate([block.scores for block in blocks], axis=1)
    rank = values.shape[1] - top_k
    threshold = np.partition(values, rank, axis=1)[:, rank] - slack
    complete = np.ones(len(values), bool)
    for block in blocks:
        complete &= block.is_complete | (block.scores.min(axis=1) < threshold)
    return [numbers[i][values[i] >= threshold[i]] for i in range(len(values))], complete


def _fetch_faiss(queries: np.ndarray, documents: StoredVectors, count: int) -> list[_Fetched]:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("engine 'faiss' needs FAISS: pip install 'm3jax[search]'") from error
    fetched = []
    for start, block in documents.blocks(1 << 20):
        rows = min(count, len(block))
        block = np.ascontiguousarray(block)
        scores, numbers = faiss.knn(queries, block, rows, metric=faiss.METRIC_INNER_PRODUCT)
        fetched.append(_Fetched(numbers.astype(np.int64) + start, scores, rows == len(block)))
    return fetched


def _fetch_jax(queries: np.ndarray, documents: StoredVectors, count: int) -> list[_Fetched]:
    mesh = jax.make_mesh((jax.local_device_count(),), ("rows",), devices=jax.local_devices())
    by_rows = NamedSharding(mesh, PartitionSpec("rows"))
    num_rows = BLOCK * mesh.size
    padded = np.zeros((BATCH, queries.shape[1]), np.float32)  # one shape for every batch
    padded[: len(queries)] = queries
    top = _jax_top(mesh, min(count, BLOCK))
    running: list[tuple[int, int, Any]] = []
    fetched: list[_Fetched] = []
    for start, block in documents.blocks(num_rows):
        rows = len(block)
        if rows < num_rows:
            block = np.concatenate([block, np.zeros((num_rows - rows, block.shape[1]), np.float32)])
        running.append((start, rows, top(padded, jax.device_put(block, by_rows), np.int32(rows))))
        while len(running) > 1:  # the next block is copied while this one is multiplied
            fetched += _collect(*running.pop(0), len(queries))
    return fetched + [entry for item in running for entry in _collect(*item, len(queries))]


@functools.cache
def _jax_top(mesh: jax.sharding.Mesh, count: int):
    """Compiled: the best `count` rows of each device's shard of a block."""
    rows = PartitionSpec("rows")

    def local(queries, block, num_rows):
        scores = jnp.einsum("bd,nd->bn", queries, block, precision="highest")
        first = jax.lax.axis_index("rows") * block.shape[0]
        number = first + jnp.arange(block.shape[0])
        is_row = (number < num_rows)[None]
        values, columns = jax.lax.top_k(jnp.where(is_row, scores, -jnp.inf), count)
        return values[None], (columns + first)[None]

    everywhere = PartitionSpec()
    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=(everywhere, rows, everywhere), out_specs=(rows, rows)
    )
    return jax.jit(mapped)


def _collect(start: int, rows: int, result: Any, num_queries: int) -> list[_Fetched]:
    """The best rows of each device's shard of one block, without padding rows and queries."""
    values, numbers = (np.asarray(array) for array in result)
    fetched = []
    for shard in range(len(values)):
        filled = min(max(rows - shard * BLOCK, 0), BLOCK)
        count = min(filled, values.shape[2])
        if count:
            shard_numbers = numbers[shard, :num_queries, :count].astype(np.int64) + start
            shard_values = values[shard, :num_queries, :count]
            fetched.append(_Fetched(shard_numbers, shard_values, count == filled))
    return fetched
