"""Packing: every text in one row, rows filled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import LENGTHS

from m3jax.text.packing import pack_texts


@given(LENGTHS, st.integers(300, 700), st.one_of(st.none(), st.integers(1, 4)))
def test_packing_holds_every_text_once_and_fits(lengths, width, most):
    rows = pack_texts(lengths, width, most)
    assert sorted(t for row in rows for t in row) == list(range(len(lengths)))
    assert all(sum(lengths[t] for t in row) <= width for row in rows)
    assert most is None or all(len(row) <= most for row in rows)


def test_packing_fills_rows():
    lengths = np.random.default_rng(0).integers(2, 200, 2000).tolist()
    rows = pack_texts(lengths, 512)
    assert sum(lengths) / (512 * len(rows)) > 0.99
    with pytest.raises(ValueError, match="text 0 has 513 tokens"):
        pack_texts([513], 512)
