"""Token ids to rows of a fixed shape, padded or packed, and the plan of which text goes where.

Never imports JAX. What training adds (groups, sampling, worker processes) stands on these.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from m3jax.text.buckets import bucket_of
from m3jax.types import TextBatch


class Slot(NamedTuple):
    """Where one text stands in a batch."""

    text: int  # its number in the caller's list
    row: int
    segment: int  # 0, 1, ... within the row
    start: int  # column of its first token
    length: int


def rows_of_tokens(
    token_ids: Sequence[np.ndarray],
    rows: Sequence[Sequence[int]],
    width: int,
    *,
    pad_id: int,
    cls_every: int | None = None,
    num_rows: int | None = None,
    segments: int | None = None,
) -> tuple[TextBatch, list[Slot]]:
    """Lays texts out in `num_rows` rows of `width` tokens; `rows` names the texts of each row.

    `segments` (at least the fullest row's number of texts) fixes the shape of `lengths`;
    `cls_every` is what the texts were tokenised with.
    """
    num_rows = len(rows) if num_rows is None else num_rows
    segments = max([1, *map(len, rows)]) if segments is None else segments
    ids = np.full((num_rows, width), pad_id, np.int32)
    positions = np.full((num_rows, width), pad_id, np.int32)
    segment_ids = np.zeros((num_rows, width), np.int32)
    is_cls = np.zeros((num_rows, width), bool)
    lengths = np.zeros((num_rows, segments), np.int32)
    slots = []
    for row, texts in enumerate(rows):
        start = 0
        for segment, text in enumerate(texts):
            tokens = token_ids[text]
            here = slice(start, start + len(tokens))
            ids[row, here] = tokens
            positions[row, here] = position_rows(tokens, pad_id)
            segment_ids[row, here] = segment + 1
            is_cls[row, here] = cls_columns(len(tokens), cls_every)
            lengths[row, segment] = len(tokens)
            slots.append(Slot(text, row, segment, start, len(tokens)))
            start += len(tokens)
    return TextBatch(ids, positions, segment_ids, is_cls, lengths), slots


def position_rows(token_ids: np.ndarray, pad_id: int) -> np.ndarray:
    """Rows of XLM-R's position table: pad_id + 1, pad_id + 2, ...; a padding token does not count.

    A text may spell `<pad>`: PyTorch's XLM-R gives it row pad_id and goes on counting behind it.
    """
    counted = token_ids != pad_id
    return (np.cumsum(counted) * counted + pad_id).astype(np.int32)


def cls_columns(length: int, cls_every: int | None) -> np.ndarray:
    """True at a text's [CLS]: the first token, and with MCLS every (cls_every + 1)-th behind it.

    By position, not by id: a text that spells `<s>` has no more of them than another.
    """
    is_cls = np.zeros(length, bool)
    is_cls[0] = True
    if cls_every is not None:
        is_cls[: length - 1 : cls_every + 1] = True  # the last token is the end of sentence
    return is_cls


def plan_padded(
    lengths: Sequence[int],
    ladder: tuple[int, ...],
    tokens_per_batch: int,
    *,
    rows_per_batch: int | None = None,
    row_multiple: int = 1,
) -> Iterator[tuple[int, int, list[list[int]]]]:
    """Batches of texts of like length, longest first: (bucket, num_rows, rows).

    A batch holds `rows_per_batch` texts or as many as fill `tokens_per_batch`, none shorter than
    three quarters of the longest one's bucket; a batch that is not full is padded up to a power of
    two of rows, so that few shapes are compiled. `row_multiple` is the number of devices that
    share the rows.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    place = 0
    while place < len(order):
        bucket = bucket_of(lengths[order[place]], ladder)
        most = rows_per_batch or max(1, tokens_per_batch // bucket)
        most = -(-most // row_multiple) * row_multiple
        texts = []
        for text in order[place : place + most]:
            if texts and 4 * lengths[text] < 3 * bucket and bucket > ladder[0]:
                break
            texts.append(text)
        place += len(texts)
        yield bucket, _num_rows(len(texts), most, row_multiple), [[text] for text in texts]


def _num_rows(texts: int, most: int, row_multiple: int) -> int:
    """The smallest of row_multiple x (1, 2, 4, ...) that holds `texts`, at most `most`."""
    num_rows = row_multiple
    while num_rows < texts:
        num_rows *= 2
    return min(num_rows, most)
