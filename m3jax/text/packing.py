"""Several texts in one row: no token is spent on padding but the row's end.

Never imports JAX.
"""

from collections.abc import Sequence


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
