"""The order of training data: which examples form each batch of an epoch.

    n  examples

A plan is a pure function of (config, example sizes, epoch). Every process computes the same plan,
and a run resumes from its step number alone.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int16, Int32, Int64, Integer

from m3jax.config import DataConfig
from m3jax.feed.sampling import hash64
from m3jax.text.packing import PackShape, fill_rows
from m3jax.types import HAS_SCORES

BLOCK = 1 << 20  # examples read at a time

Members = Int64[np.ndarray, "_"]  # numbers of examples


@runtime_checkable
class ExampleSizes(Protocol):
    """The sizes of the examples as arrays, usually memory-mapped. No text is read."""

    @property
    def offsets(self) -> Integer[np.ndarray, " n_plus_1"]:
        """The texts of example i are `offsets[i]` to `offsets[i + 1]` in `lengths`."""
        ...

    @property
    def lengths(self) -> Integer[np.ndarray, " texts"]:
        """Tokens of every text. Per example: the query, the positives, the negatives."""
        ...

    @property
    def positives(self) -> Integer[np.ndarray, " n"]:
        """Number of positives of each example."""
        ...

    @property
    def source_ids(self) -> Integer[np.ndarray, " n"]:
        """Index into `sources` of each example."""
        ...

    @property
    def flags(self) -> Integer[np.ndarray, " n"]:
        """Bits `types.IN_BATCH` and `types.HAS_SCORES` of each example."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the data sources."""
        ...


@dataclasses.dataclass(frozen=True)
class ExampleStats:
    """Per example: its length, and what must agree within a batch."""

    length: Int32[np.ndarray, " n"]  # tokens of the longest text, after truncation
    tokens: Float32[np.ndarray, " n"]  # mean tokens of the query and a full group of passages
    batch_key: Int32[np.ndarray, " n"]  # examples share a batch only if their keys are equal
    source_ids: Integer[np.ndarray, " n"]
    sources: int  # number of sources


class EpochPlan(NamedTuple):
    """The batches of one epoch, each split into `shards` shards.

    Shard i, counted over all batches, holds the examples `order[starts[i] : starts[i + 1]]`. A
    padded batch is one shard; a packed batch has one shard per device.
    """

    order: Int64[np.ndarray, " examples"]
    starts: Int64[np.ndarray, " bounds"]
    groups: Int16[np.ndarray, " batches"]  # the length group that gives each batch its shape
    shards: int  # shards per batch
    dropped: int  # examples left out because their last batch was too small

    def batch(self, number: int) -> list[Members]:
        """The examples of a batch, one array per shard."""
        return [
            self.order[self.starts[i] : self.starts[i + 1]]
            for i in range(number * self.shards, (number + 1) * self.shards)
        ]


class PlannedBatch(NamedTuple):
    """The examples of one batch by shard, and the length group that gives the batch its shape."""

    group: int
    shards: list[Members]


# Maps {length group: examples in random order}, all of one batch key, to (batches, number dropped).
BatchBuilder = Callable[[dict[int, Members]], tuple[list[PlannedBatch], int]]


def example_stats(sizes: ExampleSizes, config: DataConfig) -> ExampleStats:
    """Computes the statistics of every example in one pass over the sizes."""
    count = len(sizes.positives)
    length = np.empty(count, np.int32)
    average = np.empty(count, np.float32)
    batch_key = np.empty(count, np.int32)
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        offsets = np.asarray(sizes.offsets[block.start : block.stop + 1])
        tokens = np.asarray(sizes.lengths[offsets[0] : offsets[-1]])
        firsts = (offsets[:-1] - offsets[0]).astype(np.int64)
        kept = np.minimum(tokens, config.passage_length)
        kept[firsts] = np.minimum(tokens[firsts], config.query_length)
        length[block] = np.maximum.reduceat(kept, firsts)
        texts = np.diff(offsets) - 1
        hard = (texts > sizes.positives[block]) & (config.group_size > 1)
        query = kept[firsts].astype(np.float32)
        passage = (np.add.reduceat(kept, firsts) - query) / np.maximum(texts, 1)
        average[block] = query + passage * np.where(hard, config.group_size, texts > 0)
        scored = (np.asarray(sizes.flags[block]) & HAS_SCORES) > 0
        batch_key[block] = 2 * hard + scored
        if config.one_source:
            batch_key[block] += 4 * np.asarray(sizes.source_ids[block], np.int32)
    return ExampleStats(length, average, batch_key, sizes.source_ids, len(sizes.sources))


def plan_epoch(
    stats: ExampleStats, config: DataConfig, epoch: int, build: BatchBuilder | None = None
) -> EpochPlan:
    """The batches of an epoch in random order.

    Examples of a batch share one batch key and, mostly, one length group. `build` fills the
    batches: `padded_batches(config)` by default, or `packed_batches`. If `config.source_power` is
    1, every example appears exactly once or is counted as dropped.
    """
    build = build or padded_batches(config)
    chosen = _sampled(stats, config, epoch)
    group_count = len(config.length_boundaries)
    group_of = length_groups(stats, config)[chosen]
    pool = stats.batch_key[chosen] * group_count + group_of
    # One sort: by pool, and at random within a pool.
    order = np.lexsort((hash64(config.seed, epoch, 1, np.arange(len(chosen))), pool))
    chosen, pool = chosen[order], pool[order]
    pool_ids, begin = np.unique(pool, return_index=True)
    by_key: dict[int, dict[int, Members]] = {}
    for pool_id, members in zip(pool_ids, np.split(chosen, begin[1:]), strict=True):
        key, group = divmod(int(pool_id), group_count)
        by_key.setdefault(key, {})[group] = members
    batches: list[PlannedBatch] = []
    dropped = 0
    for groups in by_key.values():
        more, left_out = build(groups)
        batches += more
        dropped += left_out
    return _shuffled(batches, dropped, config.seed, epoch)


