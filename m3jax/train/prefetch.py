"""Batches made ahead of the step that needs them, by Grain's threads or processes, on the mesh.

A batch is a function of its step's number, so the number is all there is to save and restore.
"""

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
    """This process's parts of the batches of steps `start` to `steps`, made ahead of their use.

    With `workers`, other processes read and tokenise; without, threads do, which serves wherever
    the tokeniser (it releases the interpreter's lock) is the larger part.
    """
    numbers = grain.MapDataset.range(start, steps).map(lambda step: batch_source.batch(int(step)))
    options = grain.ReadOptions(num_threads=min(2, ahead), prefetch_buffer_size=ahead)
    dataset = numbers.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's workers read flags; nobody else sets any
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead)
        )
    yield from dataset


def place(batch: Any, mesh: Mesh) -> Any:
    """A process's part of a batch to its share of the global arrays."""
    rows = sharding.batch_sharding(mesh)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(rows, np.asarray(leaf)), batch
    )
