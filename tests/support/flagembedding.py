"""The Python that has FlagEmbedding."""

import os

import pytest


def flag_python() -> str:
    """The Python that has FlagEmbedding; skips where none is named."""
    python = os.environ.get("M3JAX_FLAGEMBEDDING_PYTHON")
    if not python:
        pytest.skip("M3JAX_FLAGEMBEDDING_PYTHON is not set: it names a Python with FlagEmbedding")
    return python
