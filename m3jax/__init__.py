"""M3-Embedding (BGE-M3, arXiv 2402.03216) in JAX/Flax: dense, sparse and multi-vector at once.

>>> from m3jax import M3Embedder
>>> model = M3Embedder.from_pretrained("BAAI/bge-m3")  # doctest: +SKIP
>>> out = model.encode(["Hello", "Bonjour"], return_sparse=True)  # doctest: +SKIP

The names below are imported when first used, so that `import m3jax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from m3jax.config import ComputeConfig, EncoderConfig, M3Config
    from m3jax.embed.embedder import M3Embedder
    from m3jax.embed.embeddings import Embeddings, Ragged
    from m3jax.embed.flag import BGEM3FlagModel
    from m3jax.model.m3 import M3
    from m3jax.pretrained import Pretrained
    from m3jax.types import Encoding, TextBatch

# Public name -> where it lives, in the order of the data.
_HOMES = {
    "TextBatch": "types",
    "Encoding": "types",
    "EncoderConfig": "config",
    "M3Config": "config",
    "ComputeConfig": "config",
    "M3": "model.m3",
    "Pretrained": "pretrained",
    "M3Embedder": "embed.embedder",
    "BGEM3FlagModel": "embed.flag",
    "Embeddings": "embed.embeddings",
    "Ragged": "embed.embeddings",
}

__all__ = [
    "TextBatch",
    "Encoding",
    "EncoderConfig",
    "M3Config",
    "ComputeConfig",
    "M3",
    "Pretrained",
    "M3Embedder",
    "BGEM3FlagModel",
    "Embeddings",
    "Ragged",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"m3jax.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'm3jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
