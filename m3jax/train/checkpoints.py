"""Checkpoints of a run: written beside the training, checked before they are trusted.

Orbax writes each under another name and renames it when it is whole. Every finished one is then
sealed with a digest of each of its files, so that damage of any kind is seen and the one before is
used.
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


class _Other(ValueError):
    """A checkpoint of another model or optimiser."""


class Checkpoints:
    """The checkpoints of one run, under `directory`."""

    def __init__(self, directory: Path, keep: int):
        self._steps = directory.absolute() / "checkpoints"
        self._seals = directory.absolute() / "seals"
        self._damaged = directory.absolute() / "damaged"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._seals.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(self._steps, options=options)

    def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Begins to write; training goes on. Waits for the one before, and seals it."""
        self.finish()
        named = _named(state)
        if jax.default_backend() == "cpu":
            # There Orbax writes from the arrays' own memory, which the next step, to which they
            # are donated, would overwrite.
            named = jax.tree.map(jnp.copy, named)
        metadata = metadata | {_SHAPES: _shapes(named)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(named), metadata=ocp.args.JsonSave(metadata)
            ),
        )

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest whole checkpoint, on the shardings of `like`; None where there is none.

        A damaged one is named in the log and put aside. Raises ValueError where the newest whole
        one belongs to another model, or where all are damaged.
        """
        found = sorted(self._manager.all_steps(), reverse=True)
        for step in found:
            fault = self._fault(step)
            if fault is None:
                try:
                    return self._read(step, like)
                except _Other:
                    raise
                except Exception as error:  # whatever the storage layers raise
                    if step in self._sealed():
                        raise ValueError(
                            f"{self._steps / str(step)} is whole but of another model or "
                            f"optimiser: {error}"
                        ) from error
                    fault = f"{type(error).__name__}: {error}"
            log.warning("checkpoint %s is damaged and is put aside: %s", step, fault)
            self._put_aside(step)
        if found:
            raise ValueError(
                f"no checkpoint under {self._steps} is whole; they are in {self._damaged}. Start "
                "in another --workdir"
            )
        return None

    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def finish(self) -> None:
        """Waits until what was begun is written, and seals it."""
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
        """`finish`, and no more."""
        self.finish()
        self._manager.close()

    def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        shapes = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for name, leaf in _named(like).items()
        }
        metadata = self._restore(step, metadata=ocp.args.JsonRestore())["metadata"]
        # Compared first: a restore that fails half-way leaves reads of arrays behind.
        stored, wanted = metadata.pop(_SHAPES), _shapes(shapes)
        for name in sorted(stored.keys() | wanted.keys()):
            if stored.get(name) != wanted.get(name):
                raise _Other(
                    f"{self._steps / str(step)} is of another model or optimiser: {name} is "
                    f"{stored.get(name)} there, {wanted.get(name)} here"
                )
        found = self._restore(step, state=ocp.args.StandardRestore(shapes))["state"]
        leaves = [found[name] for name in shapes]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), metadata

    def _restore(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _sealed(self) -> set[int]:
        return {int(path.stem) for path in self._seals.glob("*.json")}

    def _fault(self, step: int) -> str | None:
        """What differs from the seal; an unsealed one was finished, but perhaps not to the disk."""
        seal = self._seals / f"{step}.json"
        if not seal.is_file():
            return None
        want = json.loads(seal.read_text(encoding="utf-8"))
        got = _digests(self._steps / str(step))
        different = sorted(
            name for name in want.keys() | got.keys() if want.get(name) != got.get(name)
        )
        return f"{different[0]} has changed since it was written" if different else None

    def _put_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            self._damaged.mkdir(exist_ok=True)
            shutil.rmtree(self._damaged / str(step), ignore_errors=True)
            os.replace(self._steps / str(step), self._damaged / str(step))
            (self._seals / f"{step}.json").unlink(missing_ok=True)
        self._manager.reload()


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by the spelling of their path: what is read back need not be the same classes."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _shapes(named: dict[str, Any]) -> dict[str, list[int]]:
    return {name: list(leaf.shape) for name, leaf in named.items()}


def _digests(directory: Path) -> dict[str, str]:
    return {name: digest for name, (_, digest) in file_digests(directory, "**/*").items()}
