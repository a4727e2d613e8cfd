"""Exact lexical search: an inverted index over the weights of tokens.

s_lex = sum over the shared tokens of w_q(t) w_p(t) [M3 sec. 3.2], added up in float64 in the
order of the token ids. Products of two float32 are exact in float64, and both engines add in the
same order: `numba` (extra `search`) and `scipy` return the same bits.

Documents that share no token with the query score 0 and are not returned.

    DIRECTORY/offsets.npy     int64 [v + 1]: the postings of token t are offsets[t]..offsets[t + 1]
             /documents.npy   int32 [r], ascending within a token
             /weights.npy     float32 [r], or uint8 codes with scales.npy float32 [v]
             /largest.npy     [v]: the largest of each token's weights (or codes)
             /size.npy        n

v  vocabulary    r  postings    n  documents    m  documents scored    q  queries
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int, Num

from m3jax.io.atomic import new_directory
from m3jax.search.hits import Hits, ranked
from m3jax.search.options import check_engine
from m3jax.search.threads import cores, have_numba, parallel_map

BLOCK = 1 << 15  # documents whose sums, 256 KiB, stay in the cache


@dataclasses.dataclass(frozen=True)
class InvertedIndex:
    """For each token the documents it occurs in, and its weight in each."""

    offsets: Int[np.ndarray, " v_plus_1"]
    documents: Int[np.ndarray, " r"]
    weights: Num[np.ndarray, " r"]
    scales: Float[np.ndarray, " v"] | None  # weight = scale of the token * code
    largest: Num[np.ndarray, " v"]  # stored weight of each token; bounds scores for pruning
    size: int  # n


@dataclasses.dataclass(frozen=True)
class SparseRetriever:
    """The lexical weights of the documents, searched exactly."""

    postings: InvertedIndex
    engine: str = "auto"

    def __post_init__(self):
        check_engine("sparse", self.engine)

    def search(self, queries: scipy.sparse.csr_array, top_k: int) -> Hits:
        """The `top_k` documents of each query (a row) among those that share a token with it."""
        postings = self.postings
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        width = len(postings.offsets) - 1
        if num_columns(queries) > width:
            raise ValueError(f"queries over {num_columns(queries)} tokens, the index has {width}")
        use_numba = have_numba() if self.engine == "auto" else self.engine == "numba"
        best = _numba_best if use_numba else _scipy_best
        count = num_rows(queries)
        ranges = _ranges(postings.size, count) if use_numba else [(0, postings.size)]
        weighted = [_factors(queries, number, postings) for number in range(count)]

        def search_range(task: tuple[int, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
            number, bounds = task
            return best(*weighted[number], postings, bounds, top_k)

        tasks = [(number, bounds) for number in range(count) for bounds in ranges]
        results = parallel_map(search_range, tasks)
        hits = Hits([], [])
        for number in range(count):
            of_query = results[number * len(ranges) : (number + 1) * len(ranges)]
            documents, scores = (np.concatenate(side) for side in zip(*of_query, strict=True))
            documents, scores = ranked(documents, scores, top_k)
            hits.documents.append(documents)
            hits.scores.append(scores)
        return hits

    def scores(
        self,
        query: scipy.sparse.csr_array,
        documents: Int[np.ndarray, " m"],
        *,
        exact: bool = False,
    ) -> Float[np.ndarray, " m"]:
        """The scores of one query [1, v] and some documents, always in float64; 0 where they share
        no token."""
        total = np.zeros(len(documents), np.float64)
        for token, factor in zip(*_factors(query, 0, self.postings), strict=True):
            total += factor * _weights_at(self.postings, int(token), documents)
        return total

    def error_bound(self, query: scipy.sparse.csr_array) -> float:
        """0: `scores` are exact."""
        return 0.0

    def matches(
        self, query: scipy.sparse.csr_array, document: int
    ) -> list[tuple[int, float, float]]:
        """(token, query weight, document weight) of the shared tokens, largest product first."""
        shared = []
        for token, weight in zip(*_row(query, 0), strict=True):
            (code,) = _weights_at(self.postings, int(token), np.array([document]))
            scales = self.postings.scales
            scale = 1.0 if scales is None else float(scales[token])
            if code:
                shared.append((int(token), float(weight), float(code) * scale))
        return sorted(shared, key=lambda match: (-match[1] * match[2], match[0]))


def build(
    read: Callable[[], Iterable[scipy.sparse.csr_array]],
    output: Path | None = None,
    *,
    bits: int = 32,
) -> InvertedIndex:
    """The index of all matrices [texts, v] that `read()` yields; `read` is called twice.

    With `output` the postings are written to this new directory, atomically, and memory-mapped.
    `bits=8` stores each weight as a multiple of its token's largest weight / 255. The error of a
    weight is then at most largest / 510, that of a score at most the sum over the query's tokens
    of w_q largest / 510.
    """
    if bits not in (8, 32):
        raise ValueError(f"bits must be 8 or 32, got {bits}")
    if output is None:
        return _fill(read, bits, lambda name, size, dtype: np.empty(size, dtype))
    with new_directory(output) as scratch:

        def new(name: str, size: int, dtype: type) -> np.ndarray:
            path = scratch / f"{name}.npy"
            if not size:
                return np.empty(0, dtype)
            return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(size,))

        index = _fill(read, bits, new)
        _write(scratch, index)
        del index  # unmaps the files before they are renamed
    return load(output)


def save(index: InvertedIndex, output: Path) -> None:
    """Writes the index to a new directory, atomically."""
    with new_directory(output) as scratch:
        _write(scratch, index)


def load(directory: Path) -> InvertedIndex:
    """The index in `directory`, its postings memory-mapped; ValueError where files disagree."""
    parts = {}
    for name in ("offsets", "documents", "weights", "largest", "size"):
        if not (directory / f"{name}.npy").is_file():
            raise FileNotFoundError(f"{directory} has no {name}.npy: not a complete inverted index")
        mode = "r" if name in ("documents", "weights") else None
        parts[name] = np.load(directory / f"{name}.npy", mmap_mode=mode)
    if not parts["offsets"][-1] == len(parts["documents"]) == len(parts["weights"]):
        raise ValueError(f"{directory} is damaged: its files do not match")
    scales = directory / "scales.npy"
    return InvertedIndex(
        parts["offsets"],
        np.asarray(parts["documents"]),
        np.asarray(parts["weights"]),
        np.load(scales) if scales.is_file() else None,
        parts["largest"],
        int(parts["size"]),
    )


def num_rows(matrix: scipy.sparse.csr_array) -> int:
    """Its rows; SciPy's `shape` has no useful type."""
    return int(matrix.shape[0])  # pyright: ignore[reportOptionalSubscript]


