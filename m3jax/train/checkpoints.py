"""Checkpoints of a run: written asynchronously, verified when restored.

Orbax writes a checkpoint under a temporary name and renames it when complete. For every complete
checkpoint, a file in `seals/` stores the digests of its files. A checkpoint that does not match its
digests is moved to `damaged/`, and the previous one is restored.
"""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from m3jax.io.atomic import write_json
from m3jax.io.hashing import file_digests

log = logging.getLogger(__name__)

_SHAPES = "_shapes"


class _Mismatch(ValueError):
    """The checkpoint belongs to a different model or optimizer."""


class Checkpoints:
    """The checkpoints of one run under `directory`; the newest `keep` are kept."""

    def __init__(self, directory: Path, keep: int):
        self._steps = directory.absolute() / "checkpoints"
        self._seals = directory.absolute() / "seals"
        self._damaged = directory.absolute() / "damaged"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._seals.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(self._steps, options=options)

    def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Starts writing a checkpoint in the background, after the previous one is complete."""
        self.finish()
        named = _named(state)
        if jax.default_backend() == "cpu":
            # On CPU Orbax reads the arrays in place, while the next step overwrites them (they are
            # donated).
            named = jax.tree.map(jnp.copy, named)
        metadata = metadata | {_SHAPES: _shapes(named)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(named), metadata=ocp.args.JsonSave(metadata)
            ),
        )

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """(state, metadata) of the newest intact checkpoint, with the shardings of `like`.

        None if there are no checkpoints. Damaged checkpoints are moved to `damaged/` with a
        warning. Raises ValueError if the newest intact checkpoint belongs to a different model or
        optimizer, or if all are damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            fault = self._fault(step)
            if fault is None:
                try:
                    return self._read(step, like)
                except _Mismatch:
                    raise
                except Exception as error:  # whatever the storage layers raise
                    if step in self._sealed():
                        raise ValueError(
                            f"{self._steps / str(step)} is intact but belongs to a different model "
                            f"or optimizer: {error}"
                        ) from error
                    fault = f"{type(error).__name__}: {error}"
            log.warning("checkpoint %s is damaged and moved to %s: %s", step, self._damaged, fault)
            self._move_damaged(step)
        if steps:
            raise ValueError(
                f"all checkpoints under {self._steps} are damaged and were moved to "
                f"{self._damaged}. Start again in another --workdir"
            )
        return None

    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def finish(self) -> None:
        """Waits for pending writes and stores the digests of new checkpoints."""
        self._manager.wait_until_finished()
        if jax.process_index():
            return
        present = set(self._manager.all_steps())
        for step in self._sealed() - present:
            (self._seals / f"{step}.json").unlink()
        for step in present - self._sealed():
            digests = _digests(self._steps / str(step))
            write_json(self._seals / f"{step}.json", digests, indent=1, sort_keys=True)

    def close(self) -> None:
        """Waits for pending writes and closes the manager."""
        self.finish()
        self._manager.close()

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        shapes = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for name, leaf in _named(like).items()
        }
        metadata = self._restore(step, metadata=ocp.args.JsonRestore())["metadata"]
        # Compared first: a restore that fails leaves pending reads of arrays behind.
        stored, expected = metadata.pop(_SHAPES), _shapes(shapes)
        for name in sorted(stored.keys() | expected.keys()):
            if stored.get(name) != expected.get(name):
                raise _Mismatch(
                    f"{self._steps / str(step)} belongs to a different model or optimizer: {name} "
                    f"has shape {stored.get(name)} in it, {expected.get(name)} in this run"
                )
        restored = self._restore(step, state=ocp.args.StandardRestore(shapes))["state"]
        leaves = [restored[name] for name in shapes]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), metadata

    def _restore(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _sealed(self) -> set[int]:
        return {int(path.stem) for path in self._seals.glob("*.json")}

    def _fault(self, step: int) -> str | None:
        """A description of the first file that differs from its digest, or None.

        Also None without stored digests: the run was killed before it wrote them.
        """
        seal = self._seals / f"{step}.json"
        if not seal.is_file():
            return None
        expected = json.loads(seal.read_text(encoding="utf-8"))
        actual = _digests(self._steps / str(step))
        different = sorted(
            name
            for name in expected.keys() | actual.keys()
            if expected.get(name) != actual.get(name)
        )
        return f"{different[0]} has changed since it was written" if different else None

    def _move_damaged(self, step: int) -> None:
        if jax.process_index() == 0:
            self._damaged.mkdir(exist_ok=True)
            shutil.rmtree(self._damaged / str(step), ignore_errors=True)
            os.replace(self._steps / str(step), self._damaged / str(step))
            (self._seals / f"{step}.json").unlink(missing_ok=True)
        self._manager.reload()


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path as text, so that restoring does not depend on the classes of the tree."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _shapes(named: dict[str, Any]) -> dict[str, list[int]]:
    return {name: list(leaf.shape) for name, leaf in named.items()}


def _digests(directory: Path) -> dict[str, str]:
    return {name: digest for name, (_, digest) in file_digests(directory, "**/*").items()}
