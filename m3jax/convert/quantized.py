"""The small-model format: int8 matrices with one scale a row, everything else float16.

One safetensors file, a quarter of float32's size. A "row" is what one output of a matrix reads
(one word of the embedding, one unit of a layer): w ~ scale * q, scale = max |w| / 127. A position
table whose rows repeat (see `positions`) is stored once, with the place where it starts again.
Where asked, words take fewer bytes yet (see `product`); a table that was made so stays as it is.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from m3jax.convert import product
from m3jax.sharding import flatten

FILE = "model.int8.safetensors"
_SCALE = ".scale"
_BOOKS = ".books"  # beside the codes of `product`
_ROWS = ".rows"  # [3]: rows in all, the first that repeats, how many repeat


def write(directory: Path, params: dict, word_bytes: int | None = None) -> int:
    """Writes `params` to `directory`; returns the file's size in bytes.

    `word_bytes` for each word of the embedding, in place of one a number; ValueError where it does
    not divide the width.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, leaf in flatten(params).items():
        array = np.asarray(leaf, np.float32)
        if _name(path) == "position" and (again := _repeats(array)):
            tensors[path + _ROWS] = np.array([len(array), *again], np.int64)
            array = array[: sum(again)]
        if _name(path) == "word" and (coded := _product(array, word_bytes)):
            tensors[path], tensors[path + _BOOKS] = coded
            continue
        if not _is_matrix(path, array):
            tensors[path] = array.astype(np.float16)
            continue
        axis = _reduced_axis(path)
        scale = np.abs(array).max(axis=axis, keepdims=True) / 127
        # The stored scale is float16: dividing by it, and not by the exact one, keeps the error of
        # every weight within half a step. A row of zeros gets scale 1.
        scale = np.maximum(scale, np.finfo(np.float16).tiny).astype(np.float16)
        codes = np.rint(array / scale.astype(np.float32))
        tensors[path] = np.clip(codes, -127, 127).astype(np.int8)
        tensors[path + _SCALE] = scale
    save_file(tensors, directory / FILE, {"format": "m3jax-int8"})
    return (directory / FILE).stat().st_size


def read(directory: Path) -> dict[str, np.ndarray]:
    """{path: float32 array}; ValueError names a file that is not whole."""
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
                    places = first + np.arange(rows - first) % period
                    out[name] = out[name][np.concatenate([np.arange(first), places])]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read, is it complete? {error}") from error
    return out


def _product(table: np.ndarray, parts: int | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Codes and books, where asked for or where they are the table exactly."""
    if parts:
        return product.fit(table, parts)
    found = product.parts_of(table)
    coded = product.fit(table, found) if found else None
    return coded if coded and np.array_equal(product.decode(*coded), table) else None


def _repeats(table: np.ndarray) -> tuple[int, int] | None:
    """(first, period) where all rows from `first` on repeat with the period; None: they do not.

    The first rows, which stand for no position, do not repeat.
    """
    for first in range(min(4, len(table) - 1)):
        again = np.flatnonzero((table[first + 1 :] == table[first]).all(axis=1)) + 1
        if len(again) and (table[first : -again[0]] == table[first + again[0] :]).all():
            return first, int(again[0])
    return None


def _is_matrix(path: str, array: np.ndarray) -> bool:
    """Heads stay float16: they are small and every score passes through them."""
    return (
        array.ndim >= 2
        and not path.startswith("heads/")
        and _name(path)
        in (
            "kernel",
            "word",
            "position",
        )
    )


def _reduced_axis(path: str) -> int:
    """The axis of the inputs: kernels are [..., in, out], embeddings [row, width]."""
    return -2 if _name(path) == "kernel" else -1


def _name(path: str) -> str:
    return path.rpartition("/")[2]
