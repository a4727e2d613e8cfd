"""From a config to everything a run needs: model, batches, optimizer, compiled step."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from m3jax import pretrained, sharding
from m3jax.config import RetroMAEConfig, TrainConfig
from m3jax.data import build
from m3jax.data.examples import example_files
from m3jax.feed.source import BatchSource
from m3jax.io.fields import to_json
from m3jax.io.hashing import new_digest
from m3jax.model.retromae import init_retromae
from m3jax.pretrained import Pretrained
from m3jax.train import fit_memory
from m3jax.train.optimizer import make_optimizer, make_schedule, training_compute
from m3jax.train.prefetch import process_shard
from m3jax.train.step import (
    Trainer,
    TrainState,
    m3_gradients,
    make_trainer,
    retromae_gradients,
    state_sharding,
)
from m3jax.types import IN_BATCH

# Fields of the config that may change when a run is resumed: they do not affect its results.
RESUMABLE_FIELDS = (
    "log_every",
    "save_every",
    "keep",
    "workers",
    "evaluate_every",
    "evaluate_task",
    "evaluate_queries",
    "mesh",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """What `loop.train` needs."""

    start: Pretrained  # the initial model; every export has its config and tokenizer
    mesh: Mesh
    batch_source: BatchSource
    state: TrainState
    trainer: Trainer
    key: jax.Array

    def model_of(self, state: TrainState) -> dict[str, Any]:
        """The encoder and heads of a state: moving averages if they are kept."""
        params = state.params if state.ema is None else state.ema
        return {name: params[name] for name in ("encoder", "heads")}


def prepare(
    config: TrainConfig,
    workdir: Path,
    memory: float | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[TrainConfig, Run]:
    """Loads the model and the data; returns the config with `steps` set, and the run.

    With `memory`, bytes of one device, batch sizes are fitted to it (see `fit_memory.fit_once`).
    Data files are built under `workdir` unless `train_data` is a built directory. Raises
    FileNotFoundError or ValueError with the field, file or directory.
    """
    mesh = sharding.make_mesh(**dataclasses.asdict(config.mesh), devices=jax.devices())
    start = pretrained.load(config.model, mesh=mesh, pooling=config.pooling, seed=config.seed)
    longest = config.data.query_length  # plain texts are truncated as queries
    if config.objective != "retromae":
        longest = max(longest, config.data.passage_length)
    if longest > start.config.encoder.max_length:
        raise ValueError(
            f"{config.model} supports texts of up to {start.config.encoder.max_length} tokens, but "
            f"data.query_length or data.passage_length is {longest}: lower it, or extend the model "
            "with m3jax convert extend-positions"
        )
    examples = open_or_build(config, workdir, start)
    if config.objective == "retromae":
        config = dataclasses.replace(config, retromae=with_mask(config.retromae, start))
    if memory is not None:
        config = fit_memory.fit_once(config, start.config, mesh, memory, workdir, log)
    batch_source = BatchSource(examples, start.tokenizer, config.data, process_shard(mesh))
    if not batch_source.texts_only:
        _check_negatives(batch_source, log)
    steps = config.steps or sum(
        len(batch_source.plan(epoch).groups) for epoch in range(config.epochs)
    )
    config = dataclasses.replace(config, steps=steps)
    loss = config.loss
    distils = config.objective != "retromae" and len(loss.heads) > 1 and loss.self_distill
    if distils and loss.self_distill_start >= steps:
        log(
            f"warning: self-distillation starts at step {loss.self_distill_start}, but the run has "
            f"{steps} steps: set loss.self_distill_start lower, or loss.self_distill=False"
        )
    return config, _run(config, start, mesh, batch_source)


def open_or_build(config: TrainConfig, workdir: Path, start: Pretrained) -> Any:
    """The examples of `train_data`: a directory of `m3jax data build`, or files, built first.

    Raises ValueError or FileNotFoundError for missing data or another tokenizer.
    """
    if not config.train_data:
        raise ValueError("train_data is empty: pass --data FILE.jsonl or --data DIR")
    first = Path(config.train_data[0])
    if len(config.train_data) == 1 and (first / build.METADATA).is_file():
        examples = build.open_examples(first)
    else:
        built = workdir / "data"
        if jax.process_index() == 0:
            _build(config, built, start)
        if jax.process_count() > 1:  # wait for process 0; the disk is shared
            multihost_utils.sync_global_devices("m3jax: data is built")
        examples = build.open_examples(built)
    build.check_tokenizer(examples, start.tokenizer)
    return examples


def _build(config: TrainConfig, built: Path, start: Pretrained) -> None:
    """Builds the data set unless it exists; builds it again if the files have changed since.

    A run with checkpoints is then refused, because its fingerprint differs.
    """
    stamps, path = _stamps(config), built.with_name(f"{built.name}_inputs.json")
    if stamps and path.is_file() and json.loads(path.read_text(encoding="utf-8")) != stamps:
        shutil.rmtree(built, ignore_errors=True)
    if not (built / build.METADATA).is_file():
        record_format = "texts" if config.objective == "retromae" else "examples"
        path.write_text(json.dumps(stamps) + "\n", encoding="utf-8")
        build.build(list(config.train_data), built, start.tokenizer, record_format=record_format)


def _stamps(config: TrainConfig) -> list[list[Any]]:
    """The objective and (path, size, mtime) of the training files.

    Empty if the files were deleted; the built data set is then used as it is.
    """
    try:
        files = [(str(file), file.stat()) for file in example_files(config.train_data)]
    except FileNotFoundError:
        return []
    return [[config.objective], *([name, s.st_size, s.st_mtime_ns] for name, s in files)]


def _check_negatives(batch_source: BatchSource, log: Callable[[str], None]) -> None:
    """Warns about examples with neither hard nor in-batch negatives: their loss is 0."""
    examples, data = batch_source.examples, batch_source.config
    hard = np.diff(np.asarray(examples.offsets)) - 1 - np.asarray(examples.positives)
    outside = [i for i, name in enumerate(examples.sources) if name in data.no_in_batch]
    shared = (np.asarray(examples.flags) & IN_BATCH).astype(bool)
    shared &= ~np.isin(np.asarray(examples.source_ids), outside)
    alone = ~shared & ((hard == 0) | (data.group_size == 1))
    if alone.all():
        raise ValueError(
            "no example has negatives: in-batch negatives are disabled for all of them, and neg is "
            "empty or data.group_size is 1"
        )
    if alone.any():
        log(
            f"warning: {alone.sum():,} of {len(alone):,} examples have a loss of 0: in-batch "
            "negatives are disabled for them, and neg is empty or data.group_size is 1"
        )


def fingerprint(config: TrainConfig, batch_source: BatchSource) -> dict[str, Any]:
    """What determines the results of a run: all fields but RESUMABLE_FIELDS, and the examples."""
    fields = {
        name: value for name, value in to_json(config).items() if name not in RESUMABLE_FIELDS
    }
    digest = new_digest(size=8)
    for numbers in (
        batch_source.examples.offsets,
        batch_source.examples.lengths,
        batch_source.examples.positives,
    ):
        for start in range(0, len(numbers), 1 << 22):
            digest.update(np.ascontiguousarray(numbers[start : start + (1 << 22)]).data)
    shards = batch_source.shard.devices if config.data.batching == "packed" else None
    return json.loads(json.dumps(fields | {"examples": digest.hexdigest(), "shards": shards}))


def write_config(config: TrainConfig, workdir: Path) -> None:
    """Writes `config.json` in `workdir`, for reference."""
    if jax.process_index() == 0:
        text = json.dumps(to_json(config), indent=2)
        (workdir / "config.json").write_text(text + "\n", encoding="utf-8")


def _run(config: TrainConfig, start: Pretrained, mesh: Mesh, batch_source: BatchSource) -> Run:
    params, loss = start.params, None
    compute = training_compute(config.compute, config.optimizer)
    keys = jax.random.split(jax.random.key(config.seed))
    if config.objective == "retromae":
        if not batch_source.texts_only:
            raise ValueError(
                'objective "retromae" requires plain texts: one {"text": ...} per line'
            )
        params = params | _extra_params(start, keys[0], mesh)
        gradients = retromae_gradients(start.config, config.retromae, compute, mesh)
    else:
        if batch_source.texts_only:
            raise ValueError(
                'objective "m3" requires pairs: one {"query": ..., "pos": [...]} per line'
            )
        loss = config.loss
        if {"sparse", "colbert"} <= set(loss.heads):
            start = dataclasses.replace(start, heads_trained=True)
        gradients = m3_gradients(start.config, loss, config.step, compute, mesh)
    schedule = make_schedule(config.optimizer, config.steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    trainer = make_trainer(gradients, optimizer, config.optimizer, loss, schedule, mesh, params)
    return Run(start, mesh, batch_source, trainer.init(params), trainer, keys[1])


def with_mask(config: RetroMAEConfig, start: Pretrained) -> RetroMAEConfig:
    """`config` with `mask_id` set to the tokenizer's <mask>, unless it is set already."""
    if config.mask_id is not None:
        return config
    mask_id = start.tokenizer.backend.token_to_id("<mask>")
    if mask_id is None:
        raise ValueError(
            f"the tokenizer of {start.source} has no <mask>: choose a token with "
            "--set retromae.mask_id=N"
        )
    return dataclasses.replace(config, mask_id=mask_id)


def _extra_params(start: Pretrained, key: jax.Array, mesh: Mesh) -> dict[str, Any]:
    """The decoder, initialized from the encoder's last layer, and the vocabulary head, sharded."""

    def init(key, encoder):
        return init_retromae(start.config, key, encoder)

    like = jax.eval_shape(init, key, start.params["encoder"])
    init = jax.jit(init, out_shardings=state_sharding(like, mesh))
    return init(key, start.params["encoder"])
