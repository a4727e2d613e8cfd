"""The largest batch sizes that fit into device memory, from compiled but not executed steps.

The compiler reports the memory of one device for a step: parameters, moments, gradients, the batch
and all temporaries. Memory used by other programs is not included.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from m3jax import sharding
from m3jax.config import M3Config, TrainConfig
from m3jax.feed.layout import BatchShape, TokenizedExamples, padded_batch
from m3jax.feed.plan import longest_text
from m3jax.io.atomic import write_json
from m3jax.model.m3 import abstract_params
from m3jax.model.retromae import abstract_retromae
from m3jax.train.gradcache import num_microbatches
from m3jax.train.optimizer import make_optimizer, make_schedule, training_compute
from m3jax.train.step import m3_gradients, make_trainer, retromae_gradients, state_sharding

FILE = "sizes.json"
MEMORY_FRACTION = 0.92  # of a device's memory; the rest is for the allocator and the runtime
MICROBATCH_FRACTION = 0.5  # of the allowed memory: limit of a batch of one micro-batch
TOLERANCE = 0.9  # of the allowed memory: above it the search stops
MAX_TRIES = 6  # programs compiled per length group, besides the smallest and the largest batch


class GroupSize(NamedTuple):
    """The fitted batch of one length group."""

    length: int  # tokens of the longest text
    batch: int  # queries of the global batch, or texts
    rows: int  # passages that a device encodes at once
    memory: int  # bytes of one device


class Memory(NamedTuple):
    """Memory of one device in bytes, as planned by the compiler."""

    total: int
    temporary: int  # activations, gradients, representations
    arguments: int  # state and batch


def fit(
    config: TrainConfig,
    model: M3Config,
    mesh: Mesh,
    memory: float,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[TrainConfig, list[GroupSize]]:
    """`config` with batch sizes whose steps use at most MEMORY_FRACTION of `memory` bytes a device.

    `step.sub_tokens` is halved until one micro-batch uses at most MICROBATCH_FRACTION of that; then
    every length group gets the largest batch up to its `data.batch_sizes`. Raises ValueError for
    packed rows, and if the smallest batch of a group does not fit.
    """
    if config.data.batching == "packed":
        raise ValueError(
            "batch sizes can be fitted for padded rows only: data.batching must be padded or "
            "padded_to_group"
        )
    allowed = MEMORY_FRACTION * memory
    config = _with_sub_tokens(config, model, mesh, MICROBATCH_FRACTION * allowed)
    sizes = []
    for group in range(len(config.data.length_boundaries)):
        size = _largest(config, model, mesh, group, allowed)
        log(
            f"up to {size.length:5} tokens: batch {size.batch:6}, {size.rows:4} rows at once, "
            f"{size.memory / 1e9:.2f} GB"
        )
        sizes.append(size)
    data = dataclasses.replace(config.data, batch_sizes=tuple(size.batch for size in sizes))
    return dataclasses.replace(config, data=data), sizes


def fit_once(
    config: TrainConfig,
    model: M3Config,
    mesh: Mesh,
    memory: float,
    workdir: Path,
    log: Callable[[str], None] = lambda line: None,
) -> TrainConfig:
    """`fit` with its result stored in `workdir`.

    A resumed run keeps its batch sizes. A run without checkpoints is fitted again if `memory` has
    changed.
    """
    path = workdir / FILE
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["memory"] == memory or any((workdir / "checkpoints").glob("[0-9]*")):
            log(f"batch sizes from {path}")
            return _with_sizes(config, kept["batch_sizes"], kept["sub_tokens"])
    config, sizes = fit(config, model, mesh, memory, log)
    spelt = ",".join(str(size.batch) for size in sizes)
    log(
        f'to skip this search: --set "data.batch_sizes=({spelt},)" '
        f"--set step.sub_tokens={config.step.sub_tokens}"
    )
    if jax.process_index() == 0:
        kept = {
            "memory": memory,
            "batch_sizes": config.data.batch_sizes,
            "sub_tokens": config.step.sub_tokens,
            "groups": [
                {"edge": size.length, "batch": size.batch, "rows": size.rows, "memory": size.memory}
                for size in sizes
            ],
        }
        write_json(path, kept, indent=1)
    return config


def device_memory(text: str) -> float:
    """Bytes of one device: a number with GB, GiB, MB or MiB or without unit, or `auto`.

    `auto` asks the device. Raises ValueError for anything else, or if the device does not report
    its memory.
    """
    if text == "auto":
        stats = jax.local_devices()[0].memory_stats()
        if not stats or "bytes_limit" not in stats:
            raise ValueError(
                f"a {jax.default_backend()} device does not report its memory: pass a size such as "
                "--fit-memory 16GB"
            )
        return float(stats["bytes_limit"])
    units = {"gib": 1 << 30, "mib": 1 << 20, "gb": 10**9, "mb": 10**6, "": 1}
    unit = next(u for u in units if text.lower().endswith(u))
    try:
        bytes_ = float(text[: len(text) - len(unit)]) * units[unit]
    except ValueError:
        bytes_ = 0.0
    if not 0 < bytes_ < float("inf"):
        raise ValueError(
            f"--fit-memory must be auto, bytes, or a size such as 80GB or 16GiB; got {text!r}"
        )
    return bytes_


def step_memory(
    config: TrainConfig, model: M3Config, mesh: Mesh, queries: int, widths: tuple[int, int]
) -> Memory:
    """The memory of one step on a batch of `queries`; rows have `widths` (query, passage) tokens.

    Compiles the step from shapes; no parameters are created.
    """
    plan = compiled_step(config, model, mesh, queries, widths).memory_analysis()
    if plan is None:
        raise ValueError(f"the {jax.default_backend()} compiler does not report its memory use")
    arguments = plan.argument_size_in_bytes
    new = plan.output_size_in_bytes - plan.alias_size_in_bytes  # what is not donated
    return Memory(arguments + new + plan.temp_size_in_bytes, plan.temp_size_in_bytes, arguments)


def compiled_step(
    config: TrainConfig, model: M3Config, mesh: Mesh, queries: int, widths: tuple[int, int]
) -> Any:
    """The compiled program of one optimizer step, from shapes."""
    compute = training_compute(config.compute, config.optimizer)
    if config.objective == "retromae":
        like = abstract_params(model) | abstract_retromae(model)
        loss, gradients = None, retromae_gradients(model, config.retromae, compute, mesh)
    else:
        like, loss = abstract_params(model), config.loss
        gradients = m3_gradients(model, loss, config.step, compute, mesh)
    schedule = make_schedule(config.optimizer, 1000)
    optimizer = make_optimizer(config.optimizer, schedule)
    trainer = make_trainer(gradients, optimizer, config.optimizer, loss, schedule, mesh, like)
    state = jax.eval_shape(trainer.init, like)
    state = jax.tree.map(_shape, state, state_sharding(state, mesh))
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = _abstract_batch(config, model, mesh, queries, widths)
    step = jax.jit(
        lambda s, b, k: trainer.update(s, [b] * config.step.accumulate, k), donate_argnums=0
    )
    return step.lower(state, batch, key).compile()


def _with_sizes(config: TrainConfig, batch_sizes: list[int], sub_tokens: int) -> TrainConfig:
    data = dataclasses.replace(config.data, batch_sizes=tuple(batch_sizes))
    step = dataclasses.replace(config.step, sub_tokens=sub_tokens)
    return dataclasses.replace(config, data=data, step=step)


def _with_sub_tokens(
    config: TrainConfig, model: M3Config, mesh: Mesh, allowed: float
) -> TrainConfig:
    """Halves `step.sub_tokens` until a micro-batch of the longest texts uses at most `allowed`."""
    if config.step.split == "none" or config.objective == "retromae":
        return config
    group = len(config.data.length_boundaries) - 1
    widths = _widths(config, group)
    sub = config.step.sub_tokens
    while True:
        config = _with_sizes(config, list(config.data.batch_sizes), sub)
        rows = max(sub // widths[1], 1)
        queries = max(
            -(-rows // config.data.group_size),
            _smallest(config, mesh) // sharding.batch_shards(mesh),
        )
        queries = min(queries * sharding.batch_shards(mesh), config.data.batch_sizes[group])
        if rows == 1 or step_memory(config, model, mesh, queries, widths).total <= allowed:
            return config
        sub = max(sub // 2, widths[1])


def _largest(
    config: TrainConfig, model: M3Config, mesh: Mesh, group: int, allowed: float
) -> GroupSize:
    """The largest batch of a group. Memory is interpolated linearly between measured batches."""
    widths, devices = _widths(config, group), sharding.batch_shards(mesh)

    @functools.cache
    def measure(units: int) -> int:
        return step_memory(config, model, mesh, units * devices, widths).total

    low = _smallest(config, mesh) // devices
    high = config.data.batch_sizes[group] // devices
    if high < low:
        raise ValueError(
            f"data.batch_sizes {config.data.batch_sizes[group]} is less than one query for each of "
            f"{devices} devices"
        )
    if measure(high) <= allowed:
        low = high
    elif measure(low) > allowed:
        raise ValueError(
            f"data.length_boundaries {config.data.length_boundaries[group]}: the smallest batch "
            f"takes {measure(low) / 1e9:.2f} GB, more than the {allowed / 1e9:.2f} GB available. "
            "Set step.split=cached, lower step.sub_tokens, set compute.remat=True, or shard "
            "parameters with mesh.fsdp"
        )
    for _ in range(MAX_TRIES):
        if low + 1 >= high or measure(low) >= TOLERANCE * allowed:
            break
        units = _between(low, high, measure(low), measure(high), allowed)
        low, high = (units, high) if measure(units) <= allowed else (low, units)
    rows = low * max(config.data.group_size, 1)
    if config.step.split != "none" and config.objective == "m3":
        rows //= num_microbatches(rows, widths[1], 1, config.step.sub_tokens)
    longest = longest_text(config.data, group, config.objective == "retromae")
    return GroupSize(longest, low * devices, rows, measure(low))


def _between(low: int, high: int, least: int, most: int, allowed: float) -> int:
    """A batch between two measured ones whose interpolated memory is just below `allowed`."""
    share = ((1 + TOLERANCE) / 2 * allowed - least) / max(most - least, 1)
    units = min(max(low + int(share * (high - low)), low + 1), high - 1)
    grain = 1 << max(
        0, units.bit_length() - 4
    )  # a number with many divisors allows equal micro-batches
    return max(units // grain * grain, low + 1)


def _smallest(config: TrainConfig, mesh: Mesh) -> int:
    """One query per device; two if a single query had no negatives."""
    alone = (
        config.objective == "m3"
        and config.data.group_size == 1
        and sharding.batch_shards(mesh) == 1
    )
    return 2 if alone else sharding.batch_shards(mesh)


def _widths(config: TrainConfig, group: int) -> tuple[int, int]:
    longest = longest_text(config.data, group, config.objective == "retromae")
    return min(config.data.query_length, longest), min(config.data.passage_length, longest)


def _abstract_batch(
    config: TrainConfig, model: M3Config, mesh: Mesh, queries: int, widths: tuple[int, int]
) -> Any:
    """The shapes of a batch of `BatchSource`."""
    group_size = 0 if config.objective == "retromae" else config.data.group_size
    shape = BatchShape(0, 1, group_size, False, *widths)
    one = padded_batch(TokenizedExamples([], [], [], [], []), shape, 1, model.encoder.pad_id)
    rows = sharding.batch_sharding(mesh)

    def scaled(leaf: np.ndarray):
        return jax.ShapeDtypeStruct(
            (leaf.shape[0] * queries, *leaf.shape[1:]), leaf.dtype, sharding=rows
        )

    return jax.tree.map(scaled, one)


def _shape(leaf: Any, sharding_of_leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding_of_leaf)
