"""Checkpoints of a run: intact or moved to damaged/, and readable on another mesh."""

import gc
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from m3jax import sharding
from m3jax.train.checkpoints import Checkpoints


def state_of(value: float, mesh=None, size=64):
    mesh = mesh or sharding.make_mesh(8, 1, 1)
    rows = NamedSharding(mesh, P(sharding.BATCH_AXES))
    table = jax.device_put(jnp.full((size, 4), value), rows)
    return {"table": table, "step": jnp.int32(value), "nothing": None}


def save(directory, steps, keep=3):
    checkpoints = Checkpoints(directory, keep)
    for step in steps:
        checkpoints.save(step, state_of(step), {"step": step})
    checkpoints.close()


def restored(directory, like=None):
    checkpoints = Checkpoints(directory, 3)
    try:
        found = checkpoints.restore(state_of(0) if like is None else like)
    finally:
        checkpoints.close()
    return found


def test_the_newest_checkpoint_is_restored_with_its_metadata(tmp_path):
    assert restored(tmp_path) is None
    save(tmp_path, [1, 2, 3, 4], keep=2)
    found = restored(tmp_path)
    assert found is not None
    state, metadata = found
    assert metadata == {"step": 4} and int(state["step"]) == 4 and state["nothing"] is None
    np.testing.assert_array_equal(state["table"], np.full((64, 4), 4.0))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["3", "4"]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
def test_a_checkpoint_is_restored_on_another_mesh(tmp_path, sizes):
    save(tmp_path, [5])
    devices = jax.devices()[: int(np.prod(sizes))]
    mesh = sharding.make_mesh(*sizes, devices=devices)
    found = restored(tmp_path, state_of(0, mesh))
    assert found is not None
    assert found[0]["table"].sharding.mesh.shape == mesh.shape
    np.testing.assert_array_equal(found[0]["table"], np.full((64, 4), 5.0))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_detected_and_the_previous_checkpoint_is_used(tmp_path, caplog, damage):
    save(tmp_path, [1, 2])
    files = [p for p in (tmp_path / "checkpoints" / "2").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    if damage == "remove":
        largest.unlink()
    elif damage == "truncate":
        largest.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = restored(tmp_path)
    assert found is not None and found[1] == {"step": 1}
    assert "checkpoint 2 is damaged" in caplog.text
    assert (tmp_path / "damaged" / "2").is_dir()
    save(tmp_path, [2])  # its number is free again
    found = restored(tmp_path)
    assert found is not None and found[1] == {"step": 2}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_truncated_checkpoint_without_digests_is_moved_too(tmp_path):
    save(tmp_path, [1, 2])
    (tmp_path / "seals" / "2.json").unlink()
    for path in (tmp_path / "checkpoints" / "2").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:20])
    found = restored(tmp_path)
    assert found is not None and found[1] == {"step": 1}
    gc.collect()  # Orbax drops reads it had begun when one fails


def test_only_damaged_checkpoints_and_another_model_are_errors(tmp_path):
    save(tmp_path, [1])
    for sealed in (True, False):  # a killed run leaves its newest one unsealed
        if not sealed:
            (tmp_path / "seals" / "1.json").unlink()
        with pytest.raises(ValueError, match="belongs to a different model or optimizer: .*table"):
            restored(tmp_path, state_of(0, size=128))
        assert (tmp_path / "checkpoints" / "1").is_dir()
    for path in (tmp_path / "checkpoints" / "1").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(ValueError, match="all checkpoints under .* are damaged"):
        restored(tmp_path)