def length_groups(stats: ExampleStats, config: DataConfig) -> Int64[np.ndarray, " n"]:
    """The length group of each example. The last group takes everything longer."""
    return np.searchsorted(np.asarray(config.length_boundaries[:-1]), stats.length)


def longest_text(config: DataConfig, group: int, texts_only: bool) -> int:
    """Tokens of the longest text of a length group, after truncation.

    `texts_only`: the examples are plain texts, truncated at `config.query_length`.
    """
    limit = config.query_length
    if not texts_only:
        limit = max(limit, config.passage_length)
    last = group == len(config.length_boundaries) - 1
    return limit if last else min(config.length_boundaries[group], limit)


def padded_batches(config: DataConfig) -> BatchBuilder:
    """Builds batches of `config.batch_sizes[group]` examples, one shard each.

    The remainder of a group moves to the next longer group. The remainder of the last group becomes
    a smaller batch, or is dropped if it has fewer than `config.drop_below` examples.
    """

    def build(groups: dict[int, Members]) -> tuple[list[PlannedBatch], int]:
        batches: list[PlannedBatch] = []
        remainder = np.empty(0, np.int64)
        group = 0
        for group, examples in sorted(groups.items()):
            size = config.batch_sizes[group]
            members = np.concatenate([remainder, examples])
            full = len(members) // size * size
            batches += [PlannedBatch(group, [batch]) for batch in members[:full].reshape(-1, size)]
            remainder = members[full:]
        if len(remainder) and len(remainder) >= config.drop_below:
            batches.append(PlannedBatch(group, [remainder]))
            return batches, 0
        return batches, len(remainder)

    return build


def packed_batches(
    config: DataConfig,
    shapes: dict[int, PackShape],
    shards: int,
    lengths_of: Callable[[int], Sequence[int]],
) -> BatchBuilder:
    """Builds batches of `shards` shards, each shard as many examples as fill the packed rows.

    `shapes` gives the rows of one shard for each length group; `lengths_of(example)` the tokens of
    the example's texts. Groups are processed from the longest to the shortest, and shorter examples
    fill the space that longer ones leave.
    """

    def build(groups: dict[int, Members]) -> tuple[list[PlannedBatch], int]:
        pools = {group: deque(examples.tolist()) for group, examples in groups.items()}
        batches: list[PlannedBatch] = []
        for group in sorted(pools, reverse=True):
            candidates = [pools[other] for other in sorted(pools, reverse=True) if other <= group]
            while pools[group]:
                filled = [fill_rows(candidates, lengths_of, shapes[group]) for _ in range(shards)]
                batches.append(PlannedBatch(group, [np.array(each, np.int64) for each in filled]))
        last = sum(map(len, batches[-1].shards)) if batches else 0
        if last < config.drop_below:
            return batches[:-1], last
        return batches, 0

    return build


def _shuffled(batches: list[PlannedBatch], dropped: int, seed: int, epoch: int) -> EpochPlan:
    order = np.argsort(hash64(seed, epoch, 2, np.arange(len(batches))), kind="stable")
    shards = [shard for i in order for shard in batches[i].shards]
    starts = np.cumsum([0, *map(len, shards)]).astype(np.int64)
    joined = np.concatenate(shards) if shards else np.empty(0, np.int64)
    groups = np.array([batches[i].group for i in order], np.int16)
    per_batch = len(batches[0].shards) if batches else 1
    return EpochPlan(joined.astype(np.int64), starts, groups, per_batch, dropped)


def _sampled(stats: ExampleStats, config: DataConfig, epoch: int) -> Members:
    """The examples of an epoch: all, or a share per source proportional to size ** source_power.

    Each source is an endless sequence of shuffled copies of itself, and each epoch takes the next
    part of it. Over the epochs every example is used, however small the share.
    """
    everything = np.arange(len(stats.length), dtype=np.int64)
    if config.source_power == 1.0:
        return everything
    sources = np.asarray(stats.source_ids)
    counts = np.bincount(sources, minlength=stats.sources)
    weight = np.where(counts > 0, counts.astype(np.float64) ** config.source_power, 0.0)
    shares = np.floor(len(everything) * weight / weight.sum()).astype(np.int64)
    sampled = []
    for source in np.flatnonzero(counts):
        members = everything[sources == source]
        share = max(1, int(shares[source]))
        first = epoch * share
        for copy in range(first // len(members), (first + share - 1) // len(members) + 1):
            order = np.argsort(hash64(config.seed, copy, 3, members), kind="stable")
            base = copy * len(members)
            sampled.append(members[order][max(first - base, 0) : first + share - base])
    return np.concatenate(sampled)
