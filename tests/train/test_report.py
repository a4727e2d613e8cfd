"""What a run tells of itself."""

import json

import matplotlib
import numpy as np
import pytest

from m3jax.config import EncoderConfig
from m3jax.text.batches import rows_of_tokens
from m3jax.train.report import (
    RunLog,
    draw_curves,
    keep_before,
    peak_flops,
    read_metrics,
    tokens_of,
    training_flops,
)


def test_steps_are_lines_and_a_resumed_run_replaces_those_it_repeats(tmp_path):
    report = RunLog(tmp_path, steps=5, quiet=True)
    for step in range(4):
        report.record(step, {"loss": 1.0 / (step + 1)})
    report.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"step": 4, "lo')  # killed while it wrote
    report = RunLog(tmp_path, steps=5, start=2, quiet=True)
    report.record(2, {"loss": 9.0})
    report.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [
        (0, 1.0),
        (1, 0.5),
        (2, 9.0),
    ]
    keep_before(tmp_path / "none.jsonl", 3)
    assert any((tmp_path / "tensorboard").iterdir())


def test_other_processes_write_nothing(tmp_path):
    report = RunLog(tmp_path, steps=5, quiet=True, keeps=False)
    report.record(0, {"loss": 1.0})
    report.say("nothing")
    report.close()
    assert not list(tmp_path.iterdir())


def test_curves_are_a_picture(tmp_path):
    """And the backend stays, on which a notebook's own figures depend."""
    matplotlib.use("svg")
    report = RunLog(tmp_path, steps=60, quiet=True)
    for step in range(60):
        report.record(step, {"loss": 5 / (step + 1), "nce/dense": 1.0, "accuracy/dense": 0.5})
    report.close()
    path = draw_curves(tmp_path)
    assert path is not None and path.read_bytes().startswith(b"\x89PNG")
    assert matplotlib.get_backend() == "svg"


def test_the_terminal_names_every_head(tmp_path, capsys):
    report = RunLog(tmp_path, steps=10)
    report.show(4, {"loss": 1.25, "nce/dense": 0.5, "nce/sparse": 2.0, "padding": 0.25})
    report.close()
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
    report = RunLog(tmp_path, steps=1, quiet=True)
    report.record(0, {"loss": np.float32(2.5)})
    report.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 0, "loss": 2.5}
