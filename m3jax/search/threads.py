"""A thread pool for functions that release the interpreter's lock."""

import concurrent.futures
import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")


def have_numba() -> bool:
    """True where Numba, of the extra `search`, is installed."""
    return importlib.util.find_spec("numba") is not None


def cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(function: Callable[[Item], Any], items: Sequence[Item]) -> list[Any]:
    """[function(item) for each item], on all cores; `function` must not call `parallel_map`."""
    if len(items) < 2 or cores() < 2:
        return [function(item) for item in items]
    return list(_pool().map(function, items))


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(cores(), "m3jax-search")
