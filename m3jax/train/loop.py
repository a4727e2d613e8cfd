"""A whole run: what it starts from, its steps, and what it leaves behind.

Everything that decides the next step is in a checkpoint: parameters, optimiser, step. The order of
data is a function of the step, dropout keys are folded from it, and so the same command goes on
exactly where a run stopped.
"""

import collections
import dataclasses
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from m3jax import pretrained
from m3jax.config import TrainConfig
from m3jax.train.checkpoints import Checkpoints
from m3jax.train.objectives import dead_heads
from m3jax.train.prefetch import host_batches, place
from m3jax.train.report import RunLog, draw_curves, peak_flops, tokens_of, training_flops
from m3jax.train.setup import Run, fingerprint, write_config

Evaluate = Callable[[pretrained.Pretrained], dict[str, float]]
WINDOW = 50  # steps whose mean loss is compared with the first ones'


class RunResult(NamedTuple):
    """How a run ended: `step` steps are done; `whole` says whether that is all of them."""

    step: int
    whole: bool
    model: Path | None  # the export, when it is whole


def train(
    config: TrainConfig, run: Run, workdir: Path, evaluate: Evaluate | None = None
) -> RunResult:
    """Trains from the newest checkpoint in `workdir`, or from the start.

    Raises ValueError where `workdir` holds a run of another config or of other data, and
    FloatingPointError, naming the last good checkpoint, where the loss is no number or diverges.
    """
    checkpoints = Checkpoints(workdir, config.keep)
    state, done = _restored(checkpoints, run, config)
    write_config(config, workdir)  # only now: another config's run has been refused
    first = jax.process_index() == 0
    report = RunLog(workdir, config.steps, done, quiet=not first, keeps=first)
    try:
        with _Signals() as signals:
            progress = _Progress(report, config, run, checkpoints, done)
            step_batches = _timed(run, config, done)
            for step in range(done, config.steps):
                batches, cost = next(step_batches)
                state, metrics = run.update(state, batches)
                progress.add(step, metrics, cost)
                last = step + 1 == config.steps
                if evaluate and (last or _due(step, config.evaluate_every)):
                    progress.flush(everything=True)
                    _evaluate(evaluate, run, state, step, report, workdir)
                stop = signals.asked(_due(step, config.log_every)) and not last
                if last or stop or _due(step, config.save_every):
                    progress.flush(everything=True)  # a loss that is no number is never saved
                    checkpoints.save(step + 1, state, _metadata(config, run))
                if stop:
                    report.say(f"stopped after step {step + 1}; the same command goes on from here")
                    return RunResult(step + 1, False, None)
    finally:
        report.close()
        checkpoints.close()
    model = export(run, state, workdir / "model", again=done == config.steps)
    if jax.process_index() == 0:
        draw_curves(workdir)
    return RunResult(config.steps, True, model)


def export(run: Run, state: Any, directory: Path, again: bool = False) -> Path:
    """Writes the trained model as a directory that every command takes; replaces an older one.

    `again`: nothing was trained since, and the weights tuned for its hybrid stay.
    """
    _write(_on_host(run, state), directory, keep_fusion=again)
    return directory


def _on_host(run: Run, state: Any) -> pretrained.Pretrained:
    """The model of this step, whole in every process. All processes must ask together."""
    params = run.model_of(state)
    if jax.process_count() > 1:
        params = multihost_utils.process_allgather(params, tiled=True)
    return dataclasses.replace(run.start, params=jax.tree.map(np.asarray, params))


def _write(model: pretrained.Pretrained, directory: Path, keep_fusion: bool = False) -> None:
    if jax.process_index() == 0:
        tuned = pretrained.read_fusion(directory) if keep_fusion else {}
        model = dataclasses.replace(model, fusion=tuned or model.fusion)
        pretrained.save(directory, model, replace=True)


def _restored(checkpoints: Checkpoints, run: Run, config: TrainConfig) -> tuple[Any, int]:
    found = checkpoints.restore(run.state)
    if found is None:
        return run.state, 0
    state, metadata = found
    differs = sorted(
        name
        for name, value in _metadata(config, run)["decides"].items()
        if metadata["decides"].get(name) != value
    )
    if differs:
        name = differs[0]
        raise ValueError(
            f"this --workdir holds a run with another {name}: {metadata['decides'].get(name)!r} "
            f"there, {_metadata(config, run)['decides'][name]!r} here. Use another --workdir, or "
            "the run's own config (config.json beside its checkpoints)"
        )
    return state, int(state.step)


def _metadata(config: TrainConfig, run: Run) -> dict[str, Any]:
    return {"decides": fingerprint(config, run.batch_source)}


