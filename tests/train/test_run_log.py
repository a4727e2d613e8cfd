"""Run logging: files, console, curves, FLOPs."""

import json

import matplotlib
import numpy as np
import pytest

from m3jax.config import EncoderConfig
from m3jax.text.batches import rows_of_tokens
from m3jax.train.run_log import (
    RunLog,
    draw_curves,
    drop_from,
    peak_flops,
    read_metrics,
    tokens_of,
    training_flops,
)


def test_steps_are_lines_and_a_resumed_run_replaces_those_it_repeats(tmp_path):
    run_log = RunLog(tmp_path, steps=5, quiet=True)
    for step in range(4):
        run_log.record(step, {"loss": 1.0 / (step + 1)})
    run_log.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"step": 4, "lo')  # killed while it wrote
    run_log = RunLog(tmp_path, steps=5, start=2, quiet=True)
    run_log.record(2, {"loss": 9.0})
    run_log.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [
        (0, 1.0),
        (1, 0.5),
        (2, 9.0),
    ]
    drop_from(tmp_path / "none.jsonl", 3)
    assert any((tmp_path / "tensorboard").iterdir())


def test_other_processes_write_nothing(tmp_path):
    run_log = RunLog(tmp_path, steps=5, quiet=True, write_files=False)
    run_log.record(0, {"loss": 1.0})
    run_log.log("nothing")
    run_log.close()
    assert not list(tmp_path.iterdir())


def test_curves_are_plotted(tmp_path):
    """And the backend stays, on which a notebook's own figures depend."""
    matplotlib.use("svg")
    run_log = RunLog(tmp_path, steps=60, quiet=True)
    for step in range(60):
        run_log.record(step, {"loss": 5 / (step + 1), "nce/dense": 1.0, "accuracy/dense": 0.5})
    run_log.close()
    path = draw_curves(tmp_path)
    assert path is not None and path.read_bytes().startswith(b"\x89PNG")
    assert matplotlib.get_backend() == "svg"


def test_the_terminal_names_every_head(tmp_path, capsys):
    run_log = RunLog(tmp_path, steps=10)
    run_log.print_step(4, {"loss": 1.25, "nce/dense": 0.5, "nce/sparse": 2.0, "padding": 0.25})
    run_log.close()
    line = " ".join(capsys.readouterr().err.split())
    assert "step 5/10 loss 1.2500 dense 0.500 sparse 2.000 padding 25%" in line


def test_operations_and_tokens_by_hand():
    # XLM-R-large at 512 tokens: 654 million operations a token forward.
    large = training_flops(EncoderConfig(), 512, 512**2) / 512 / 3
    assert large == pytest.approx(654e6, rel=1e-3)
    batch, _ = rows_of_tokens([np.arange(3), np.arange(5)], [[0], [1]], 8, pad_id=1)
    assert tokens_of(batch) == (8, 9 + 25, 16)
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12 and peak_flops("cpu") is None


def test_lines_are_json(tmp_path):
    run_log = RunLog(tmp_path, steps=1, quiet=True)
    run_log.record(0, {"loss": np.float32(2.5)})
    run_log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 0, "loss": 2.5}
