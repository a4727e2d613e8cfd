"""Exact search by inner product, over any number of documents, in blocks.

s_dense = <e_q, e_p> [M3 sec. 3.2]. A block is multiplied in float32; what can be among the best
in spite of rounding is kept and scored again in float64. So the ranking is that of the exact
products, and ties stand in document order.

Engines: `numpy` (BLAS, then a comparison with each query's running cut), `jax` (every block split
over all devices, top-k there), `faiss` (flat search; extra `search`). `auto` is `numpy` on CPUs,
where it measured faster than FAISS (experiments/results/search.json), and `jax` elsewhere.

q  queries    b  queries of a batch    d  width    n  documents    k  hits
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from m3jax.embed.vectors import BLOCK, Rows, as_rows, decode
from m3jax.search.hits import Hits, ranked, rounding
from m3jax.search.threads import have_numba, spread

ENGINES = ("auto", "numpy", "jax", "faiss")
BATCH = 64  # queries
SPARE = 64  # hits that `jax` and `faiss` fetch beyond those asked for, for ties at the cut


def search(
    queries: Float[np.ndarray, "q d"],
    documents: Rows | np.ndarray,
    top_k: int,
    *,
    engine: str = "auto",
) -> Hits:
    """The `top_k` documents of each query, all of them where there are fewer."""
    documents = as_rows(documents)
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
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
    found = Hits([], [])
    for start in range(0, len(queries), BATCH):
        batch = np.ascontiguousarray(queries[start : start + BATCH], np.float32)
        hits = _search_batch(batch, documents, min(top_k, len(documents)), engine)
        found.documents.extend(hits.documents)
        found.scores.extend(hits.scores)
    return found


def scores_at(
    query: Float[np.ndarray, " d"], documents: Rows, numbers: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """The float64 inner products of one query with some documents."""
    out = np.zeros(len(numbers), np.float64)
    wide = query.astype(np.float64)
    for part, places, rows in documents.located(numbers):
        values, scales = np.asarray(documents.parts[part]), documents.scales[part]
        if have_numba():
            from m3jax.search.kernels import lexical

            here = np.empty(len(rows), np.float64)
            half = values.dtype == np.float16
            kernel = lexical.dots_half if half else lexical.dots
            kernel(values.view(np.uint16) if half else values, rows, wide, here)
            out[places] = here if scales is None else here * scales[rows].astype(np.float64)
        else:
            some = None if scales is None else scales[rows]
            # Not a BLAS product: it may sum equal rows at different places differently.
            out[places] = np.einsum("md,d->m", decode(values[rows], some, np.float64), wide)
    return out


def _search_batch(
    queries: Float[np.ndarray, "b d"], documents: Rows, top_k: int, engine: str
) -> Hits:
    if not top_k:
        empty = np.zeros(0)
        return Hits([empty.astype(np.int64)] * len(queries), [empty] * len(queries))
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    slack = 2 * rounding(documents.width) * norms * documents.largest_norm
    slack = (slack * (1 + 1e-6) + 1e-40).astype(np.float32)
    if engine == "numpy":
        candidates = _compare(queries, documents, top_k, slack)
    else:
        fetch = _fetch_jax if engine == "jax" else _fetch_faiss
        candidates, sure = _merge(fetch(queries, documents, top_k + SPARE), top_k, slack)
        again = np.flatnonzero(~sure)  # more ties at the cut than were fetched
        if len(again):
            better = _compare(queries[again], documents, top_k, slack[again])
            for i, some in zip(again, better, strict=True):
                candidates[i] = some

    def settled(i: int) -> tuple[np.ndarray, np.ndarray]:
        exact = scores_at(queries[i], documents, candidates[i])
        return ranked(candidates[i], exact, top_k)

    pairs = spread(settled, range(len(queries)))
    return Hits([d for d, _ in pairs], [s for _, s in pairs])


def _compare(
    queries: Float[np.ndarray, "b d"],
    documents: Rows,
    top_k: int,
    slack: Float[np.ndarray, " b"],
) -> list[np.ndarray]:
    """For each query the documents within `slack` of its `top_k`-th score, or better."""
    count = len(queries)
    numbers = [np.zeros(0, np.int64) for _ in range(count)]
    values = [np.zeros(0, np.float32) for _ in range(count)]
    cut = np.full(count, -np.inf, np.float32)  # no document below it can be among the best
    room = np.empty((count, BLOCK), np.float32)
    for start, block in documents.blocks():
        width = len(block)
        scores = np.matmul(queries, block.T, out=room if width == BLOCK else None)
        if width >= top_k and np.isneginf(cut).any():
            best = np.partition(scores, width - top_k, axis=1)[:, width - top_k]
            cut = np.maximum(cut, best - slack)
        flat = np.flatnonzero(scores >= cut[:, None])
        ends = np.searchsorted(flat, np.arange(count + 1) * width)
        for i in range(count):
            some = flat[ends[i] : ends[i + 1]]
            if not len(some):
                continue
            numbers[i] = np.concatenate([numbers[i], some - i * width + start])
            values[i] = np.concatenate([values[i], scores.reshape(-1)[some]])
            if len(values[i]) > 2 * top_k + 64:
                cut[i] = _prune(numbers, values, i, top_k, slack[i])
    for i in range(count):
        _prune(numbers, values, i, top_k, slack[i])
    return numbers


def _prune(
    numbers: list[np.ndarray], values: list[np.ndarray], i: int, top_k: int, slack: np.float32
) -> np.float32:
    """Drops what cannot be among the best any more; returns the cut."""
    place = len(values[i]) - top_k
    cut = np.partition(values[i], place)[place] - slack if place >= 0 else np.float32(-np.inf)
    keep = values[i] >= cut
    numbers[i], values[i] = numbers[i][keep], values[i][keep]
    return cut


Fetched = list[tuple[np.ndarray, np.ndarray, bool]]  # numbers, scores [b, fetched]; all of them?


def _merge(
    lists: Fetched, top_k: int, slack: Float[np.ndarray, " b"]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Candidates out of the lists of all blocks; False where a list may end too early."""
    numbers = np.concatenate([n for n, _, _ in lists], axis=1)
    values = np.concatenate([v for _, v, _ in lists], axis=1)
    place = values.shape[1] - top_k
    cut = np.partition(values, place, axis=1)[:, place] - slack
    sure = np.ones(len(values), bool)
    for _, scores, whole in lists:
        sure &= whole | (scores.min(axis=1) < cut)
    return [numbers[i][values[i] >= cut[i]] for i in range(len(values))], sure


