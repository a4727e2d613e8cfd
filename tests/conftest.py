"""The strictest settings JAX has, and models small enough to compare with PyTorch in seconds."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from support.tiny import write_tiny_model

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory) -> Path:
    """A random Hugging Face directory with both heads and a real, small tokenizer."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(directory)
    return directory


@pytest.fixture(scope="session")
def model(tiny_dir):
    """The parameters, config and tokenizer of that directory, on every device."""
    from m3jax import pretrained

    return pretrained.load(tiny_dir)


@pytest.fixture(scope="session")
def tiny(tiny_dir):
    """An M3Embedder of that directory."""
    from m3jax import M3Embedder

    return M3Embedder.from_pretrained(tiny_dir)


@pytest.fixture(scope="session")
def backbone_dir() -> Path:
    """The real pretrained encoder that M3JAX_TEST_BACKBONE names."""
    return _directory("M3JAX_TEST_BACKBONE")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with train/ and eval/ that M3JAX_TEST_DATA names."""
    return _directory("M3JAX_TEST_DATA")


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """JAX's default dtype promotion: optax adds Python numbers to integer arrays."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def encoded(monkeypatch):
    """Counts the texts that any model encodes."""
    from m3jax.embed.encode import TextEncoder

    texts = []
    original = TextEncoder.encode

    def counting(self, sentences, *args, **kwargs):
        sentences = list(sentences)
        texts.extend(sentences)
        return original(self, sentences, *args, **kwargs)

    monkeypatch.setattr(TextEncoder, "encode", counting)
    return texts


def _directory(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names a folder of real data this test reads")
    if not Path(value).is_dir():
        pytest.fail(f"{variable} names {value}, which is not a directory")
    return Path(value)
