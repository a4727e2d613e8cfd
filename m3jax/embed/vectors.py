"""Stored vectors of a corpus, in memory or memory-mapped: float32, float16, or int8 codes.

They consist of parts, which are numbered through: one array each and, for int8, one scale per row
with vector = scale * codes.

n  rows    d  width    m  requested rows
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from m3jax.embed.embeddings import Ragged

BLOCK = 8192  # rows read, decoded and multiplied at once


@dataclasses.dataclass(frozen=True)
class StoredVectors:
    """Vectors of equal width in several parts; `norm` is the largest norm, if it is known."""

    parts: tuple[np.ndarray, ...]
    scales: tuple[np.ndarray | None, ...]
    norm: float | None = None

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        """d; 0 if there is no part."""
        return self.parts[0].shape[1] if self.parts else 0

    @functools.cached_property
    def starts(self) -> Int[np.ndarray, " parts_plus_1"]:
        """The number of the first row of each part, and the number of all rows."""
        return np.cumsum([0, *map(len, self.parts)], dtype=np.int64)

    @functools.cached_property
    def largest_norm(self) -> float:
        """The largest norm of a vector; computed once if it is not known.

        Raises ValueError if a number is not finite.
        """
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
        """Yields (number of the first row, up to `size` rows as float32); float32 is not copied."""
        for start, part, scales in zip(self.starts[:-1], self.parts, self.scales, strict=True):
            for a in range(0, len(part), size):
                block_scales = None if scales is None else scales[a : a + size]
                yield int(start) + a, decode(part[a : a + size], block_scales)

    def located(
        self, numbers: Int[np.ndarray, " m"]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields (part, positions in `numbers`, rows within the part) of each part concerned."""
        part_of = np.searchsorted(self.starts, numbers, side="right") - 1
        for part in np.unique(part_of):
            positions = np.flatnonzero(part_of == part)
            yield int(part), positions, numbers[positions] - self.starts[part]


@dataclasses.dataclass(frozen=True)
class StoredMatrices:
    """A matrix per document: document i has rows offsets[i] to offsets[i + 1] of its part."""

    rows: StoredVectors
    offsets: tuple[Int[np.ndarray, " _"], ...]  # within each part

    def __len__(self) -> int:
        return int(self.starts[-1])

    @functools.cached_property
    def starts(self) -> Int[np.ndarray, " parts_plus_1"]:
        """The number of the first document of each part, and the number of all documents."""
        return np.cumsum([0, *(len(o) - 1 for o in self.offsets)], dtype=np.int64)

    def located(
        self, numbers: Int[np.ndarray, " m"]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yields (part, positions in `numbers`, row starts, row stops)."""
        part_of = np.searchsorted(self.starts, numbers, side="right") - 1
        for part in np.unique(part_of):
            positions = np.flatnonzero(part_of == part)
            inside = numbers[positions] - self.starts[part]
            offsets = self.offsets[part]
            yield int(part), positions, offsets[inside], offsets[inside + 1]

    def matrices(
        self, numbers: Int[np.ndarray, " m"], dtype: type = np.float32
    ) -> Iterator[tuple[int, Float[np.ndarray, "t d"]]]:
        """Yields (position in `numbers`, matrix) of each requested document."""
        for part, positions, starts, stops in self.located(numbers):
            values, scales = self.rows.parts[part], self.rows.scales[part]
            for position, start, stop in zip(positions, starts, stops, strict=True):
                row_scales = None if scales is None else scales[start:stop]
                yield int(position), decode(values[start:stop], row_scales, dtype)


def decode(
    values: Shaped[np.ndarray, "m d"],
    scales: Float[np.ndarray, " m"] | None,
    dtype: type = np.float32,
) -> Float[np.ndarray, "m d"]:
    """Stored rows as floating-point vectors."""
    numbers = np.asarray(values).astype(dtype, copy=False)
    return numbers if scales is None else numbers * scales[:, None].astype(dtype)


def as_stored_vectors(vectors: StoredVectors | np.ndarray | Sequence[np.ndarray]) -> StoredVectors:
    """`StoredVectors` of one array or several."""
    if isinstance(vectors, StoredVectors):
        return vectors
    parts = (vectors,) if isinstance(vectors, np.ndarray) else tuple(vectors)
    return StoredVectors(parts, (None,) * len(parts))


def as_stored_matrices(vectors: StoredMatrices | Ragged) -> StoredMatrices:
    """`StoredMatrices` of a `Ragged`."""
    if isinstance(vectors, StoredMatrices):
        return vectors
    return StoredMatrices(as_stored_vectors(vectors.values), (vectors.offsets,))