def num_columns(matrix: scipy.sparse.csr_array) -> int:
    """Its columns."""
    return int(matrix.shape[1])  # pyright: ignore[reportOptionalSubscript]


def _row(queries: scipy.sparse.csr_array, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens ascending, their weights) of one query."""
    a, b = queries.indptr[number], queries.indptr[number + 1]
    order = np.argsort(queries.indices[a:b], kind="stable")
    return queries.indices[a:b][order], queries.data[a:b][order]


def _factors(
    queries: scipy.sparse.csr_array, number: int, index: InvertedIndex
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens ascending, the float64 factors of each token's stored weights) of one query."""
    tokens, weights = _row(queries, number)
    if len(weights) and not weights.min() >= 0:
        raise ValueError("lexical weights of a query must be 0 or more")
    factors = weights.astype(np.float64)
    if index.scales is not None:
        factors = factors * index.scales[tokens].astype(np.float64)
    return tokens, factors


def _weights_at(index: InvertedIndex, token: int, documents: np.ndarray) -> np.ndarray:
    """The stored weight of one token in some documents, 0 where it does not occur."""
    a, b = index.offsets[token], index.offsets[token + 1]
    holders = index.documents[a:b]
    if not len(holders):
        return np.zeros(len(documents), np.float64)
    positions = np.searchsorted(holders, documents.astype(np.int32))
    positions = np.minimum(positions, len(holders) - 1)
    is_holder = holders[positions] == documents
    return np.where(is_holder, index.weights[a:b][positions], 0).astype(np.float64)


def _ranges(size: int, num_queries: int) -> list[tuple[int, int]]:
    """Ranges of document numbers, as many as keep every core busy, each of at least 4 blocks.

    Each is searched separately; the best of all are among the best of each.
    """
    count = max(1, min(cores() // max(num_queries, 1), size // (4 * BLOCK)))
    ends = [size * part // count for part in range(count + 1)]
    return list(itertools.pairwise(ends))


def _numba_best(
    tokens: np.ndarray,
    factors: np.ndarray,
    index: InvertedIndex,
    bounds: tuple[int, int],
    top_k: int,
) -> tuple[np.ndarray, np.ndarray]:
    from m3jax.search.kernels import lexical

    largest = factors * index.largest[tokens].astype(np.float64)
    terms = lexical.Terms(index.offsets[tokens], index.offsets[tokens + 1], factors, largest)
    postings = lexical.Postings(index.documents, index.weights)
    return lexical.lexical_top(terms, postings, *bounds, top_k, BLOCK)


def _scipy_best(
    tokens: np.ndarray,
    factors: np.ndarray,
    index: InvertedIndex,
    bounds: tuple[int, int],
    top_k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Of all documents: `bounds` is (0, n)."""
    slices = [slice(index.offsets[t], index.offsets[t + 1]) for t in tokens]
    ends = np.cumsum([0, *(int(s.stop - s.start) for s in slices)])
    empty = (np.zeros(0), np.zeros(0, np.int32))
    weights = np.concatenate([empty[0], *(index.weights[s] for s in slices)])
    documents = np.concatenate([empty[1], *(index.documents[s] for s in slices)])
    shape = (index.size, len(tokens))
    scores = scipy.sparse.csc_array((weights, documents, ends), shape=shape) @ factors
    matched = np.flatnonzero(scores > 0)
    if len(matched) > top_k:
        cut = np.partition(scores[matched], len(matched) - top_k)[len(matched) - top_k]
        matched = matched[scores[matched] >= cut]
    return matched, scores[matched]


def _fill(
    read: Callable[[], Iterable[scipy.sparse.csr_array]],
    bits: int,
    new: Callable[[str, int, type], np.ndarray],
) -> InvertedIndex:
    """Two passes: count each token's postings, then write them, sorted by token and document."""
    counts, largest, size = np.zeros(0, np.int64), np.zeros(0, np.float32), 0
    for matrix in read():
        if not len(counts):
            counts = np.zeros(num_columns(matrix), np.int64)
            largest = np.zeros(num_columns(matrix), np.float32)
        if len(matrix.data) and not matrix.data.min() >= 0:
            raise ValueError("lexical weights must be 0 or more")
        counts += np.bincount(matrix.indices, minlength=len(counts))
        np.maximum.at(largest, matrix.indices, matrix.data)
        size += num_rows(matrix)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    scales = np.where(largest > 0, largest / np.float32(255), np.float32(1))
    documents = new("documents", int(offsets[-1]), np.int32)
    weights = new("weights", int(offsets[-1]), np.uint8 if bits == 8 else np.float32)
    cursor, first = offsets[:-1].copy(), 0
    for matrix in read():
        columns = scipy.sparse.csc_array(matrix)  # within a column, rows ascend
        columns.sort_indices()
        lengths = np.diff(columns.indptr)
        shift = np.repeat(cursor - columns.indptr[:-1], lengths)
        positions = shift + np.arange(len(columns.indices))
        values = columns.data
        if bits == 8:
            values = np.rint(values / np.repeat(scales, lengths))
        documents[positions], weights[positions] = columns.indices + first, values
        cursor += lengths
        first += num_rows(matrix)
    if bits == 8:
        codes = np.rint(largest / scales).astype(np.uint8)
        return InvertedIndex(offsets, documents, weights, scales, codes, size)
    return InvertedIndex(offsets, documents, weights, None, largest, size)


def _write(directory: Path, index: InvertedIndex) -> None:
    for name in ("offsets", "documents", "weights", "scales", "largest"):
        array = getattr(index, name)
        if isinstance(array, np.memmap):
            array.flush()
        elif array is not None:
            np.save(directory / f"{name}.npy", array)
    np.save(directory / "size.npy", np.int64(index.size))
