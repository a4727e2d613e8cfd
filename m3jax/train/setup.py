"""From a config to everything a run needs: model, examples, optimiser, step."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
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

# Fields that may differ between a run and its resumption: they decide nothing of the result.
FREE = (
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
    """What `loop.train` drives."""

    start: Pretrained  # the model it starts from; its config and tokenizer go with every export
    mesh: Mesh
    batch_source: BatchSource
    state: TrainState
    trainer: Trainer
    key: jax.Array

    def update(self, state: TrainState, batches: Sequence[Any]):
        """One optimiser step: the new state and the metrics, still on the devices."""
        return self.trainer.update(state, batches, self.key)

    def model_of(self, state: TrainState) -> dict[str, Any]:
        """The parameters to use: the averages where they are kept, without what only trains."""
        params = state.params if state.ema is None else state.ema
        return {name: params[name] for name in ("encoder", "heads")}


def prepare(
    config: TrainConfig,
    workdir: Path,
    memory: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[TrainConfig, Run]:
    """Loads and builds everything; the config comes back with `steps` counted.

    With `memory`, bytes of one device, batches are made to fit it (see `fit_memory.fit_once`). Data
    files that are not built yet are built under `workdir`. Raises FileNotFoundError or ValueError
    naming the field, file or directory.
    """
    mesh = sharding.make_mesh(**dataclasses.asdict(config.mesh), devices=jax.devices())
    start = pretrained.load(config.model, mesh=mesh, pooling=config.pooling, seed=config.seed)
    longest = config.data.query_length  # that of plain texts
    if config.objective != "retromae":
        longest = max(longest, config.data.passage_length)
    if longest > start.config.encoder.max_length:
        raise ValueError(
            f"{config.model} takes texts of up to {start.config.encoder.max_length} tokens, "
            f"data.query_length or data.passage_length asks for {longest}: lower them, or lengthen "
            "the model with m3jax convert extend-positions"
        )
    examples = open_or_build(config, workdir, start)
    if config.objective == "retromae":
        config = dataclasses.replace(config, retromae=with_mask(config.retromae, start))
    if memory is not None:
        config = fit_memory.fit_once(config, start.config, mesh, memory, workdir, say)
    batch_source = BatchSource(examples, start.tokenizer, config.data, process_shard(mesh))
    if not batch_source.texts_only:
        _check_negatives(batch_source, say)
    steps = config.steps or sum(
        len(batch_source.plan(epoch).groups) for epoch in range(config.epochs)
    )
    config = dataclasses.replace(config, steps=steps)
    loss = config.loss
    distils = config.objective != "retromae" and len(loss.heads) > 1 and loss.self_distill
    if distils and loss.self_distill_start >= steps:
        say(
            f"warning: self-distillation would set in at step {loss.self_distill_start}, but the "
            f"run has {steps}: set loss.self_distill_start lower, or loss.self_distill=False"
        )
    return config, _run(config, start, mesh, batch_source)


def open_or_build(config: TrainConfig, workdir: Path, start: Pretrained) -> Any:
    """The examples of `train_data`: directories that `m3jax data build` made, or files to build."""
    if not config.train_data:
        raise ValueError("train_data names no file: --data FILE.jsonl or --data DIR")
    first = Path(config.train_data[0])
    if len(config.train_data) == 1 and (first / build.METADATA).is_file():
        found = build.open_examples(first)
    else:
        built = workdir / "data"
        if jax.process_index() == 0:
            _build(config, built, start)
        if jax.process_count() > 1:  # the others read what process 0 built, on the shared disk
            multihost_utils.sync_global_devices("m3jax: data is built")
        found = build.open_examples(built)
    build.check_tokenizer(found, start.tokenizer)
    return found


def _build(config: TrainConfig, built: Path, start: Pretrained) -> None:
    """Builds what is not there; once more where the files have changed since. (A run that has a
    checkpoint is refused then, by its fingerprint.)"""
    stamps, path = _stamps(config), built.with_name(f"{built.name}_inputs.json")
    if stamps and path.is_file() and json.loads(path.read_text(encoding="utf-8")) != stamps:
        shutil.rmtree(built, ignore_errors=True)
    if not (built / build.METADATA).is_file():
        record_format = "texts" if config.objective == "retromae" else "examples"
        path.write_text(json.dumps(stamps) + "\n", encoding="utf-8")
        build.build(list(config.train_data), built, start.tokenizer, record_format=record_format)


def _stamps(config: TrainConfig) -> list[list[Any]]:
    """(file, bytes, time) of the training files; none where they are gone, and what was built
    serves."""
    try:
        files = [(str(file), file.stat()) for file in example_files(config.train_data)]
    except FileNotFoundError:
        return []
    return [[config.objective], *([name, s.st_size, s.st_mtime_ns] for name, s in files)]


def _check_negatives(batch_source: BatchSource, say: Callable[[str], None]) -> None:
    """Tells of examples that have neither own negatives nor those of their batch: loss 0."""
    found, data = batch_source.examples, batch_source.config
    own = np.diff(np.asarray(found.offsets)) - 1 - np.asarray(found.positives)
    outside = [i for i, name in enumerate(found.sources) if name in data.no_in_batch]
    shared = (np.asarray(found.flags) & IN_BATCH).astype(bool)
    shared &= ~np.isin(np.asarray(found.source_ids), outside)
    alone = ~shared & ((own == 0) | (data.group_size == 1))
    if alone.all():
        raise ValueError(
            "no example has a negative: in-batch negatives are off for all of them, and neg is "
            "empty or data.group_size is 1"
        )
    if alone.any():
        say(
            f"warning: {alone.sum():,} of {len(alone):,} examples teach nothing: in-batch "
            "negatives are off for them, and neg is empty or data.group_size is 1"
        )


def fingerprint(config: TrainConfig, batch_source: BatchSource) -> dict[str, Any]:
    """What decides every number of a run: all fields but the free ones, and the examples."""
    fields = {name: value for name, value in to_json(config).items() if name not in FREE}
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
    """`config.json` beside the checkpoints: what was trained, for people and for `--set`."""
    if jax.process_index() == 0:
        text = json.dumps(to_json(config), indent=2)
        (workdir / "config.json").write_text(text + "\n", encoding="utf-8")


def _run(config: TrainConfig, start: Pretrained, mesh: Mesh, batch_source: BatchSource) -> Run:
    params, loss = start.params, None
    compute = training_compute(config.compute, config.optimizer)
    keys = jax.random.split(jax.random.key(config.seed))
    if config.objective == "retromae":
        if not batch_source.texts_only:
            raise ValueError('objective "retromae" trains on plain texts: {"text": ...} a line')
        params = params | _extra_params(start, keys[0], mesh)
        gradients = retromae_gradients(start.config, config.retromae, compute, mesh)
    else:
        if batch_source.texts_only:
            raise ValueError('objective "m3" trains on pairs: {"query": ..., "pos": [...]} a line')
        loss = config.loss
        if {"sparse", "colbert"} <= set(loss.heads):
            start = dataclasses.replace(start, heads_trained=True)
        gradients = m3_gradients(start.config, loss, config.step, compute, mesh)
    schedule = make_schedule(config.optimizer, config.steps)
    optimizer = make_optimizer(config.optimizer, schedule)
    trainer = make_trainer(gradients, optimizer, config.optimizer, loss, schedule, mesh, params)
    return Run(start, mesh, batch_source, trainer.init(params), trainer, keys[1])


def with_mask(config: RetroMAEConfig, start: Pretrained) -> RetroMAEConfig:
    """`config` with the id of the tokenizer's <mask>, where it names none."""
    if config.mask_id is not None:
        return config
    mask_id = start.tokenizer.backend.token_to_id("<mask>")
    if mask_id is None:
        raise ValueError(
            f"the tokenizer of {start.source} has no <mask>: name a token with "
            "--set retromae.mask_id=N"
        )
    return dataclasses.replace(config, mask_id=mask_id)


def _extra_params(start: Pretrained, key: jax.Array, mesh: Mesh) -> dict[str, Any]:
    """The decoder, from the encoder's last layer, and the vocabulary head, each on its devices."""

    def make(key, encoder):
        return init_retromae(start.config, key, encoder)

    like = jax.eval_shape(make, key, start.params["encoder"])
    place = jax.jit(make, out_shardings=state_sharding(like, mesh))
    return place(key, start.params["encoder"])
