"""Run logging: metrics.jsonl (one line per step), TensorBoard, console and loss curves."""

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

# Peak dense bfloat16 FLOP/s of one device, from the vendors' data sheets.
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
    """The log of a run in `directory`. A resumed run appends to the same files.

    `start` is the first step to log; lines of later steps are dropped. `quiet` disables the
    console, `write_files` the files: only one process writes them.
    """

    def __init__(
        self,
        directory: Path,
        steps: int,
        start: int = 0,
        quiet: bool = False,
        write_files: bool = True,
    ):
        self.directory = directory
        self.steps = steps
        self._console = Console(quiet=quiet, highlight=False, stderr=True)
        self._start_time = time.monotonic()
        self._start = start
        if write_files:
            drop_from(directory / FILE, start)
        self._file = open(directory / FILE if write_files else os.devnull, "a", encoding="utf-8")
        self._board = _tensorboard(directory / "tensorboard", start) if write_files else None

    def record(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the metrics of one step to the files."""
        line = {"step": step} | {name: float(value) for name, value in values.items()}
        self._file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def print_step(self, step: int, values: Mapping[str, Any]) -> None:
        """Prints one line: the step, the losses per head, the speed and the time left."""
        self._file.flush()
        done = step + 1 - self._start
        left = (time.monotonic() - self._start_time) / max(done, 1) * (self.steps - step - 1)
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

    def log(self, message: str) -> None:
        """Prints a message to the console."""
        self._file.flush()
        self._console.print(message)

    def close(self) -> None:
        """Flushes and closes all files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def tokens_of(batch: TrainBatch | TextBatch) -> tuple[int, int, int]:
    """(tokens, sum of squared text lengths, tokens including padding) of a batch on the host."""
    if isinstance(batch, TextBatch):
        sides = [batch]
    elif batch.packed is not None:
        sides = [batch.packed.rows]
    else:
        sides = [batch.queries, batch.passages]
    lengths = np.concatenate([np.asarray(s.lengths, np.int64).ravel() for s in sides])
    return int(lengths.sum()), int((lengths**2).sum()), sum(s.token_ids.size for s in sides)


def training_flops(encoder: EncoderConfig, tokens: int | float, squares: int | float) -> float:
    """Model FLOPs of a forward and a backward pass (3 times the forward pass).

    Per token, a layer takes 8 d^2 + 4 d f for its matrices and 4 d times the length of the text for
    attention. `squares` is the sum of squared text lengths. Padding and recomputation are excluded.
    """
    d, f = encoder.hidden_size, encoder.intermediate_size
    return 3.0 * encoder.layers * ((8 * d * d + 4 * d * f) * tokens + 4 * d * squares)


def peak_flops(device_kind: str) -> float | None:
    """Peak FLOP/s of one device, or None if unknown."""
    matches = [peak for name, peak in PEAKS.items() if name in device_kind]
    return matches[0] if matches else None


def drop_from(path: Path, step: int) -> None:
    """Deletes the lines of `step` and later steps, which the resumed run repeats."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:  # the last line of a killed run
            continue
        if values.get("step", math.inf) < step:
            kept.append(line + "\n")
    with replace_file(path) as stream:
        stream.writelines(kept)


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The metrics of a run, one dict per line."""
    text = (directory / FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def draw_curves(directory: Path) -> Path | None:
    """Plots losses and accuracies to curves.png; None without matplotlib or without steps."""
    try:
        from matplotlib.figure import Figure  # not pyplot, which would change a notebook's backend
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
    """Running mean over 1/50 of the run."""
    window = max(1, len(points) // 50)
    values = np.convolve([p[1] for p in points], np.ones(window) / window, mode="valid")
    return list(zip([p[0] for p in points][window - 1 :], values.tolist(), strict=True))


def _tensorboard(directory: Path, start: int) -> Any:
    """A TensorBoard writer, or None if tensorboardX is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=start)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
