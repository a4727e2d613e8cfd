"""Batch plans, positions and segments."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import LENGTHS

from m3jax.text.batches import plan_padded, position_rows, rows_of_tokens
from m3jax.text.buckets import bucket_ladder
from m3jax.text.packing import pack_texts


def test_positions_skip_padding_tokens_as_xlm_roberta_does():
    assert position_rows(np.array([0, 9, 1, 9, 2]), 1).tolist() == [2, 3, 1, 4, 5]


@given(LENGTHS, st.integers(1, 4), st.one_of(st.none(), st.integers(1, 9)))
def test_a_plan_holds_every_text_once_and_fits(lengths, multiple, rows_per_batch):
    ladder = bucket_ladder(300)
    plan = list(
        plan_padded(lengths, ladder, 600, rows_per_batch=rows_per_batch, row_multiple=multiple)
    )
    assert sorted(t for _, _, rows in plan for (t,) in rows) == list(range(len(lengths)))
    for bucket, height, rows in plan:
        assert bucket in ladder and len(rows) <= height and height % multiple == 0
        assert all(lengths[t] <= bucket for (t,) in rows)
        assert len(rows) == 1 or bucket == 16 or min(lengths[t] for (t,) in rows) >= 0.75 * bucket


@settings(max_examples=50)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=20))
def test_layout_restarts_positions_and_numbers_segments(lengths):
    tokens = [np.arange(4, 4 + length, dtype=np.int32) for length in lengths]
    batch, slots = rows_of_tokens(tokens, pack_texts(lengths, 40), 40, pad_id=1)
    for slot in slots:
        here = (slot.row, slice(slot.start, slot.start + slot.length))
        assert batch.token_ids[here].tolist() == tokens[slot.text].tolist()
        assert batch.positions[here].tolist() == list(range(2, 2 + slot.length))
        assert set(batch.segment_ids[here].tolist()) == {slot.segment + 1}
        assert batch.is_cls[here].tolist() == [True] + [False] * (slot.length - 1)
        assert batch.lengths[slot.row, slot.segment] == slot.length
    assert (batch.segment_ids > 0).sum() == sum(lengths)
    assert (batch.token_ids[batch.segment_ids == 0] == 1).all()
