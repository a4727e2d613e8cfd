"""What a run tells: one line of JSON a step, TensorBoard, and a terminal that can be read.

Numbers are fetched from the device some steps late, so that reporting never makes it wait.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from m3jax.config import EncoderConfig
from m3jax.io.atomic import replace_file
from m3jax.types import TextBatch, TrainBatch

# bfloat16 operations a second of one device, without sparsity, from the makers' data sheets.
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "V100": 125e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}
FILE = "metrics.jsonl"


class RunLog:
    """The record of one run under `directory`; a resumed run goes on in the same files.

    `keeps` says whether anything is written to files: of many processes one alone does.
    """

    def __init__(
        self, directory: Path, steps: int, start: int = 0, quiet: bool = False, keeps: bool = True
    ):
        self.directory = directory
        self.steps = steps
        self._console = Console(quiet=quiet, highlight=False, stderr=True)
        self._begun = time.monotonic()
        self._start = start
        if keeps:
            keep_before(directory / FILE, start)
        self._file = open(directory / FILE if keeps else os.devnull, "a", encoding="utf-8")
        self._board = _tensorboard(directory / "tensorboard", start) if keeps else None

    def record(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the numbers of one step."""
        line = {"step": step} | {name: float(value) for name, value in values.items()}
        self._file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def show(self, step: int, values: Mapping[str, Any]) -> None:
        """A line of the terminal: where the run stands, and the losses of each head."""
        self._file.flush()
        done = step + 1 - self._start
        left = (time.monotonic() - self._begun) / max(done, 1) * (self.steps - step - 1)
        parts = [f"step {step + 1}/{self.steps}", f"loss {values['loss']:.4f}"]
        parts += [
            f"{name.split('/')[1]} {value:.3f}"
            for name, value in values.items()
            if name.startswith("nce/")
        ]
        if "tokens_per_second" in values:
            parts.append(f"{values['tokens_per_second']:,.0f} tokens/s")
        if "mfu" in values:
            parts.append(f"MFU {values['mfu']:.1%}")
        if "padding" in values:
            parts.append(f"padding {values['padding']:.0%}")
        self._console.print("  ".join([*parts, f"{_clock(left)} left"]))

    def say(self, message: str) -> None:
        """A sentence for the terminal."""
        self._file.flush()
        self._console.print(message)

    def close(self) -> None:
        """Everything to the disk."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def tokens_of(batch: TrainBatch | TextBatch) -> tuple[int, int, int]:
    """(real tokens, sum of their texts' squared lengths, places in the rows) of a host's batch."""
    if isinstance(batch, TextBatch):
        sides = [batch]
    elif batch.packed is not None:
        sides = [batch.packed.rows]
    else:
        sides = [batch.queries, batch.passages]
    lengths = np.concatenate([np.asarray(s.lengths, np.int64).ravel() for s in sides])
    return int(lengths.sum()), int((lengths**2).sum()), sum(s.token_ids.size for s in sides)


def training_flops(encoder: EncoderConfig, tokens: int | float, squares: int | float) -> float:
    """Operations that texts of so many tokens need, forward and backward (3 x forward).

    A layer takes 8 d^2 + 4 d f a token for its matrices and 4 d times the text's length for
    attention; padding and recomputation count nothing.
    """
    d, f = encoder.hidden_size, encoder.intermediate_size
    return 3.0 * encoder.layers * ((8 * d * d + 4 * d * f) * tokens + 4 * d * squares)


def peak_flops(device_kind: str) -> float | None:
    """What one device can do, where it is known."""
    found = [peak for name, peak in PEAKS.items() if name in device_kind]
    return found[0] if found else None


def keep_before(path: Path, step: int) -> None:
    """Drops the lines of steps from `step` on: a run that lost them does them again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
        if values.get("step", math.inf) < step:
            kept.append(line + "\n")
    with replace_file(path) as stream:
        stream.writelines(kept)


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The steps of a run, in order."""
    text = (directory / FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def draw_curves(directory: Path) -> Path | None:
    """The losses and accuracies of a run as a picture; None without matplotlib or any step."""
    try:
        from matplotlib.figure import Figure  # not pyplot: a notebook's own figures stay inline
    except ImportError:
        return None
    rows = read_metrics(directory)
    if not rows:
        return None
    figure = Figure(figsize=(13, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (("loss", ("loss", "nce/")), ("distillation", ("kd/",)), ("accuracy", ("accuracy",)))
    for axis, (title, prefixes) in zip(axes, panels, strict=True):
        for name in sorted({n for row in rows for n in row}):
            if name.startswith(prefixes):
                points = [(row["step"], row[name]) for row in rows if name in row]
                axis.plot(*zip(*_smooth(points), strict=True), label=name, linewidth=1.2)
        axis.set(title=title, xlabel="step")
        if axis.lines:
            axis.legend(fontsize=7, frameon=False)
    path = directory / "curves.png"
    figure.savefig(path)
    return path


def _smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """A running mean over a fiftieth of the run."""
    window = max(1, len(points) // 50)
    values = np.convolve([p[1] for p in points], np.ones(window) / window, mode="valid")
    return list(zip([p[0] for p in points][window - 1 :], values.tolist(), strict=True))


def _tensorboard(directory: Path, start: int) -> Any:
    """A writer where the package is there; a run does not fail for want of it."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=start)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
