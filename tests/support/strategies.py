"""Hypothesis strategies."""

from hypothesis import strategies as st

LENGTHS = st.lists(st.integers(2, 300), max_size=60)
