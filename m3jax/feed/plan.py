"""The order of training data: which examples make up which batch of an epoch.

A pure function of (config, sizes, epoch): every process computes the same plan, and a run resumes
from the number of its step. Never imports JAX.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from m3jax.config import DataConfig
from m3jax.feed.sampling import mix
from m3jax.text.packing import Rows, fill_rows

Numbers = NDArray[np.integer]
BLOCK = 1 << 20  # examples at a time
IN_BATCH, SCORED = 1, 2  # bits of `flags`


@runtime_checkable
class Sizes(Protocol):
    """What a plan knows of the examples: numbers, usually memory-mapped. No text is read."""

    @property
    def offsets(self) -> Numbers:
        """[n + 1] into `lengths`."""
        ...

    @property
    def lengths(self) -> Numbers:
        """Tokens of every text: the query, the positives, the negatives."""
        ...

    @property
    def positives(self) -> Numbers:
        """[n] how many positives."""
        ...

    @property
    def source_ids(self) -> Numbers:
        """[n] into `sources`."""
        ...

    @property
    def flags(self) -> Numbers:
        """[n] IN_BATCH: others' passages are negatives; SCORED: has teacher scores."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """Their names."""
        ...


@dataclasses.dataclass(frozen=True)
class Traits:
    """Of each example: its length, and what must agree within a batch."""

    length: NDArray[np.int32]  # of its longest text, in tokens, as far as texts are kept
    tokens: NDArray[np.float32]  # of the query and as many passages as a group has, on average
    kind: NDArray[np.int32]  # equal where examples may share a batch, whatever their length
    source_ids: Numbers
    sources: int


