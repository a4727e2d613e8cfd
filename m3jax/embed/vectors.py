"""Vectors of a corpus as they lie in memory or in mapped files: float32, float16, or int8 codes.

A part is one array with, for int8, one scale a row: vector = scale * codes. Parts follow one
another; rows are numbered through.

n  rows    d  width    m  rows asked for
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from m3jax.embed.embeddings import Ragged

BLOCK = 8192  # rows read, decoded and multiplied at once


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of equal width in several parts. `norm`: the longest one's length, where it is known."""

    parts: tuple[np.ndarray, ...]
    scales: tuple[np.ndarray | None, ...]
    norm: float | None = None

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        """d; 0 without any part."""
        return self.parts[0].shape[1] if self.parts else 0

    @functools.cached_property
    def starts(self) -> Int[np.ndarray, " parts_plus_1"]:
        """The number of each part's first row, and the number of all."""
        return np.cumsum([0, *map(len, self.parts)], dtype=np.int64)

    @functools.cached_property
    def largest_norm(self) -> float:
        """The longest vector's length; ValueError where a number is not finite. Read once, where
        it was not written down."""
        if self.norm is not None:
            return self.norm
        largest = 0.0
        for _, block in self.blocks():
            norm = float(np.sqrt(np.einsum("nd,nd->n", block, block).max(initial=0.0)))
            if not np.isfinite(norm):
                raise ValueError("the documents' vectors hold numbers that are not finite")
            largest = max(largest, norm)
        return largest

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, Float[np.ndarray, "b d"]]]:
        """(number of the first row, rows as float32), `size` at most; float32 is not copied."""
        for start, part, scales in zip(self.starts[:-1], self.parts, self.scales, strict=True):
            for a in range(0, len(part), size):
                some = None if scales is None else scales[a : a + size]
                yield int(start) + a, decode(part[a : a + size], some)

    def located(
        self, numbers: Int[np.ndarray, " m"]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(part, places in `numbers`, rows within the part) for every part that is asked for."""
        which = np.searchsorted(self.starts, numbers, side="right") - 1
        for part in np.unique(which):
            places = np.flatnonzero(which == part)
            yield int(part), places, numbers[places] - self.starts[part]


@dataclasses.dataclass(frozen=True)
class RaggedRows:
    """A matrix for each document: document i owns rows offsets[i]..offsets[i + 1] of its part."""

    rows: Rows
    offsets: tuple[Int[np.ndarray, " _"], ...]  # within each part

    def __len__(self) -> int:
        return int(self.starts[-1])

    @functools.cached_property
    def starts(self) -> Int[np.ndarray, " parts_plus_1"]:
        """The number of each part's first document, and the number of all."""
        return np.cumsum([0, *(len(o) - 1 for o in self.offsets)], dtype=np.int64)

    def located(
        self, numbers: Int[np.ndarray, " m"]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """(part, places in `numbers`, first rows, rows behind the last) by part."""
        which = np.searchsorted(self.starts, numbers, side="right") - 1
        for part in np.unique(which):
            places = np.flatnonzero(which == part)
            inside = numbers[places] - self.starts[part]
            offsets = self.offsets[part]
            yield int(part), places, offsets[inside], offsets[inside + 1]

    def matrices(
        self, numbers: Int[np.ndarray, " m"], dtype: type = np.float32
    ) -> Iterator[tuple[int, Float[np.ndarray, "t d"]]]:
        """(place in `numbers`, the document's matrix) of each document asked for."""
        for part, places, firsts, ends in self.located(numbers):
            values, scales = self.rows.parts[part], self.rows.scales[part]
            for place, a, b in zip(places, firsts, ends, strict=True):
                yield (
                    int(place),
                    decode(values[a:b], None if scales is None else scales[a:b], dtype),
                )


def decode(
    values: Shaped[np.ndarray, "m d"],
    scales: Float[np.ndarray, " m"] | None,
    dtype: type = np.float32,
) -> Float[np.ndarray, "m d"]:
    """Stored rows as floating-point numbers."""
    numbers = np.asarray(values).astype(dtype, copy=False)
    return numbers if scales is None else numbers * scales[:, None].astype(dtype)


def as_rows(vectors: Rows | np.ndarray | Sequence[np.ndarray]) -> Rows:
    """One array or several as `Rows`."""
    if isinstance(vectors, Rows):
        return vectors
    parts = (vectors,) if isinstance(vectors, np.ndarray) else tuple(vectors)
    return Rows(parts, (None,) * len(parts))


def as_ragged(vectors: RaggedRows | Ragged) -> RaggedRows:
    """A `Ragged` as `RaggedRows`."""
    if isinstance(vectors, RaggedRows):
        return vectors
    return RaggedRows(as_rows(vectors.values), (vectors.offsets,))
