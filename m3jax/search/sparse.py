"""Exact lexical search: an inverted index over the weights of tokens.

s_lex = sum over the shared tokens of w_q(t) w_p(t) [M3 sec. 3.2], added up in float64 in the
order of the token ids. Products of two float32 are exact in float64, and both engines add in the
same order: `numba` (extra `search`) and `scipy` return the same bits.

Documents that share no token with the query score 0 and are not returned.

    DIRECTORY/offsets.npy     int64 [v + 1]: the postings of token t are offsets[t]..offsets[t + 1]
             /documents.npy   int32 [r], ascending within a token
             /weights.npy     float32 [r], or uint8 codes with scales.npy float32 [v]
             /largest.npy     [v]: the largest of them of each token
             /size.npy        n

v  vocabulary    r  postings    n  documents    q  queries
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
from m3jax.search.threads import cores, have_numba, spread

ENGINES = ("auto", "numba", "scipy")
BLOCK = 1 << 15  # documents whose sums, 256 KiB, stay in the cache


@dataclasses.dataclass(frozen=True)
class InvertedIndex:
    """For each token the documents it occurs in and its weight in each."""

    offsets: Int[np.ndarray, " v_plus_1"]
    documents: Int[np.ndarray, " r"]
    weights: Num[np.ndarray, " r"]
    scales: Float[np.ndarray, " v"] | None  # weight = scale of the token * code
    largest: Num[np.ndarray, " v"]  # of the stored weights of each token: what pruning rests on
    size: int  # n


def build(
    read: Callable[[], Iterable[scipy.sparse.csr_array]],
    output: Path | None = None,
    *,
    bits: int = 32,
) -> InvertedIndex:
    """The index of all matrices [texts, v] that `read()` yields, which is called twice.

    With `output` the postings are written there, mapped, whole or not at all. `bits=8` stores each
    weight as a multiple of its token's largest weight / 255, so that it is off by at most
    largest / 510 and a score by at most the sum over the query's tokens of w_q largest / 510.
    """
    if bits not in (8, 32):
        raise ValueError(f"bits must be 8 or 32, got {bits}")
    if output is None:
        return _fill(read, bits, lambda name, size, dtype: np.empty(size, dtype))
    with new_directory(output) as scratch:
        index = _fill(
            read, bits,
            lambda name, size, dtype: np.lib.format.open_memmap(
                scratch / f"{name}.npy", mode="w+", dtype=dtype, shape=(size,)
            ) if size else np.empty(0, dtype),
        )  # fmt: skip
        _write(scratch, index)
        del index  # unmaps the files before they are renamed
    return load(output)


def save(index: InvertedIndex, output: Path) -> None:
    """Writes the index to a new directory, whole or not at all."""
    with new_directory(output) as scratch:
        _write(scratch, index)


def load(directory: Path) -> InvertedIndex:
    """The index in `directory`, its postings memory-mapped; ValueError where files disagree."""
    parts = {}
    for name in ("offsets", "documents", "weights", "largest", "size"):
        if not (directory / f"{name}.npy").is_file():
            raise FileNotFoundError(f"{directory} has no {name}.npy: not a whole inverted index")
        mode = "r" if name in ("documents", "weights") else None
        parts[name] = np.load(directory / f"{name}.npy", mmap_mode=mode)
    if not parts["offsets"][-1] == len(parts["documents"]) == len(parts["weights"]):
        raise ValueError(f"{directory} is damaged: its files do not belong together")
    scales = directory / "scales.npy"
    return InvertedIndex(
        parts["offsets"],
        np.asarray(parts["documents"]),
        np.asarray(parts["weights"]),
        np.load(scales) if scales.is_file() else None,
        parts["largest"],
        int(parts["size"]),
    )


def search(
    queries: scipy.sparse.csr_array, index: InvertedIndex, top_k: int, *, engine: str = "auto"
) -> Hits:
    """The `top_k` documents of each query (a row), those without a shared token left out."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if width_of(queries) > len(index.offsets) - 1:
        raise ValueError(
            f"queries over {width_of(queries)} tokens, the index has {len(index.offsets) - 1}"
        )
    if engine == "auto":
        engine = "numba" if have_numba() else "scipy"
    best = _numba_best if engine == "numba" else _scipy_best
    count = height_of(queries)
    parts = _parts(index.size, count) if engine == "numba" else [(0, index.size)]
    asked = [_factors(queries, number, index) for number in range(count)]

    def one(piece: tuple[int, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        number, part = piece
        return best(*asked[number], index, part, top_k)

    found = spread(one, [(number, part) for number in range(count) for part in parts])
    hits = Hits([], [])
    for number in range(count):
        pieces = found[number * len(parts) : (number + 1) * len(parts)]
        documents, scores = (np.concatenate(side) for side in zip(*pieces, strict=True))
        documents, scores = ranked(documents, scores, top_k)
        hits.documents.append(documents)
        hits.scores.append(scores)
    return hits


def scores_at(
    queries: scipy.sparse.csr_array,
    number: int,
    index: InvertedIndex,
    documents: Int[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    """The float64 scores of one query with some documents, 0 where they share nothing."""
    total = np.zeros(len(documents), np.float64)
    for token, factor in zip(*_factors(queries, number, index), strict=True):
        total += factor * _weights_at(index, int(token), documents)
    return total


def matches(
    queries: scipy.sparse.csr_array, number: int, index: InvertedIndex, document: int
) -> list[tuple[int, float, float]]:
    """(token, query weight, document weight) of the shared tokens, largest product first."""
    row = _row(queries, number)
    shared = []
    for token, weight in zip(*row, strict=True):
        (code,) = _weights_at(index, int(token), np.array([document]))
        scale = 1.0 if index.scales is None else float(index.scales[token])
        if code:
            shared.append((int(token), float(weight), float(code) * scale))
    return sorted(shared, key=lambda match: (-match[1] * match[2], match[0]))


def height_of(matrix: scipy.sparse.csr_array) -> int:
    """Its rows; SciPy's `shape` has no useful type."""
    return int(matrix.shape[0])  # pyright: ignore[reportOptionalSubscript]


def width_of(matrix: scipy.sparse.csr_array) -> int:
    """Its columns."""
    return int(matrix.shape[1])  # pyright: ignore[reportOptionalSubscript]


def _row(queries: scipy.sparse.csr_array, number: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = queries.indptr[number], queries.indptr[number + 1]
    order = np.argsort(queries.indices[a:b], kind="stable")
    return queries.indices[a:b][order], queries.data[a:b][order]


def _factors(
    queries: scipy.sparse.csr_array, number: int, index: InvertedIndex
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens ascending, what each token's stored weights are multiplied by, float64)."""
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
    place = np.minimum(np.searchsorted(holders, documents.astype(np.int32)), len(holders) - 1)
    return np.where(holders[place] == documents, index.weights[a:b][place], 0).astype(np.float64)


def _parts(size: int, queries: int) -> list[tuple[int, int]]:
    """The documents in as many stretches as keep every core busy, none of less than a few blocks.

    Each is searched on its own; their best, put together, are those of the whole.
    """
    count = max(1, min(cores() // max(queries, 1), size // (4 * BLOCK)))
    ends = [size * part // count for part in range(count + 1)]
    return list(itertools.pairwise(ends))


def _numba_best(
    tokens: np.ndarray, factors: np.ndarray, index: InvertedIndex, part: tuple[int, int], top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    from m3jax.search.kernels import lexical

    starts, ends = index.offsets[tokens], index.offsets[tokens + 1]
    bounds = factors * index.largest[tokens].astype(np.float64)
    return lexical.lexical_top(
        starts, ends, factors, bounds, index.documents, index.weights, *part, top_k, BLOCK
    )


def _scipy_best(
    tokens: np.ndarray, factors: np.ndarray, index: InvertedIndex, _: tuple[int, int], top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    stretches = [slice(index.offsets[t], index.offsets[t + 1]) for t in tokens]
    ends = np.cumsum([0, *(int(s.stop - s.start) for s in stretches)])
    empty = (np.zeros(0), np.zeros(0, np.int32))
    weights = np.concatenate([empty[0], *(index.weights[s] for s in stretches)])
    documents = np.concatenate([empty[1], *(index.documents[s] for s in stretches)])
    shape = (index.size, len(tokens))
    scores = scipy.sparse.csc_array((weights, documents, ends), shape=shape) @ factors
    found = np.flatnonzero(scores > 0)
    if len(found) > top_k:
        cut = np.partition(scores[found], len(found) - top_k)[len(found) - top_k]
        found = found[scores[found] >= cut]
    return found, scores[found]


def _fill(
    read: Callable[[], Iterable[scipy.sparse.csr_array]],
    bits: int,
    new: Callable[[str, int, type], np.ndarray],
) -> InvertedIndex:
    """Two passes: count each token's postings, then put every posting in its place."""
    counts, largest, size = np.zeros(0, np.int64), np.zeros(0, np.float32), 0
    for matrix in read():
        if not len(counts):
            counts = np.zeros(width_of(matrix), np.int64)
            largest = np.zeros(width_of(matrix), np.float32)
        if len(matrix.data) and not matrix.data.min() >= 0:
            raise ValueError("lexical weights must be 0 or more")
        counts += np.bincount(matrix.indices, minlength=len(counts))
        np.maximum.at(largest, matrix.indices, matrix.data)
        size += height_of(matrix)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    scales = np.where(largest > 0, largest / np.float32(255), np.float32(1))
    documents = new("documents", int(offsets[-1]), np.int32)
    weights = new("weights", int(offsets[-1]), np.uint8 if bits == 8 else np.float32)
    cursor, first = offsets[:-1].copy(), 0
    for matrix in read():
        columns = scipy.sparse.csc_array(matrix)  # within a column, rows ascend
        columns.sort_indices()
        heights = np.diff(columns.indptr)
        shift = np.repeat(cursor - columns.indptr[:-1], heights)
        place = shift + np.arange(len(columns.indices))
        values = columns.data
        if bits == 8:
            values = np.rint(values / np.repeat(scales, heights))
        documents[place], weights[place] = columns.indices + first, values
        cursor += heights
        first += height_of(matrix)
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
