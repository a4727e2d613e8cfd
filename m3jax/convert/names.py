"""Parameters from a PyTorch checkpoint and back, by the table of the encoder's family.

An unknown name, a missing one or another shape is an error that names the tensor.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from m3jax.config import M3Config
from m3jax.model.families import family_of
from m3jax.model.parameters import Parameter
from m3jax.sharding import flatten

COLBERT_FILE, SPARSE_FILE = "colbert_linear.pt", "sparse_linear.pt"


class TorchCheckpoint(NamedTuple):
    """A PyTorch checkpoint that is read tensor by tensor."""

    names: Iterable[str]
    read: Callable[[str], np.ndarray]
    origin: str  # for error messages


def from_torch(
    source: TorchCheckpoint, config: M3Config, rows: tuple[Parameter, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (path, float32 array) for each row, layers stacked; one array in memory at a time.

    Raises KeyError for a name that is missing or unknown, ValueError for a wrong shape.
    """
    family, layers = family_of(config.encoder), config.encoder.layers
    stored = {name.removeprefix(family.torch_prefix): name for name in source.names}
    expected = {name for row in rows for name in _torch_names(row, layers)}
    missing = sorted(expected - set(stored))
    if missing:
        raise KeyError(f"{source.origin} lacks {missing[0]} and {len(missing) - 1} more tensors")
    extra = sorted(n for n in set(stored) - expected if not n.startswith(family.torch_unused))
    if extra:
        raise KeyError(
            f"{source.origin} holds {extra[0]} and {len(extra) - 1} more tensors that "
            f"{family.name} of {layers} layers does not have"
        )
    for row in rows:
        names, shape = _torch_names(row, layers), row.shape(config)
        leaf = np.empty(shape, np.float32)
        slices = leaf if row.stacked else leaf[None]
        for name, out in zip(names, slices, strict=True):
            tensor = source.read(stored[name])
            tensor = tensor.T if row.transpose else tensor
            if tensor.shape != out.shape:
                raise ValueError(
                    f"{source.origin}: {name} has shape {_torch_shape(tensor.shape, row)}, "
                    f"expected {_torch_shape(out.shape, row)}"
                )
            out[...] = tensor
        yield row.path, leaf


def to_torch(
    params: dict, rows: tuple[Parameter, ...], layers: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (PyTorch name, float32 array) for each row and layer: the inverse of `from_torch`."""
    flat = flatten(params)
    for row in rows:
        leaf = np.asarray(flat[row.path])
        slices = leaf if row.stacked else leaf[None]
        for name, tensor in zip(_torch_names(row, layers), slices, strict=True):
            yield name, np.ascontiguousarray(tensor.T if row.transpose else tensor)


def _torch_names(row: Parameter, layers: int) -> list[str]:
    """The tensors of a parameter in PyTorch: one of each layer for a stack."""
    assert row.torch is not None
    return [row.torch.format(i) for i in range(layers if row.stacked else 1)]


def _torch_shape(shape: tuple[int, ...], row: Parameter) -> tuple[int, ...]:
    return shape[::-1] if row.transpose else shape
