"""Several texts in one row: no token is spent on padding but the row's end.

Never imports JAX.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOOKAHEAD = 64  # examples that may wait for the next rows while shorter ones fill these


class PackShape(NamedTuple):
    """The packed rows of one device."""

    num_rows: int
    width: int  # tokens per row
    max_texts: int  # per row
    max_examples: int  # in all rows together


def pack_texts(lengths: Sequence[int], width: int, most: int | None = None) -> list[list[int]]:
    """Rows of text numbers whose lengths sum to at most `width`: first fit, longest first.

    `most` bounds the texts of a row. Deterministic; ValueError for a text longer than `width`.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[number]
        if length > width:
            raise ValueError(f"text {number} has {length} tokens, more than a row of {width}")
        for row, left in enumerate(room):
            if length <= left and (most is None or len(rows[row]) < most):
                break
        else:
            row = len(rows)
            rows.append([])
            room.append(width)
        rows[row].append(number)
        room[row] -= length
    return rows


def fill_rows(
    pools: Sequence[deque[int]], texts_of: Callable[[int], Sequence[int]], shape: PackShape
) -> list[int]:
    """Takes from the pools, the first before the others, the examples that fill one set of rows.

    `texts_of` gives the lengths of an example's texts, which stay together. One that does not fit
    stays at the head of its pool while a few behind it are tried. The examples come in the order in
    which `place_texts` fits them. ValueError where one is too big for empty rows.
    """
    rows = _Filling(shape)
    taken: list[int] = []
    for pool in pools:
        waiting: list[int] = []
        while pool and len(waiting) < LOOKAHEAD and len(taken) < shape.max_examples:
            example = pool.popleft()
            if rows.add(texts_of(example)):
                taken.append(example)
            elif not taken:
                raise ValueError(
                    f"an example of {sum(texts_of(example))} tokens does not fit "
                    f"{shape.num_rows} rows of {shape.width} tokens; raise the batch size of its "
                    "group or the row width"
                )
            else:
                waiting.append(example)
        pool.extendleft(reversed(waiting))
    return taken


def place_texts(examples: Sequence[Sequence[int]], shape: PackShape) -> list[list[int]]:
    """The row of each text of each example; best fit, in the order given.

    ValueError where they do not fit: what `fill_rows` took always does.
    """
    rows = _Filling(shape)
    for lengths in examples:
        if not rows.add(lengths):
            raise ValueError(f"texts of {list(lengths)} tokens do not fit the rows left")
    return rows.taken


class _Filling:
    """Rows being filled: the room left in each and the texts that may still come."""

    def __init__(self, shape: PackShape):
        self.room: NDArray[np.int64] = np.full(shape.num_rows, shape.width, np.int64)
        self.free: NDArray[np.int64] = np.full(shape.num_rows, shape.max_texts, np.int64)
        self.taken: list[list[int]] = []

    def add(self, lengths: Sequence[int]) -> bool:
        """Places all texts of an example, each where the least room is left over, or none."""
        room, free, places = self.room.copy(), self.free.copy(), []
        for length in lengths:
            left = np.where((room >= length) & (free > 0), room, np.iinfo(np.int64).max)
            row = int(left.argmin())
            if left[row] == np.iinfo(np.int64).max:
                return False
            room[row] -= length
            free[row] -= 1
            places.append(row)
        self.room, self.free = room, free
        self.taken.append(places)
        return True
