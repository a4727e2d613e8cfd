"""Packs several texts into a row, so that only the end of a row is padding."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOOKAHEAD = 64  # examples that may be deferred while later, shorter ones are tried


class PackShape(NamedTuple):
    """The packed rows of one device."""

    num_rows: int
    width: int  # tokens per row
    max_texts: int  # per row
    max_examples: int  # in all rows together


def pack_texts(lengths: Sequence[int], width: int, max_texts: int | None = None) -> list[list[int]]:
    """Assigns texts to rows of at most `width` tokens: first fit, longest first.

    Returns the texts of each row; `max_texts` is their maximum number. Deterministic. Raises
    ValueError for a text longer than `width`.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[number]
        if length > width:
            raise ValueError(f"text {number} has {length} tokens, more than a row of {width}")
        for row, left in enumerate(room):
            if length <= left and (max_texts is None or len(rows[row]) < max_texts):
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
    """Pops examples from `pools`, in pool order, until one device's rows are full.

    `texts_of` gives the lengths of an example's texts, which are placed together. An example that
    does not fit stays first in its pool, while up to LOOKAHEAD later ones are tried. Returns the
    examples in the order that `place_texts` expects. Raises ValueError if one does not fit empty
    rows.
    """
    rows = _OpenRows(shape)
    taken: list[int] = []
    for pool in pools:
        deferred: list[int] = []
        while pool and len(deferred) < LOOKAHEAD and len(taken) < shape.max_examples:
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
                deferred.append(example)
        pool.extendleft(reversed(deferred))
    return taken


def place_texts(examples: Sequence[Sequence[int]], shape: PackShape) -> list[list[int]]:
    """The row of each text of each example: best fit, in the given order.

    Examples that `fill_rows` returned always fit; raises ValueError for others that do not.
    """
    rows = _OpenRows(shape)
    for lengths in examples:
        if not rows.add(lengths):
            raise ValueError(f"texts of {list(lengths)} tokens do not fit the remaining space")
    return rows.assigned


class _OpenRows:
    """Rows being filled: the tokens and texts that each can still take."""

    def __init__(self, shape: PackShape):
        self.room: NDArray[np.int64] = np.full(shape.num_rows, shape.width, np.int64)
        self.free: NDArray[np.int64] = np.full(shape.num_rows, shape.max_texts, np.int64)
        self.assigned: list[list[int]] = []

    def add(self, lengths: Sequence[int]) -> bool:
        """Places all texts of an example, each in the row with the least space left, or none."""
        room, free, chosen = self.room.copy(), self.free.copy(), []
        for length in lengths:
            left = np.where((room >= length) & (free > 0), room, np.iinfo(np.int64).max)
            row = int(left.argmin())
            if left[row] == np.iinfo(np.int64).max:
                return False
            room[row] -= length
            free[row] -= 1
            chosen.append(row)
        self.room, self.free = room, free
        self.assigned.append(chosen)
        return True
