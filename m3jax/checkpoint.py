"""A tree of arrays, stored by Orbax, and a JSON document in one directory.

Independent of the model. Arrays can be read on another number of devices than they were written
from; each device reads its shards.
"""

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from m3jax.io.atomic import write_json

METADATA = "m3jax.json"
ARRAYS = "params"
VERSION = 1


def save_arrays(directory: Path, tree: Any) -> None:
    """Writes the arrays of `tree` to `directory/params`, from this process only."""
    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # every process has all arrays; the others do not wait
        only = jax.process_index()
        options = ocp.options.MultiprocessingOptions(
            primary_host=only, active_processes={only}, barrier_sync_key_prefix="save_arrays"
        )
    with ocp.StandardCheckpointer(multiprocessing_options=options) as checkpointer:
        checkpointer.save((directory / ARRAYS).absolute(), tree)


def load_arrays(directory: Path, like: Any) -> Any:
    """Reads the arrays; `like` is a tree of jax.ShapeDtypeStruct with their shardings.

    Raises FileNotFoundError or ValueError, naming the directory, if the arrays are missing,
    unreadable or of other shapes.
    """
    path = (directory / ARRAYS).absolute()
    if not path.is_dir():
        raise FileNotFoundError(
            f"{directory} has no {ARRAYS}/ directory: not a complete checkpoint"
        )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            # Checked before the restore, which would leave reads running if it failed half-way.
            stored = _shapes(checkpointer.metadata(path).item_metadata.tree)
            expected = _shapes(like)
            if stored != expected:
                names = stored.keys() | expected.keys()
                name = min(n for n in names if stored.get(n) != expected.get(n))
                raise ValueError(f"{name} is {stored.get(name)}, expected {expected.get(name)}")
            return checkpointer.restore(path, like)
    except (ValueError, KeyError, OSError, AttributeError, jax.errors.JaxRuntimeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda node: hasattr(node, "shape"))
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def write_metadata(directory: Path, values: dict[str, Any]) -> None:
    """Writes the JSON document that describes the arrays."""
    values = {"format": "m3jax", "version": VERSION, **values}
    write_json(directory / METADATA, values, indent=2, sort_keys=True)


def read_metadata(directory: Path) -> dict[str, Any]:
    """Reads the JSON document; ValueError for another format or a newer version."""
    path = Path(directory) / METADATA
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if values.get("format") != "m3jax" or values.get("version", 0) > VERSION:
        raise ValueError(
            f"{path} is of format {values.get('format')!r} version {values.get('version')!r}; "
            f"this release reads 'm3jax' up to version {VERSION}"
        )
    return values
