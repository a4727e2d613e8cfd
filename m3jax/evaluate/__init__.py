"""Retrieval evaluation: tasks, runs, measures, reports, and the bridge to mteb.

The names below are imported when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3jax.evaluate.mteb import mteb_model

_HOMES = {"mteb_model": "mteb"}

__all__ = ["mteb_model"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"m3jax.evaluate.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'm3jax.evaluate' has no attribute {name!r}")
