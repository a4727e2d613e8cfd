"""Tokenised examples to the arrays of a training batch: one text a row, or several.

Never imports JAX.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from m3jax.io.hashing import int_digest
from m3jax.text.batches import Slot, rows_of_tokens
from m3jax.text.packing import Rows, place_texts
from m3jax.types import PackedTexts, Targets, TextBatch, TrainBatch


class Spec(NamedTuple):
    """The shape of a batch, the same in every process; each distinct one is compiled once."""

    group: int
    queries: int  # of one process, fillings included
    group_size: int  # g: 0 for plain texts
    scored: bool  # has teacher scores
    query_width: int
    passage_width: int


class Tokenised(NamedTuple):
    """Some examples: their queries, and the passages picked for each, one group after another."""

    queries: list[NDArray[np.int32]]
    passages: list[NDArray[np.int32]]
    in_batch: list[bool]
    keys: list[int]  # of the passages, see `text_key`
    teacher: list[list[float]]  # scores of each group, where the batch has them


def padded(texts: Tokenised, spec: Spec, queries: int, pad_id: int) -> TrainBatch | TextBatch:
    """One text a row and `queries` of them; what is not there is filling."""
    asked = _one_a_row(texts.queries, spec.query_width, queries, pad_id)
    if not spec.group_size:
        return asked
    height = queries * spec.group_size
    passages = _one_a_row(texts.passages, spec.passage_width, height, pad_id)
    count = len(texts.queries)
    in_batch, is_real = np.ones(queries, bool), np.zeros(queries, bool)
    in_batch[:count] = texts.in_batch
    is_real[:count] = True
    keys = np.full(height, -1, np.int32)
    keys[: len(texts.keys)] = texts.keys
    teacher = None
    if spec.scored:
        teacher = np.zeros((queries, spec.group_size), np.float32)
        teacher[:count] = np.asarray(texts.teacher, np.float32).reshape(count, spec.group_size)
    return TrainBatch(asked, passages, Targets(in_batch, keys, teacher, is_real))


def packed(
    texts: Tokenised, lengths: list[list[int]], spec: Spec, shape: Rows, shard: int, pad_id: int
) -> TrainBatch | TextBatch:
    """The rows of device `shard`; `lengths` are the tokens kept of each text of each example."""
    g = spec.group_size
    kept, rows = [], [[] for _ in range(shape.rows)]
    owners: list[tuple[bool, int]] = []  # is it a passage, and its number
    for i, places in enumerate(place_texts(lengths, shape)):
        own = [texts.queries[i], *texts.passages[i * g : (i + 1) * g]]
        for j, (ids, row, limit) in enumerate(zip(own, places, lengths[i], strict=True)):
            rows[row].append(len(kept))
            kept.append(cut(ids, limit))
            owners.append((j > 0, i * g + j - 1 if j else i))
    batch, slots = rows_of_tokens(kept, rows, shape.width, pad_id=pad_id, segments=shape.segments)
    unpacked = padded(texts, spec, shape.most, pad_id)
    if isinstance(unpacked, TextBatch):
        return batch
    sides = []
    for passage, text_batch in ((False, unpacked.queries), (True, unpacked.passages)):
        mine = [(slot, owners[slot.text][1]) for slot in slots if owners[slot.text][0] == passage]
        sides.append(_text_and_token_index(mine, text_batch.token_ids.shape, shape, shard))
    (query_text_index, query_token_index), (passage_text_index, passage_token_index) = sides
    texts_of_rows = PackedTexts(
        batch, query_text_index, passage_text_index, query_token_index, passage_token_index
    )
    return unpacked._replace(packed=texts_of_rows)


def joined(batches: Sequence[Any]) -> Any:
    """The batches of several devices, one after another."""
    if batches[0] is None or len(batches) == 1:
        return batches[0]
    if isinstance(batches[0], tuple):
        return type(batches[0])(*map(joined, zip(*batches, strict=True)))
    return np.concatenate(batches)


def cut(token_ids: NDArray[np.int32], limit: int) -> NDArray[np.int32]:
    """At most `limit` tokens, the end of sentence kept."""
    if len(token_ids) <= limit:
        return token_ids
    return np.append(token_ids[: limit - 1], token_ids[-1])


def text_key(text: str) -> int:
    """31 bits of a hash: equal for equal texts in every process, rarely else.

    Two different texts among 1,000 share a key once in 4,000 batches; one negative is lost then.
    """
    return int_digest(text, size=4) & 0x7FFFFFFF


def _text_and_token_index(
    slots: list[tuple[Slot, int]], shape: tuple[int, ...], rows: Rows, shard: int
):
    """The index of each text and of each of its tokens in the flattened rows; -1 for padding."""
    above = shard * rows.rows
    text_index = np.full(shape[0], -1, np.int32)
    token_index = np.full(shape, -1, np.int32)
    for slot, number in slots:
        text_index[number] = (above + slot.row) * rows.segments + slot.segment
        length = min(slot.length, shape[1])
        first = (above + slot.row) * rows.width + slot.start
        token_index[number, :length] = np.arange(first, first + length)
    return text_index, token_index


def _one_a_row(
    token_ids: list[NDArray[np.int32]], width: int, height: int, pad_id: int
) -> TextBatch:
    short = [cut(ids, width) for ids in token_ids]
    rows = [[i] for i in range(len(short))]
    return rows_of_tokens(short, rows, width, pad_id=pad_id, height=height, segments=1)[0]