class Plan(NamedTuple):
    """The batches of one epoch. Piece i holds examples `order[starts[i] : starts[i + 1]]`.

    A padded batch is one piece; a packed one as many as devices share its rows.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    groups: NDArray[np.int16]  # of each batch: the length group that gives it its shape
    parts: int  # pieces of a batch
    dropped: int  # examples of last batches too small to keep

    def pieces(self, batch: int) -> list[NDArray[np.int64]]:
        """The examples of a batch, piece by piece."""
        return [
            self.order[self.starts[i] : self.starts[i + 1]]
            for i in range(batch * self.parts, (batch + 1) * self.parts)
        ]


class Batch(NamedTuple):
    """The examples of one batch, piece by piece, and the group that gives it its shape."""

    group: int
    pieces: list[NDArray[np.int64]]


# The examples of one kind, by group and in random order, to batches and the number left out.
Cut = Callable[[dict[int, NDArray[np.int64]]], tuple[list[Batch], int]]


def traits(sizes: Sizes, config: DataConfig) -> Traits:
    """Reads the numbers of every example once, a block at a time."""
    count = len(sizes.positives)
    length = np.empty(count, np.int32)
    average = np.empty(count, np.float32)
    kind = np.empty(count, np.int32)
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
        scored = (np.asarray(sizes.flags[block]) & SCORED) > 0
        kind[block] = 2 * hard + scored
        if config.one_source:
            kind[block] += 4 * np.asarray(sizes.source_ids[block], np.int32)
    return Traits(length, average, kind, sizes.source_ids, len(sizes.sources))


def plan_epoch(of: Traits, config: DataConfig, epoch: int, cut: Cut | None = None) -> Plan:
    """The batches of an epoch, each of one kind and mostly of one group, in random order.

    `cut` says how a batch is filled: `by_number` of examples, the default, or `by_rows`. With
    `source_power` 1 every example stands in the plan exactly once, but for the dropped.
    """
    cut = cut or by_number(config)
    chosen = _drawn(of, config, epoch)
    edges = np.asarray(config.edges[:-1])
    pool = of.kind[chosen] * len(config.edges) + np.searchsorted(edges, of.length[chosen])
    # One sort: by pool, and at random within it.
    order = np.lexsort((mix(config.seed, epoch, 1, np.arange(len(chosen))), pool))
    chosen, pool = chosen[order], pool[order]
    names, begin = np.unique(pool, return_index=True)
    kinds: dict[int, dict[int, NDArray[np.int64]]] = {}
    for name, members in zip(names, np.split(chosen, begin[1:]), strict=True):
        kind, group = divmod(int(name), len(config.edges))
        kinds.setdefault(kind, {})[group] = members
    batches: list[Batch] = []
    dropped = 0
    for groups in kinds.values():
        more, left_out = cut(groups)
        batches += more
        dropped += left_out
    return _shuffled(batches, dropped, config.seed, epoch)


def by_number(config: DataConfig) -> Cut:
    """A batch is its group's number of examples, in one piece.

    What is left of a group goes on to the next longer one; a last, smaller batch stands at the end,
    unless it holds fewer than `drop_below`.
    """

    def cut(groups: dict[int, NDArray[np.int64]]) -> tuple[list[Batch], int]:
        batches: list[Batch] = []
        tail = np.empty(0, np.int64)
        group = 0
        for group, own in sorted(groups.items()):
            size = config.batch_sizes[group]
            members = np.concatenate([tail, own])
            full = len(members) // size * size
            batches += [Batch(group, [rows]) for rows in members[:full].reshape(-1, size)]
            tail = members[full:]
        if len(tail) and len(tail) >= config.drop_below:
            batches.append(Batch(group, [tail]))
            return batches, 0
        return batches, len(tail)

    return cut


def by_rows(
    config: DataConfig,
    shapes: dict[int, Rows],
    shards: int,
    texts_of: Callable[[int], Sequence[int]],
) -> Cut:
    """A batch is what fills the rows of its group, a piece for each of `shards` devices.

    From the longest group to the shortest; what room its own texts leave is filled with shorter
    ones. `texts_of` gives the lengths of an example's texts.
    """

    def cut(groups: dict[int, NDArray[np.int64]]) -> tuple[list[Batch], int]:
        pools = {group: deque(own.tolist()) for group, own in groups.items()}
        batches: list[Batch] = []
        for group in sorted(pools, reverse=True):
            below = [pools[other] for other in sorted(pools, reverse=True) if other <= group]
            while pools[group]:
                pieces = [fill_rows(below, texts_of, shapes[group]) for _ in range(shards)]
                batches.append(Batch(group, [np.array(piece, np.int64) for piece in pieces]))
        last = sum(map(len, batches[-1].pieces)) if batches else 0
        if last < config.drop_below:
            return batches[:-1], last
        return batches, 0

    return cut


def _shuffled(batches: list[Batch], dropped: int, seed: int, epoch: int) -> Plan:
    order = np.argsort(mix(seed, epoch, 2, np.arange(len(batches))), kind="stable")
    pieces = [piece for i in order for piece in batches[i].pieces]
    starts = np.cumsum([0, *map(len, pieces)]).astype(np.int64)
    joined = np.concatenate(pieces) if pieces else np.empty(0, np.int64)
    groups = np.array([batches[i].group for i in order], np.int16)
    parts = len(batches[0].pieces) if batches else 1
    return Plan(joined.astype(np.int64), starts, groups, parts, dropped)


def _drawn(of: Traits, config: DataConfig, epoch: int) -> NDArray[np.int64]:
    """The examples of an epoch: all of them, or each source's share by size to a power.

    A source is an endless row of shuffled copies of itself, of which each epoch takes the next
    piece: over the epochs nothing is left out, however small the share.
    """
    everything = np.arange(len(of.length), dtype=np.int64)
    if config.source_power == 1.0:
        return everything
    sources = np.asarray(of.source_ids)
    counts = np.bincount(sources, minlength=of.sources)
    weight = np.where(counts > 0, counts.astype(np.float64) ** config.source_power, 0.0)
    shares = np.floor(len(everything) * weight / weight.sum()).astype(np.int64)
    drawn = []
    for source in np.flatnonzero(counts):
        members = everything[sources == source]
        share = max(1, int(shares[source]))
        first = epoch * share
        for copy in range(first // len(members), (first + share - 1) // len(members) + 1):
            order = np.argsort(mix(config.seed, copy, 3, members), kind="stable")
            base = copy * len(members)
            drawn.append(members[order][max(first - base, 0) : first + share - base])
    return np.concatenate(drawn)
