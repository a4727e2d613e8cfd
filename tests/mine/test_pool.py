"""Keys of texts in the pool of passages."""

from m3jax.mine.pool import key_of


def test_keys_of_equal_texts():
    assert key_of(" Ｆｏｘ\n  den ") == key_of("fox DEN") != key_of("fox dens")
