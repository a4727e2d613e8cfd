"""Hashes of texts in the pool of passages."""

from m3jax.mine.pool import text_hash


def test_hashes_ignore_case_and_white_space():
    assert text_hash(" Ｆｏｘ\n  den ") == text_hash("fox DEN") != text_hash("fox dens")
