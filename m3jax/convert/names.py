"""THE table: every parameter's path here and its name in the PyTorch checkpoint, both ways.

Strict both ways: an unknown name, a missing one or another shape is an error that names it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from m3jax.config import M3Config
from m3jax.model.m3 import abstract_params
from m3jax.sharding import flatten

COLBERT_FILE, SPARSE_FILE = "colbert_linear.pt", "sparse_linear.pt"


class Row(NamedTuple):
    """One parameter. `torch` holds `{}` where the layer's number goes."""

    path: str
    torch: str
    transpose: bool = False


def _linear(path: str, torch: str) -> tuple[Row, Row]:
    """PyTorch keeps a linear map as [out, in], Flax as [in, out]."""
    return Row(f"{path}/kernel", f"{torch}.weight", True), Row(f"{path}/bias", f"{torch}.bias")


def _norm(path: str, torch: str) -> tuple[Row, Row]:
    return Row(f"{path}/scale", f"{torch}.weight"), Row(f"{path}/bias", f"{torch}.bias")


_LAYER, _TORCH_LAYER = "encoder/layers", "encoder.layer.{}"
ENCODER_ROWS: tuple[Row, ...] = (
    Row("encoder/embeddings/word", "embeddings.word_embeddings.weight"),
    Row("encoder/embeddings/position", "embeddings.position_embeddings.weight"),
    Row("encoder/embeddings/token_type", "embeddings.token_type_embeddings.weight"),
    *_norm("encoder/embeddings/norm", "embeddings.LayerNorm"),
    *_linear(f"{_LAYER}/query", f"{_TORCH_LAYER}.attention.self.query"),
    *_linear(f"{_LAYER}/key", f"{_TORCH_LAYER}.attention.self.key"),
    *_linear(f"{_LAYER}/value", f"{_TORCH_LAYER}.attention.self.value"),
    *_linear(f"{_LAYER}/output", f"{_TORCH_LAYER}.attention.output.dense"),
    *_norm(f"{_LAYER}/output_norm", f"{_TORCH_LAYER}.attention.output.LayerNorm"),
    *_linear(f"{_LAYER}/up", f"{_TORCH_LAYER}.intermediate.dense"),
    *_linear(f"{_LAYER}/down", f"{_TORCH_LAYER}.output.dense"),
    *_norm(f"{_LAYER}/down_norm", f"{_TORCH_LAYER}.output.LayerNorm"),
)
# The heads live in files of their own; their names here carry the file.
HEAD_ROWS: tuple[Row, ...] = (
    *_linear("heads/colbert", "colbert_linear"),
    *_linear("heads/sparse", "sparse_linear"),
)
# Parts of a PyTorch checkpoint that the M3 model does not have: the pooler, the masked-language
# head, and a buffer that old releases of transformers stored.
UNUSED = ("pooler.", "lm_head.", "embeddings.position_ids", "classifier.", "qa_outputs.")
PREFIX = "roberta."  # of XLMRobertaForMaskedLM and its kin


class Source(NamedTuple):
    """A PyTorch checkpoint read tensor by tensor."""

    names: Iterable[str]
    read: Callable[[str], np.ndarray]
    origin: str  # for error messages


def from_torch(
    source: Source, config: M3Config, rows: tuple[Row, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (path, float32 array) for each row, layers stacked; one leaf in memory at a time.

    Raises KeyError for a name that is missing or unknown, ValueError for a wrong shape.
    """
    shapes = {path: leaf.shape for path, leaf in flatten(abstract_params(config)).items()}
    stored = {name.removeprefix(PREFIX): name for name in source.names}
    layers = config.encoder.layers
    wanted = {row.torch.format(i) for row in rows for i in range(layers)}
    missing = sorted(wanted - set(stored))
    if missing:
        raise KeyError(f"{source.origin} lacks {missing[0]} and {len(missing) - 1} more tensors")
    extra = sorted(n for n in set(stored) - wanted if not n.startswith(UNUSED))
    if extra:
        raise KeyError(
            f"{source.origin} holds {extra[0]} and {len(extra) - 1} more tensors that an "
            f"XLM-RoBERTa of {layers} layers does not have"
        )
    for row in rows:
        stacked = "{}" in row.torch
        numbers = range(layers) if stacked else range(1)
        shape = shapes[row.path][1:] if stacked else shapes[row.path]
        leaf = np.empty((len(numbers), *shape), np.float32)
        for i in numbers:
            name = row.torch.format(i)
            tensor = source.read(stored[name])
            tensor = tensor.T if row.transpose else tensor
            if tensor.shape != shape:
                raise ValueError(
                    f"{source.origin}: {name} has shape {_torch_shape(tensor.shape, row)}, "
                    f"expected {_torch_shape(shape, row)}"
                )
            leaf[i] = tensor
        yield row.path, leaf if stacked else leaf[0]


def to_torch(params: dict, rows: tuple[Row, ...], layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (PyTorch name, float32 array) for each row and layer: the inverse of `from_torch`."""
    flat = flatten(params)
    for row in rows:
        leaf = np.asarray(flat[row.path])
        pieces = [leaf[i] for i in range(layers)] if "{}" in row.torch else [leaf]
        for i, piece in enumerate(pieces):
            yield row.torch.format(i), np.ascontiguousarray(piece.T if row.transpose else piece)


def _torch_shape(shape: tuple[int, ...], row: Row) -> tuple[int, ...]:
    return shape[::-1] if row.transpose else shape
