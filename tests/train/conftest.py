"""The tiny model on one device, for the tests of training."""

import jax
import pytest

from m3jax import pretrained, sharding


@pytest.fixture(scope="session")
def model(tiny_dir) -> pretrained.Pretrained:
    """The tiny model on the first device."""
    return pretrained.load(tiny_dir, mesh=sharding.make_mesh(devices=jax.devices()[:1]))