def _timed(
    run: Run, config: TrainConfig, start: int
) -> Iterator[tuple[list[Any], tuple[int, int, int]]]:
    """The batches of each step on the devices, a step ahead, with tokens counted on the host."""
    many = config.step.accumulate
    host = host_batches(run.batch_source, start * many, config.steps * many, workers=config.workers)
    waiting: collections.deque[Any] = collections.deque()
    for _ in range(start, config.steps):
        batches = [next(host) for _ in range(many)]
        tokens, squares, places = np.sum([tokens_of(batch) for batch in batches], axis=0)
        cost = int(tokens), int(squares), int(places)
        waiting.append(([place(batch, run.mesh) for batch in batches], cost))
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _evaluate(evaluate: Evaluate, run: Run, state, step: int, report: RunLog, workdir: Path):
    """Measures the model of this step; the best one by the first number is kept as `best`.

    One process measures, on its own devices; the others wait for it at the next step.
    """
    if jax.process_count() > 1:
        model = _on_host(run, state)
        if jax.process_index():
            return
    else:
        model = dataclasses.replace(run.start, params=run.model_of(state))
    scores = evaluate(model)
    report.record(step, {f"evaluate/{name}": value for name, value in scores.items()})
    told = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
    report.say(f"step {step + 1}  evaluation: {told}")
    best = workdir / "best.json"
    first = next(iter(scores.values()))
    before = json.loads(best.read_text(encoding="utf-8"))["score"] if best.is_file() else -np.inf
    if first > before:
        _write(
            dataclasses.replace(model, params=jax.tree.map(np.asarray, model.params)),
            workdir / "best",
        )
        text = json.dumps({"step": step + 1, "score": first, **scores}, indent=2)
        best.write_text(text + "\n", encoding="utf-8")


def _due(step: int, every: int) -> bool:
    return every > 0 and (step + 1) % every == 0


class _Progress:
    """The numbers of steps on their way from the device to the report."""

    def __init__(self, report, config: TrainConfig, run: Run, checkpoints, start: int):
        self.report, self.config, self.run = report, config, run
        self.checkpoints = checkpoints
        self.pending: list[tuple[int, Any, tuple[int, int, int]]] = []
        self.since = time.monotonic()
        self.first: list[float] = []
        self.recent: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self.warned = False
        self.compiled = start  # the first interval of a process holds compilations
        self.speed: dict[str, float] = {}

    def add(self, step: int, metrics: Any, cost: tuple[int, int, int]) -> None:
        """Takes note of a step; every so often tells of those before it."""
        self.pending.append((step, metrics, cost))
        if _due(step, self.config.log_every):
            self.flush(everything=False)

    def flush(self, everything: bool) -> None:
        """Reports what is pending; all but the newest step, which may still be computed."""
        count = len(self.pending) - (not everything)
        if count < 1:
            return
        ready, self.pending = self.pending[:count], self.pending[count:]
        values: dict[str, float] = {}
        for step, metrics, cost in ready:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            self._check(step, values)
            # This process counts its own part, which is like the others'.
            self.report.record(step, values | {"tokens": cost[0] * jax.process_count()})
        step = ready[-1][0]
        self._measure([cost for _, _, cost in ready])
        self.report.show(step, values | self.speed)
        for sentence in () if self.warned else dead_heads(values):
            self.warned = True
            self.report.say(f"warning: {sentence}")

    def _measure(self, costs: list[tuple[int, int, int]]) -> None:
        """Speed since the last report, over all processes."""
        now = time.monotonic()
        seconds, self.since = now - self.since, now
        tokens, squares, places = np.sum(costs, axis=0) * jax.process_count()
        flops = training_flops(self.run.start.config.encoder, int(tokens), int(squares))
        devices = self.run.mesh.devices
        peak = peak_flops(devices.flat[0].device_kind)
        self.speed = {
            "tokens_per_second": float(tokens / seconds),
            "padding": float(1 - tokens / places),
        }
        if peak:
            self.speed["mfu"] = flops / seconds / (peak * devices.size)

    def _check(self, step: int, values: dict[str, float]) -> None:
        loss = values["loss"]
        (self.first if len(self.first) < WINDOW else self.recent).append(loss)
        reason = None
        if not np.isfinite(loss):
            reason = f"the loss of step {step + 1} is {loss}"
        elif len(self.recent) == WINDOW:
            before, now = float(np.mean(self.first)), float(np.mean(self.recent))
            if now > 4 * before and now > before + 1:
                reason = f"the loss has risen from {before:.3f} to {now:.3f}: the run diverges"
        if reason:
            good = self.checkpoints.latest()
            last = f"checkpoint {good}" if good is not None else "none was saved"
            raise FloatingPointError(
                f"{reason}. Last good checkpoint: {last}. Lower optimizer.learning_rate or raise "
                "loss.temperature"
            )


class _Signals:
    """Has the run been asked to stop (SIGTERM, Ctrl-C)? A second Ctrl-C stops it at once."""

    def __init__(self):
        self._asked = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self, together: bool) -> bool:
        """Every process gives the same answer at the same step; many ask when `together`."""
        if jax.process_count() == 1:
            return self._asked.is_set()
        if not together:
            return False
        return bool(multihost_utils.process_allgather(np.array(self._asked.is_set())).any())

    def _note(self, number, frame):
        if number == signal.SIGINT and self._asked.is_set():
            raise KeyboardInterrupt
        self._asked.set()
