"""How large a batch may be: steps are compiled, their plan of memory is read, nothing is run.

The plan is the compiler's for this machine's kind of device: parameters, moments, gradients, the
batch and all temporaries of one device. It knows nothing of what other programs hold.
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
from m3jax.train.gradcache import parts_of
from m3jax.train.optimizer import make_optimizer, make_schedule, training_compute
from m3jax.train.step import m3_gradients, make_trainer, retromae_gradients, state_sharding

FILE = "sizes.json"
SHARE = 0.92  # of a device's memory; the rest is the allocator's and the runtime's
PART = 0.5  # of what is allowed: what a batch of one part may take
NEAR = 0.9  # of what is allowed: near enough to stop the search
TRIES = 6  # programs compiled for one length group beside the smallest and the largest batch


class Size(NamedTuple):
    """What one length group takes."""

    edge: int  # tokens of its longest text
    batch: int  # queries of the global batch, or texts
    rows: int  # passages that a device encodes at once
    memory: int  # bytes of one device, by the compiler's plan


class Memory(NamedTuple):
    """The compiler's plan for one device, bytes."""

    total: int
    temporary: int  # activations, gradients, representations
    arguments: int  # state and batch


def fit(
    config: TrainConfig,
    model: M3Config,
    mesh: Mesh,
    memory: float,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[TrainConfig, list[Size]]:
    """`config` with sizes whose steps take at most SHARE of `memory` bytes on each device.

    `step.sub_tokens` is halved until one part takes at most half of it; then every length group
    gets the largest batch up to its `data.batch_sizes`. Raises ValueError for packed rows, and
    where not even the smallest batch of a group fits, naming it and what to change.
    """
    if config.data.batching == "packed":
        raise ValueError(
            "batch sizes can be fitted for padded rows only: data.batching must be padded or "
            "padded_to_group"
        )
    allowed = SHARE * memory
    config = _with_sub_tokens(config, model, mesh, PART * allowed)
    sizes = []
    for group in range(len(config.data.length_boundaries)):
        size = _largest(config, model, mesh, group, allowed)
        say(
            f"up to {size.edge:5} tokens: batch {size.batch:6}, {size.rows:4} rows at once, "
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
    say: Callable[[str], None] = lambda line: None,
) -> TrainConfig:
    """`fit`, kept in `workdir`: a run that goes on takes the sizes it began with; one that has no
    checkpoint yet is fitted again where the memory is another."""
    path = workdir / FILE
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["memory"] == memory or any((workdir / "checkpoints").glob("[0-9]*")):
            say(f"sizes from {path}")
            return _with_sizes(config, kept["batch_sizes"], kept["sub_tokens"])
    config, sizes = fit(config, model, mesh, memory, say)
    spelt = ",".join(str(size.batch) for size in sizes)
    say(
        f'the same without a search: --set "data.batch_sizes=({spelt},)" '
        f"--set step.sub_tokens={config.step.sub_tokens}"
    )
    if jax.process_index() == 0:
        kept = {
            "memory": memory,
            "batch_sizes": config.data.batch_sizes,
            "sub_tokens": config.step.sub_tokens,
            "groups": [size._asdict() for size in sizes],
        }
        write_json(path, kept, indent=1)
    return config


def device_memory(text: str) -> float:
    """Bytes of one device: with GB, GiB, MB or MiB, plain, or `auto` where the device tells.

    Raises ValueError for anything else.
    """
    if text == "auto":
        told = jax.local_devices()[0].memory_stats()
        if not told or "bytes_limit" not in told:
            raise ValueError(
                f"a {jax.default_backend()} device does not tell its memory: name it, as in "
                "--fit-memory 16GB"
            )
        return float(told["bytes_limit"])
    units = {"gib": 1 << 30, "mib": 1 << 20, "gb": 10**9, "mb": 10**6, "": 1}
    unit = next(u for u in units if text.lower().endswith(u))
    try:
        bytes_ = float(text[: len(text) - len(unit)]) * units[unit]
    except ValueError:
        bytes_ = 0.0
    if not 0 < bytes_ < float("inf"):
        raise ValueError(f"--fit-memory takes auto, bytes, or as in 80GB or 16GiB; got {text!r}")
    return bytes_


def step_memory(
    config: TrainConfig, model: M3Config, mesh: Mesh, queries: int, widths: tuple[int, int]
) -> Memory:
    """What one step takes on a batch of `queries`, rows of `widths` tokens (query, passage).

    Compiles the step on shapes alone: no parameter is made.
    """
    plan = compiled_step(config, model, mesh, queries, widths).memory_analysis()
    if plan is None:
        raise ValueError(f"the {jax.default_backend()} compiler tells nothing of memory")
    arguments = plan.argument_size_in_bytes
    new = plan.output_size_in_bytes - plan.alias_size_in_bytes  # what is not donated
    return Memory(arguments + new + plan.temp_size_in_bytes, plan.temp_size_in_bytes, arguments)


def compiled_step(
    config: TrainConfig, model: M3Config, mesh: Mesh, queries: int, widths: tuple[int, int]
) -> Any:
    """The program of one optimiser step, from shapes."""
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
    """Parts of fewer tokens until one of the longest texts takes no more than `allowed`."""
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


def _largest(config: TrainConfig, model: M3Config, mesh: Mesh, group: int, allowed: float) -> Size:
    """The largest batch of a group; between measured ones memory is taken to be a straight line."""
    widths, devices = _widths(config, group), sharding.batch_shards(mesh)

    @functools.cache
    def measure(units: int) -> int:
        return step_memory(config, model, mesh, units * devices, widths).total

    low = _smallest(config, mesh) // devices
    high = config.data.batch_sizes[group] // devices
    if high < low:
        raise ValueError(
            f"data.batch_sizes {config.data.batch_sizes[group]} is no batch for {devices} devices"
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
    for _ in range(TRIES):
        if low + 1 >= high or measure(low) >= NEAR * allowed:
            break
        units = _between(low, high, measure(low), measure(high), allowed)
        low, high = (units, high) if measure(units) <= allowed else (low, units)
    rows = low * max(config.data.group_size, 1)
    if config.step.split != "none" and config.objective == "m3":
        rows //= parts_of(rows, widths[1], 1, config.step.sub_tokens)
    longest = longest_text(config.data, group, config.objective == "retromae")
    return Size(longest, low * devices, rows, measure(low))


def _between(low: int, high: int, least: int, most: int, allowed: float) -> int:
    """Where the line between two measured batches comes near what is allowed."""
    share = ((1 + NEAR) / 2 * allowed - least) / max(most - least, 1)
    units = min(max(low + int(share * (high - low)), low + 1), high - 1)
    grain = 1 << max(0, units.bit_length() - 4)  # numbers with many divisors: parts of equal size
    return max(units // grain * grain, low + 1)


def _smallest(config: TrainConfig, mesh: Mesh) -> int:
    """A query a device, but two where a single one has no negative."""
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
    """A batch as `BatchSource` makes it, shapes only."""
    group_size = 0 if config.objective == "retromae" else config.data.group_size
    spec = BatchShape(0, 1, group_size, False, *widths)
    one = padded_batch(TokenizedExamples([], [], [], [], []), spec, 1, model.encoder.pad_id)
    rows = sharding.batch_sharding(mesh)

    def many(leaf: np.ndarray):
        return jax.ShapeDtypeStruct(
            (leaf.shape[0] * queries, *leaf.shape[1:]), leaf.dtype, sharding=rows
        )

    return jax.tree.map(many, one)


def _shape(leaf: Any, place: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
