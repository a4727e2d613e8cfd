"""Several texts in one row: no token is spent on padding but the row's end.

Never imports JAX.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOOKAHEAD = 64  # examples that may wait for the next rows while shorter ones fill these


class Rows(NamedTuple):
    """The rows that a device fills with examples."""

    rows: int
    width: int  # tokens
    segments: int  # texts of a row, at most
    most: int  # examples, at most


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


def cut_packed(
    examples: Sequence[int], texts_of: Callable[[int], Sequence[int]], shape: Rows
) -> list[list[int]]:
    """Cuts a stream of examples into pieces that each fill one set of rows.

    `texts_of` gives the lengths of an example's texts, which stay in one piece. An example that
    does not fit waits, at the head of the next piece, while later ones are tried. Each piece lists
    its examples in the order in which `place_texts` fits them. ValueError where an example is too
    big for empty rows.
    """
    pieces = []
    waiting: list[int] = []
    stream = iter(examples)
    ended = False
    while not ended or waiting:
        rows = _Filling(shape)
        taken = [e for e in waiting if len(rows.taken) < shape.most and rows.add(texts_of(e))]
        if waiting and not taken:
            raise ValueError(
                f"an example of {sum(texts_of(waiting[0]))} tokens does not fit {shape.rows} rows "
                f"of {shape.width}; raise the batch size of its group or the row width"
            )
        kept = set(taken)
        waiting = [e for e in waiting if e not in kept]
        while len(waiting) < LOOKAHEAD and len(taken) < shape.most and not ended:
            example = next(stream, None)
            if example is None:
                ended = True
            elif rows.add(texts_of(example)):
                taken.append(example)
            else:
                waiting.append(example)
        if taken:
            pieces.append(taken)
    return pieces


def place_texts(examples: Sequence[Sequence[int]], shape: Rows) -> list[list[int]]:
    """The row of each text of each example; best fit, in the order given.

    ValueError where they do not fit: a piece of `cut_packed` always does.
    """
    rows = _Filling(shape)
    for lengths in examples:
        if not rows.add(lengths):
            raise ValueError(f"texts of {list(lengths)} tokens do not fit the rows left")
    return rows.taken


class _Filling:
    """Rows being filled: the room left in each and the texts that may still come."""

    def __init__(self, shape: Rows):
        self.room: NDArray[np.int64] = np.full(shape.rows, shape.width, np.int64)
        self.free: NDArray[np.int64] = np.full(shape.rows, shape.segments, np.int64)
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