def _fetch_faiss(queries: np.ndarray, documents: Rows, count: int) -> Fetched:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("engine 'faiss' needs FAISS: pip install 'm3jax[search]'") from error
    lists: Fetched = []
    for start, block in documents.blocks(1 << 20):
        count_here = min(count, len(block))
        block = np.ascontiguousarray(block)
        scores, numbers = faiss.knn(queries, block, count_here, metric=faiss.METRIC_INNER_PRODUCT)
        lists.append((numbers.astype(np.int64) + start, scores, count_here == len(block)))
    return lists


def _fetch_jax(queries: np.ndarray, documents: Rows, count: int) -> Fetched:
    mesh = jax.make_mesh((jax.local_device_count(),), ("rows",), devices=jax.local_devices())
    by_rows = NamedSharding(mesh, PartitionSpec("rows"))
    height = BLOCK * mesh.size
    padded = np.zeros((BATCH, queries.shape[1]), np.float32)  # one shape for every batch
    padded[: len(queries)] = queries
    top = _jax_top(mesh, min(count, BLOCK))
    running: list[tuple[int, int, Any]] = []
    lists: Fetched = []
    for start, block in documents.blocks(height):
        rows = len(block)
        if rows < height:
            block = np.concatenate([block, np.zeros((height - rows, block.shape[1]), np.float32)])
        running.append((start, rows, top(padded, jax.device_put(block, by_rows), np.int32(rows))))
        while len(running) > 1:  # the next block travels while this one is multiplied
            lists += _collect(*running.pop(0), len(queries), mesh.size)
    return lists + [entry for item in running for entry in _collect(*item, len(queries), mesh.size)]


@functools.cache
def _jax_top(mesh: jax.sharding.Mesh, count: int):
    """Compiled: the best `count` rows of each device's piece of a block."""
    rows = PartitionSpec("rows")

    def local(queries, block, filled):
        scores = jnp.einsum("bd,nd->bn", queries, block, precision="highest")
        first = jax.lax.axis_index("rows") * block.shape[0]
        number = first + jnp.arange(block.shape[0])
        values, places = jax.lax.top_k(jnp.where((number < filled)[None], scores, -jnp.inf), count)
        return values[None], (places + first)[None]

    everywhere = PartitionSpec()
    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=(everywhere, rows, everywhere), out_specs=(rows, rows)
    )
    return jax.jit(mapped)


def _collect(start: int, rows: int, result: Any, count: int, pieces: int) -> Fetched:
    """The lists of one block, one a device; padding rows left out."""
    values, places = (np.asarray(array) for array in result)
    lists: Fetched = []
    for piece in range(pieces):
        real = min(max(rows - piece * BLOCK, 0), BLOCK)
        some = min(real, values.shape[2])
        if some:
            numbers = places[piece, :count, :some].astype(np.int64) + start
            lists.append((numbers, values[piece, :count, :some], some == real))
    return lists
