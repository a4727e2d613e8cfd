"""Token ids to rows of a fixed shape, padded or packed, and the batches of an encoding run."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from m3jax.text.buckets import bucket_of
from m3jax.types import TextBatch


class Slot(NamedTuple):
    """The position of a text in a batch."""

    text: int  # index in the caller's list
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
    """Arranges texts in `num_rows` rows of `width` tokens; `rows` lists the texts of each row.

    `segments`, at least the largest number of texts in a row, is the second axis of `lengths`. Pass
    the `cls_every` with which the texts were tokenised.
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
    """Rows of XLM-R's position table: pad_id + 1, pad_id + 2, ..., padding tokens not counted.

    A text may contain `<pad>`. As in PyTorch's XLM-R, that token has row pad_id, and the tokens
    after it continue the count.
    """
    counted = token_ids != pad_id
    return (np.cumsum(counted) * counted + pad_id).astype(np.int32)


def cls_columns(length: int, cls_every: int | None) -> np.ndarray:
    """True at the [CLS] tokens: the first one, and with MCLS every (cls_every + 1)-th after it.

    They are found by position: the id of `<s>` can also occur in a text.
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
    """Yields batches of texts of similar length, longest first: (bucket, num_rows, rows).

    A batch has `rows_per_batch` texts, or as many as `tokens_per_batch` allows, of at least three
    quarters of its bucket in length. One that is not full is padded to a power of two of rows, so
    that few shapes are compiled. `row_multiple` is the number of devices that share the rows.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    done = 0
    while done < len(order):
        bucket = bucket_of(lengths[order[done]], ladder)
        max_rows = rows_per_batch or max(1, tokens_per_batch // bucket)
        max_rows = -(-max_rows // row_multiple) * row_multiple
        texts = []
        for text in order[done : done + max_rows]:
            if texts and 4 * lengths[text] < 3 * bucket and bucket > ladder[0]:
                break
            texts.append(text)
        done += len(texts)
        yield bucket, _num_rows(len(texts), max_rows, row_multiple), [[text] for text in texts]


def _num_rows(texts: int, max_rows: int, row_multiple: int) -> int:
    """The smallest row_multiple * 2**k of at least `texts`, but at most `max_rows`."""
    num_rows = row_multiple
    while num_rows < texts:
        num_rows *= 2
    return min(num_rows, max_rows)
