"""Runs as commands in processes of their own: two over loopback, and killed without warning."""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.training import losses, write_examples

pytestmark = pytest.mark.slow
STEPS = 12
CONFIG = """
from m3jax.config import *
def config():
    data = DataConfig(group_size=2, query_length=16, passage_length=32, length_boundaries=(32,),
                      batch_sizes=(8,), batching="padded_to_group")
    return TrainConfig(steps=12, save_every=2, log_every=1, data=data,
                       loss=LossConfig(self_distill_start=3),
                       optimizer=OptimizerConfig(learning_rate=1e-3, warmup_ratio=0.2))
"""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, tiny_dir) -> list[str]:
    folder = tmp_path_factory.mktemp("commands")
    write_examples(folder / "pairs.jsonl")
    (folder / "tiny.py").write_text(CONFIG)
    return [
        "--config",
        str(folder / "tiny.py"),
        "--model",
        str(tiny_dir),
        "--data",
        str(folder / "pairs.jsonl"),
    ]


def start(arguments: list[str], workdir: Path, *more: str, devices: int = 1) -> subprocess.Popen:
    command = [sys.executable, "-m", "m3jax", "train", *arguments, "--workdir", str(workdir), *more]
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": ""}
    return subprocess.Popen(
        command,
        env=os.environ | settings,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output[-4000:]
    return output


@pytest.fixture(scope="module")
def unbroken(arguments, tmp_path_factory) -> list[float]:
    workdir = tmp_path_factory.mktemp("unbroken")
    finish(start(arguments, workdir))
    return losses(workdir)


def test_two_processes_of_four_devices_give_the_losses_of_one(arguments, unbroken, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    two = [
        start(
            arguments,
            tmp_path / "run",
            "--coordinator",
            f"127.0.0.1:{port}",
            "--processes",
            "2",
            "--process",
            str(i),
            "--set",
            "mesh.fsdp=4",
            devices=4,
        )
        for i in range(2)
    ]
    outputs = [finish(process) for process in two]
    assert "12 steps done" in outputs[0] and "12 steps done" not in outputs[1]
    assert len(unbroken) == STEPS
    np.testing.assert_allclose(losses(tmp_path / "run"), unbroken, rtol=2e-4)
    assert (tmp_path / "run" / "model" / "m3jax.json").is_file()


def being_written(workdir: Path) -> list[str]:
    """Checkpoints that have no final name yet."""
    folder = workdir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return [name for name in names if not name.isdigit()]


def kill_when(process: subprocess.Popen, condition) -> bool:
    """kill -9 as soon as the condition holds; False where the process ended before."""
    while process.poll() is None:
        if condition():
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.0002)
    process.communicate()
    return False


def test_kill_9_at_a_random_step_and_while_saving(arguments, unbroken, tmp_path):
    workdir, rng = tmp_path / "run", random.Random(int(time.time()))
    metrics = workdir / "metrics.jsonl"

    def steps() -> int:
        return metrics.read_text().count('"loss"') if metrics.is_file() else 0

    stop = rng.randrange(3, 7)
    assert kill_when(start(arguments, workdir), lambda: steps() >= stop), f"never at step {stop}"
    for _ in itertools.repeat(None, 6):  # a small state is written in a blink
        if not kill_when(start(arguments, workdir), lambda: bool(being_written(workdir))):
            break
        if being_written(workdir):
            break  # killed in the midst of it
    finish(start(arguments, workdir))
    assert losses(workdir) == unbroken
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert not being_written(workdir)
