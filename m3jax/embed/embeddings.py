"""Encoded texts on the host: one array per representation, in the order of the texts.

n  texts    d  dense width    v  vocabulary    c  ColBERT width    r  vectors of all texts
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int, Num, Shaped


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Matrices of different heights in one array: text i has `values[offsets[i]:offsets[i+1]]`."""

    values: Shaped[np.ndarray, "r c"]
    offsets: Int[np.ndarray, " n_plus_1"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> Shaped[np.ndarray, "t c"]:
        if not -len(self) <= number < len(self):
            raise IndexError(f"text {number} of {len(self)}")
        number %= len(self)
        return self.values[self.offsets[number] : self.offsets[number + 1]]

    def __iter__(self) -> Iterator[Shaped[np.ndarray, "t c"]]:
        return (self[i] for i in range(len(self)))


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """The representations of texts; None for one that was not requested."""

    dense: Float[np.ndarray, "n d"] | None
    sparse: scipy.sparse.csr_array | None  # [n, v]: the largest weight of each token
    colbert: Ragged | None


def concatenate(parts: Sequence[Embeddings]) -> Embeddings:
    """The texts of all `parts`, one after another."""
    if len(parts) == 1:
        return parts[0]
    dense = [p.dense for p in parts if p.dense is not None]
    sparse = [p.sparse for p in parts if p.sparse is not None]
    colbert = [p.colbert for p in parts if p.colbert is not None]
    return Embeddings(
        np.concatenate(dense) if dense else None,
        scipy.sparse.csr_array(scipy.sparse.vstack(sparse)) if sparse else None,
        Ragged(
            np.concatenate([c.values for c in colbert]),
            stack_offsets([np.diff(c.offsets) for c in colbert]),
        )
        if colbert
        else None,
    )


def stack_offsets(heights: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " n_plus_1"]:
    """Offsets of a `Ragged` from the heights of its matrices."""
    return np.concatenate([[0], np.cumsum(np.concatenate(heights))]).astype(np.int64)


def lexical_matrix(
    texts: Int[np.ndarray, " r"],
    token_ids: Int[np.ndarray, " r"],
    weights: Float[np.ndarray, " r"],
    shape: tuple[int, int],
) -> scipy.sparse.csr_array:
    """w_t = max over the occurrences of token t in a text [M3 sec. 3.2]; zeros are not stored.

    The arrays hold one entry per token of all texts: its text, its id and its weight.
    """
    keep = weights > 0
    texts, token_ids, weights = texts[keep], token_ids[keep], weights[keep]
    order = np.lexsort((token_ids, texts))
    texts, token_ids, weights = texts[order], token_ids[order], weights[order]
    new = np.ones(len(texts), bool)
    new[1:] = (texts[1:] != texts[:-1]) | (token_ids[1:] != token_ids[:-1])
    starts = np.flatnonzero(new)
    largest = np.maximum.reduceat(weights, starts) if len(starts) else weights
    counts: np.ndarray = np.bincount(texts[starts], minlength=shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return scipy.sparse.csr_array((largest, token_ids[starts], indptr), shape=shape)


def lexical_dicts(matrix: scipy.sparse.csr_array) -> list[dict[str, float]]:
    """FlagEmbedding's form: one {token id as a string: weight} per text."""
    ids = list(map(str, matrix.indices.tolist()))
    weights = matrix.data.tolist()
    ends = [int(end) for end in matrix.indptr]
    return [
        dict(zip(ids[a:b], weights[a:b], strict=True))
        for a, b in zip(ends[:-1], ends[1:], strict=True)
    ]


def to_int8(vectors: Num[np.ndarray, "r c"]) -> tuple[np.ndarray, Float[np.ndarray, " r"]]:
    """Codes and one scale per vector: vector ~ scale * codes, with an error up to scale / 2."""
    scale = np.abs(vectors).max(axis=1, initial=0.0).astype(np.float32) / 127
    scale = np.where(scale > 0, scale, np.float32(1))
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale
