"""The int8 format: matrices in int8 with one float16 scale per row, other parameters in float16.

One safetensors file of a quarter of the size in float32. A "row" has the weights of one output of a
matrix, or one row of an embedding: w ~ scale * q, scale = max |w| / 127. Of a position table with
periodic rows (see `positions`) one period is stored. The word embedding is product-quantised (see
`product`) if `word_bytes` is given, or if it is exactly a product-quantised table already.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m3jax.convert import product
from m3jax.sharding import flatten

FILE = "model.int8.safetensors"
_SCALE = ".scale"
_BOOKS = ".books"  # the codebooks of product-quantised words
_ROWS = ".rows"  # [3]: all rows, the first row of the period, its length


def write(directory: Path, params: dict, word_bytes: int | None = None) -> int:
    """Writes `params` to `directory`; returns the size of the file in bytes.

    With `word_bytes` a row of the word embedding is stored in so many bytes; ValueError if this
    does not divide the width.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, leaf in flatten(params).items():
        array = np.asarray(leaf, np.float32)
        if _name(path) == "position" and (period := _period(array)):
            tensors[path + _ROWS] = np.array([len(array), *period], np.int64)
            array = array[: sum(period)]
        if _name(path) == "word" and (coded := _product(array, word_bytes)):
            tensors[path], tensors[path + _BOOKS] = coded
            continue
        if not _is_matrix(path, array):
            tensors[path] = array.astype(np.float16)
            continue
        axis = _reduced_axis(path)
        scale = np.abs(array).max(axis=axis, keepdims=True) / 127
        # Dividing by the stored float16 scale, not the exact one, keeps the error of each weight
        # within half a step. The lower bound avoids a division by 0 in a row of zeros.
        scale = np.maximum(scale, np.finfo(np.float16).tiny).astype(np.float16)
        codes = np.rint(array / scale.astype(np.float32))
        tensors[path] = np.clip(codes, -127, 127).astype(np.int8)
        tensors[path + _SCALE] = scale
    save_file(tensors, directory / FILE, {"format": "m3jax-int8"})
    return (directory / FILE).stat().st_size


def read(directory: Path) -> dict[str, np.ndarray]:
    """{path: float32 array}; ValueError names an incomplete file."""
    path = directory / FILE
    out = {}
    try:
        with safe_open(str(path), framework="np") as handle:
            names = set(handle.keys())
            for name in sorted(names):
                if name.endswith((_SCALE, _ROWS, _BOOKS)):
                    continue
                if name + _BOOKS in names:
                    books = handle.get_tensor(name + _BOOKS)
                    out[name] = product.decode(handle.get_tensor(name), books)
                    continue
                out[name] = handle.get_tensor(name).astype(np.float32)
                if name + _SCALE in names:
                    out[name] *= handle.get_tensor(name + _SCALE).astype(np.float32)
                if name + _ROWS in names:
                    rows, first, period = handle.get_tensor(name + _ROWS).tolist()
                    repeated = first + np.arange(rows - first) % period
                    out[name] = out[name][np.concatenate([np.arange(first), repeated])]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read, is it complete? {error}") from error
    return out


def _product(table: np.ndarray, parts: int | None) -> tuple[np.ndarray, np.ndarray] | None:
    """(codes, codebooks) in `parts` bytes a row; if None, only where they are exact."""
    if parts:
        return product.fit(table, parts)
    parts = product.parts_of(table)
    coded = product.fit(table, parts) if parts else None
    return coded if coded and np.array_equal(product.decode(*coded), table) else None


def _period(table: np.ndarray) -> tuple[int, int] | None:
    """(first, period) if the rows from `first` on are periodic, else None.

    The first rows, which belong to no position, are not part of the period.
    """
    for first in range(min(4, len(table) - 1)):
        equal = np.flatnonzero((table[first + 1 :] == table[first]).all(axis=1)) + 1
        if len(equal) and (table[first : -equal[0]] == table[first + equal[0] :]).all():
            return first, int(equal[0])
    return None


def _is_matrix(path: str, array: np.ndarray) -> bool:
    """Whether to store int8. Heads stay in float16: they are small and affect every score."""
    is_matrix = array.ndim >= 2 and _name(path) in ("kernel", "word", "position")
    return is_matrix and not path.startswith("heads/")


def _reduced_axis(path: str) -> int:
    """The axis of the inputs: kernels are [..., in, out], embeddings [rows, width]."""
    return -2 if _name(path) == "kernel" else -1


def _name(path: str) -> str:
    return path.rpartition("/")[2]
