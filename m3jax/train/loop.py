"""The training loop: restore, steps, evaluation, checkpoints, export.

A checkpoint holds all state: parameters, optimizer state, step. The order of the data and the
dropout keys are functions of the step, so a resumed run equals an uninterrupted one bit for bit.
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
from m3jax.config import DataConfig, TrainConfig
from m3jax.io.fields import current_field
from m3jax.train.checkpoints import Checkpoints
from m3jax.train.objectives import dead_heads
from m3jax.train.prefetch import host_batches, place
from m3jax.train.run_log import RunLog, draw_curves, peak_flops, tokens_of, training_flops
from m3jax.train.setup import Run, fingerprint, prepare, write_config

Evaluate = Callable[[pretrained.Pretrained], dict[str, float]]
WINDOW = 50  # steps over which the loss is averaged to detect divergence


class RunResult(NamedTuple):
    """How a run ended."""

    step: int  # steps done
    finished: bool  # False if the run was stopped by a signal
    model: Path | None  # the exported model, if finished


def train_model(
    config: TrainConfig,
    workdir: Path,
    *,
    memory: float | None = None,
    evaluate: Evaluate | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Trains a model in `workdir`; a run stopped there earlier is resumed.

    With `memory`, bytes of one device, batch sizes are fitted to it. `evaluate` maps the model to
    its metrics, every `config.evaluate_every` steps. `log` receives messages about the setup.
    Raises what `prepare` and `train` raise.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    config, run = prepare(config, workdir, memory, log)
    return train(config, run, workdir, evaluate)


def train(
    config: TrainConfig, run: Run, workdir: Path, evaluate: Evaluate | None = None
) -> RunResult:
    """Trains from the newest checkpoint in `workdir`, or from the start.

    Raises ValueError if `workdir` holds a run with a different config or different data, and
    FloatingPointError, with the last good checkpoint, if the loss is not finite or diverges.
    """
    checkpoints = Checkpoints(workdir, config.keep)
    state, done = _restored(checkpoints, run, config)
    write_config(config, workdir)  # after the check that `workdir` has the same config
    first = jax.process_index() == 0
    run_log = RunLog(workdir, config.steps, done, quiet=not first, write_files=first)
    try:
        with _Signals() as signals:
            metrics_log = _MetricsLog(run_log, config, run, checkpoints)
            step_batches = _device_batches(run, config, done)
            for step in range(done, config.steps):
                batches, cost = next(step_batches)
                state, metrics = run.trainer.update(state, batches, run.key)
                metrics_log.add(step, metrics, cost)
                last = step + 1 == config.steps
                if evaluate and (last or _due(step, config.evaluate_every)):
                    metrics_log.flush(everything=True)
                    _evaluate(evaluate, run, state, step, run_log, workdir)
                stop = signals.received(_due(step, config.log_every)) and not last
                if last or stop or _due(step, config.save_every):
                    # Raises if the loss is not finite: such a state is never saved.
                    metrics_log.flush(everything=True)
                    checkpoints.save(step + 1, state, _metadata(config, run))
                if stop:
                    run_log.log(f"stopped after step {step + 1}; run the same command to resume")
                    return RunResult(step + 1, False, None)
    finally:
        run_log.close()
        checkpoints.close()
    model = export(run, state, workdir / "model", keep_fusion=done == config.steps)
    if jax.process_index() == 0:
        draw_curves(workdir)
    return RunResult(config.steps, True, model)


def export(run: Run, state: Any, directory: Path, keep_fusion: bool = False) -> Path:
    """Writes the trained model as a model directory, replacing an older one.

    `keep_fusion` keeps the tuned fusion weights of the older one: its parameters are the same.
    """
    _write(_on_host(run, state), directory, keep_fusion)
    return directory


def _on_host(run: Run, state: Any) -> pretrained.Pretrained:
    """The model of this step in host memory. A collective: all processes must call it together."""
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
    restored = checkpoints.restore(run.state)
    if restored is None:
        return run.state, 0
    state, metadata = restored
    stored = metadata["decides"]
    # Runs of earlier releases have former field names.
    stored["data"] = dict(current_field(DataConfig, *item) for item in stored["data"].items())
    differs = sorted(
        name
        for name, value in _metadata(config, run)["decides"].items()
        if stored.get(name) != value
    )
    if differs:
        name = differs[0]
        raise ValueError(
            f"--workdir holds a run with a different {name}: {stored.get(name)!r} there, "
            f"{_metadata(config, run)['decides'][name]!r} here. Use another --workdir, or the "
            "config of that run (config.json in --workdir)"
        )
    return state, int(state.step)


def _metadata(config: TrainConfig, run: Run) -> dict[str, Any]:
    return {"decides": fingerprint(config, run.batch_source)}


def _device_batches(
    run: Run, config: TrainConfig, start: int
) -> Iterator[tuple[list[Any], tuple[int, int, int]]]:
    """(batches, token counts) of each step, transferred to the devices one step in advance."""
    count = config.step.accumulate
    host = host_batches(
        run.batch_source, start * count, config.steps * count, workers=config.workers
    )
    waiting: collections.deque[Any] = collections.deque()
    for _ in range(start, config.steps):
        batches = [next(host) for _ in range(count)]
        tokens, squares, padded = np.sum([tokens_of(batch) for batch in batches], axis=0)
        cost = int(tokens), int(squares), int(padded)
        waiting.append(([place(batch, run.mesh) for batch in batches], cost))
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def _evaluate(evaluate: Evaluate, run: Run, state, step: int, run_log: RunLog, workdir: Path):
    """Evaluates the model of this step, and saves it as `best` if its first metric is the best.

    Process 0 evaluates on its local devices; the others wait for it at the next step.
    """
    if jax.process_count() > 1:
        model = _on_host(run, state)
        if jax.process_index():
            return
    else:
        model = dataclasses.replace(run.start, params=run.model_of(state))
    scores = evaluate(model)
    run_log.record(step, {f"evaluate/{name}": value for name, value in scores.items()})
    text = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
    run_log.log(f"step {step + 1}  evaluation: {text}")
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


class _MetricsLog:
    """Queue of the metrics of steps that the device still computes, so that logging never waits."""

    def __init__(self, run_log: RunLog, config: TrainConfig, run: Run, checkpoints: Checkpoints):
        self.run_log, self.config, self.run = run_log, config, run
        self.checkpoints = checkpoints
        self.pending: list[tuple[int, Any, tuple[int, int, int]]] = []
        self.last_flush = time.monotonic()
        self.first: list[float] = []
        self.recent: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self.warned = False
        self.speed: dict[str, float] = {}

    def add(self, step: int, metrics: Any, cost: tuple[int, int, int]) -> None:
        """Queues a step's metrics; every `log_every` steps flushes the finished ones."""
        self.pending.append((step, metrics, cost))
        if _due(step, self.config.log_every):
            self.flush(everything=False)

    def flush(self, everything: bool) -> None:
        """Logs the queued steps; without `everything` not the newest, which may be unfinished."""
        count = len(self.pending) - (not everything)
        if count < 1:
            return
        ready, self.pending = self.pending[:count], self.pending[count:]
        values: dict[str, float] = {}
        for step, metrics, cost in ready:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            self._check(step, values)
            # Only local tokens are counted; the other processes have about as many.
            self.run_log.record(step, values | {"tokens": cost[0] * jax.process_count()})
        step = ready[-1][0]
        self._measure([cost for _, _, cost in ready])
        self.run_log.print_step(step, values | self.speed)
        for warning in () if self.warned else dead_heads(values):
            self.warned = True
            self.run_log.log(f"warning: {warning}")

    def _measure(self, costs: list[tuple[int, int, int]]) -> None:
        """Speed since the last flush, over all processes."""
        now = time.monotonic()
        seconds, self.last_flush = now - self.last_flush, now
        tokens, squares, padded = np.sum(costs, axis=0) * jax.process_count()
        flops = training_flops(self.run.start.config.encoder, int(tokens), int(squares))
        devices = self.run.mesh.devices
        peak = peak_flops(devices.flat[0].device_kind)
        self.speed = {
            "tokens_per_second": float(tokens / seconds),
            "padding": float(1 - tokens / padded),
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
            latest = self.checkpoints.latest()
            last = f"checkpoint {latest}" if latest is not None else "none was saved"
            raise FloatingPointError(
                f"{reason}. Last good checkpoint: {last}. Lower optimizer.learning_rate or raise "
                "loss.temperature"
            )


class _Signals:
    """Handles SIGTERM and Ctrl-C: the run stops after the current step. A second Ctrl-C raises."""

    def __init__(self):
        self._stop = threading.Event()
        self._handlers: dict[int, Any] = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def received(self, synchronize: bool) -> bool:
        """Whether to stop, the same in every process. Several processes agree if `synchronize`."""
        if jax.process_count() == 1:
            return self._stop.is_set()
        if not synchronize:
            return False
        return bool(multihost_utils.process_allgather(np.array(self._stop.is_set())).any())

    def _handle(self, number, frame):
        if number == signal.SIGINT and self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()
