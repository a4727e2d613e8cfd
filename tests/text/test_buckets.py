"""The ladder of bucket lengths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3jax.text.buckets import bucket_ladder, bucket_of


@given(st.integers(1, 9000))
def test_ladder_increases_and_wastes_at_most_a_fifth(max_length):
    ladder = bucket_ladder(max_length)
    assert ladder[-1] == max_length and list(ladder) == sorted(set(ladder))
    for below, bucket in zip(ladder, ladder[1:], strict=False):
        if below >= 64:
            assert (bucket - below) / bucket <= 0.2 + 1e-9


def test_ladder_for_8192_tokens_is_short():
    assert len(bucket_ladder(8192)) == 32
    with pytest.raises(ValueError, match="longer than the last bucket"):
        bucket_of(65, (32, 64))
