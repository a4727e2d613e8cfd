"""Prefetching of batches with Grain's threads or processes, and their transfer to the mesh."""

from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from m3jax import sharding
from m3jax.feed.source import BatchSource, Shard


def process_shard(mesh: Mesh) -> Shard:
    """The share of every global batch that this process makes."""
    return Shard(jax.process_index(), jax.process_count(), sharding.batch_shards(mesh))


def host_batches(
    batch_source: BatchSource, start: int, steps: int, *, workers: int = 0, ahead: int = 4
) -> Iterator[Any]:
    """This process's share of the batches of steps `start` to `steps`, up to `ahead` in advance.

    With `workers` > 0, that many processes read and tokenize; otherwise threads do, which is
    enough if most time is spent in the tokenizer (it releases the GIL).
    """
    numbers = grain.MapDataset.range(start, steps).map(lambda step: batch_source.batch(int(step)))
    options = grain.ReadOptions(num_threads=min(2, ahead), prefetch_buffer_size=ahead)
    dataset = numbers.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
        )
    yield from dataset


def place(batch: Any, mesh: Mesh) -> Any:
    """This process's share of a batch as global arrays, rows split over `data` and `fsdp`."""
    rows = sharding.batch_sharding(mesh)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(rows, np.asarray(leaf)), batch
    )
