"""From tokenized examples to the arrays of a training batch, padded or packed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from m3jax.io.hashing import int_digest
from m3jax.text.batches import Slot, rows_of_tokens
from m3jax.text.packing import PackShape, place_texts
from m3jax.types import PackedTexts, Targets, TextBatch, TrainBatch

TokenIds = Int32[np.ndarray, "_"]


class BatchShape(NamedTuple):
    """The shape of a batch, the same in every process. Each distinct shape is compiled once."""

    group: int  # length group
    queries: int  # queries per process, padding included
    group_size: int  # g: passages per query; 0 for plain texts
    has_scores: bool  # has teacher scores
    query_width: int  # tokens of a row of queries
    passage_width: int


class TokenizedExamples(NamedTuple):
    """Examples of a batch: their queries, and the passages of each, one group after another."""

    queries: list[TokenIds]
    passages: list[TokenIds]
    in_batch: list[bool]  # per query
    passage_keys: list[int]  # per passage, see `text_key`
    teacher_scores: list[list[float]]  # per query; empty without teacher scores


def padded_batch(
    examples: TokenizedExamples, shape: BatchShape, queries: int, pad_id: int
) -> TrainBatch | TextBatch:
    """A batch with one text per row and `queries` queries; missing examples become padding."""
    query_batch = _padded_rows(examples.queries, shape.query_width, queries, pad_id)
    if not shape.group_size:
        return query_batch
    num_passages = queries * shape.group_size
    passages = _padded_rows(examples.passages, shape.passage_width, num_passages, pad_id)
    count = len(examples.queries)
    in_batch, is_real = np.ones(queries, bool), np.zeros(queries, bool)
    in_batch[:count] = examples.in_batch
    is_real[:count] = True
    keys = np.full(num_passages, -1, np.int32)
    keys[: len(examples.passage_keys)] = examples.passage_keys
    teacher = None
    if shape.has_scores:
        teacher = np.zeros((queries, shape.group_size), np.float32)
        scores = np.asarray(examples.teacher_scores, np.float32)
        teacher[:count] = scores.reshape(count, shape.group_size)
    return TrainBatch(query_batch, passages, Targets(in_batch, keys, teacher, is_real))


def packed_batch(
    examples: TokenizedExamples,
    lengths: list[list[int]],
    shape: BatchShape,
    pack_shape: PackShape,
    shard: int,
    pad_id: int,
) -> TrainBatch | TextBatch:
    """The packed rows of shard number `shard`, several texts per row.

    `lengths` gives the tokens kept of each text of each example, the query first.
    """
    g = shape.group_size
    kept, rows = [], [[] for _ in range(pack_shape.num_rows)]
    owners: list[tuple[bool, int]] = []  # per text: (is it a passage, its number)
    for i, row_of_text in enumerate(place_texts(lengths, pack_shape)):
        texts = [examples.queries[i], *examples.passages[i * g : (i + 1) * g]]
        for j, (ids, row, limit) in enumerate(zip(texts, row_of_text, lengths[i], strict=True)):
            rows[row].append(len(kept))
            kept.append(truncate(ids, limit))
            owners.append((j > 0, i * g + j - 1 if j else i))
    batch, slots = rows_of_tokens(
        kept, rows, pack_shape.width, pad_id=pad_id, segments=pack_shape.max_texts
    )
    unpacked = padded_batch(examples, shape, pack_shape.max_examples, pad_id)
    if isinstance(unpacked, TextBatch):
        return batch
    sides = []
    for is_passage, text_batch in ((False, unpacked.queries), (True, unpacked.passages)):
        selected = [(s, owners[s.text][1]) for s in slots if owners[s.text][0] == is_passage]
        sides.append(_text_and_token_index(selected, text_batch.token_ids.shape, pack_shape, shard))
    (query_text_index, query_token_index), (passage_text_index, passage_token_index) = sides
    packed = PackedTexts(
        batch, query_text_index, passage_text_index, query_token_index, passage_token_index
    )
    return unpacked._replace(packed=packed)


def concatenate(batches: Sequence[Any]) -> Any:
    """Concatenates the batches of several shards, array by array."""
    if batches[0] is None or len(batches) == 1:
        return batches[0]
    if isinstance(batches[0], tuple):
        return type(batches[0])(*map(concatenate, zip(*batches, strict=True)))
    return np.concatenate(batches)


def truncate(token_ids: TokenIds, limit: int) -> TokenIds:
    """`token_ids` cut to `limit` tokens, the last of which is its end-of-sentence token."""
    if len(token_ids) <= limit:
        return token_ids
    return np.append(token_ids[: limit - 1], token_ids[-1])


def text_key(text: str) -> int:
    """A 31-bit hash of a text, the same in every process.

    Among 1,000 distinct texts, two share a key in one batch of 4,000; one negative is lost then.
    """
    return int_digest(text, size=4) & 0x7FFFFFFF


def _text_and_token_index(
    slots: list[tuple[Slot, int]], shape: tuple[int, ...], pack_shape: PackShape, shard: int
) -> tuple[Int32[np.ndarray, " texts"], Int32[np.ndarray, "texts width"]]:
    """Positions of each text and of each of its tokens in the flattened packed rows, -1 if absent.

    `slots` holds (slot, number of the text); `shape` is (number of texts, tokens per text).
    """
    first_row = shard * pack_shape.num_rows
    text_index = np.full(shape[0], -1, np.int32)
    token_index = np.full(shape, -1, np.int32)
    for slot, number in slots:
        row = first_row + slot.row
        text_index[number] = row * pack_shape.max_texts + slot.segment
        length = min(slot.length, shape[1])
        first = row * pack_shape.width + slot.start
        token_index[number, :length] = np.arange(first, first + length)
    return text_index, token_index


def _padded_rows(token_ids: list[TokenIds], width: int, num_rows: int, pad_id: int) -> TextBatch:
    """One text per row, truncated at `width` tokens, and rows of padding up to `num_rows`."""
    truncated = [truncate(ids, width) for ids in token_ids]
    rows = [[i] for i in range(len(truncated))]
    return rows_of_tokens(truncated, rows, width, pad_id=pad_id, num_rows=num_rows, segments=1)[0]
