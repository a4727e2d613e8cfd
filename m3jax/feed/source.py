"""Examples to training batches: this process's part of any step's batch, from its number alone.

Never imports JAX: worker processes load this file.
"""

import dataclasses
import functools
import threading
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from m3jax.config import DataConfig
from m3jax.feed.layout import Spec, Tokenised, joined, packed, padded, text_key
from m3jax.feed.plan import IN_BATCH, SCORED, Plan, Sizes, Traits, by_rows, plan_epoch, traits
from m3jax.feed.sampling import pick, shuffled_thirds
from m3jax.text.buckets import bucket_ladder, bucket_of
from m3jax.text.packing import Rows
from m3jax.text.tokenizer import Tokenizer
from m3jax.types import TextBatch, TrainBatch

SHORTEST = 8  # tokens a text of a packed row is reckoned to have, on average
_PLANNING = threading.RLock()  # readers of several threads ask for plans


class Part(NamedTuple):
    """Which part of every global batch is wanted."""

    process: int = 0
    processes: int = 1
    shards: int = 1  # devices that share the rows of a batch, over all processes


@runtime_checkable
class Examples(Sizes, Protocol):
    """Sizes, and the example of each number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Feed:
    """The batches of every epoch, by number. Picklable; plans are made where they are needed.

    Raises ValueError where the batch sizes do not divide by the devices, or there is no example.
    """

    examples: Examples
    tokenizer: Tokenizer
    config: DataConfig
    part: Part = Part()

    def __post_init__(self):
        if not len(self.examples):
            raise ValueError("there is no example to train on")
        shards, processes = self.part.shards, self.part.processes
        if shards % processes:
            raise ValueError(f"{processes} processes cannot share {shards} devices evenly")
        for size in self.config.batch_sizes:
            if size % shards:
                raise ValueError(
                    f"data.batch_sizes has {size}, which does not divide by the {shards} devices "
                    "that share a batch"
                )

    @property
    def texts_only(self) -> bool:
        """Are these plain texts, for pre-training, without passages?"""
        return int(self.examples.positives[0]) == 0

    @functools.cached_property
    def _traits(self) -> Traits:
        return traits(self.examples, self.config)

    @functools.cached_property
    def _plans(self) -> dict[int, Plan]:
        return {}

    @functools.cached_property
    def _counts(self) -> dict[int, int]:
        return {}  # batches of each epoch planned so far

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process needs; it makes its own plans."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def plan(self, epoch: int) -> Plan:
        """The order of an epoch: the same in every process. The last two are kept."""
        with _PLANNING:
            if epoch not in self._plans:
                cut = None
                if self.config.layout == "packed":
                    lengths = functools.partial(self.lengths_of, epoch=epoch)
                    cut = by_rows(self.config, self.rows, self.part.shards, lengths)
                while len(self._plans) > 1:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[epoch] = plan_epoch(self._traits, self.config, epoch, cut)
            return self._plans[epoch]

    def locate(self, step: int) -> tuple[int, int]:
        """(epoch, number of the batch in it) of a step counted from 0."""
        epoch = 0
        while True:
            if epoch not in self._counts:
                self._counts[epoch] = len(self.plan(epoch).groups)
            if step < self._counts[epoch]:
                return epoch, step
            if not self._counts[epoch]:
                raise ValueError("the plan has no batch: data.drop_below drops every example")
            step -= self._counts[epoch]
            epoch += 1

    def spec(self, step: int) -> Spec:
        """The shape of a step's batch."""
        epoch, number = self.locate(step)
        plan = self.plan(epoch)
        return self._spec(np.concatenate(plan.pieces(number)), int(plan.groups[number]))

    def batch(self, step: int) -> TrainBatch | TextBatch:
        """This process's part of a step's batch, as NumPy arrays; plain texts have no targets."""
        epoch, number = self.locate(step)
        plan = self.plan(epoch)
        group, pieces = int(plan.groups[number]), plan.pieces(number)
        spec = self._spec(np.concatenate(pieces), group)
        process, processes, shards = self.part
        if self.config.layout == "packed":
            each = shards // processes
            mine = pieces[process * each : (process + 1) * each]
            first = process * each
            return joined(
                [self._packed(piece, epoch, spec, first + i) for i, piece in enumerate(mine)]
            )
        mine = pieces[0][process * spec.queries : (process + 1) * spec.queries]
        texts = read_texts(self, mine, epoch)
        return padded(texts, spec, spec.queries, self.tokenizer.pad_id)

    @functools.cached_property
    def rows(self) -> dict[int, Rows]:
        """The packed rows of one device for each group: what its share of the batch size fills."""
        found = {}
        groups = np.searchsorted(np.asarray(self.config.edges[:-1]), self._traits.length)
        counts = np.bincount(groups, minlength=len(self.config.edges))
        tokens = np.bincount(groups, self._traits.tokens, len(self.config.edges))
        overall = self._traits.tokens.mean()
        for group, size in enumerate(self.config.batch_sizes):
            width = max(self.config.row_width, self._edge(group))
            mean = tokens[group] / counts[group] if counts[group] else overall
            share = size // self.part.shards
            rows = max(self._texts, round(share * mean / width))
            # Room for shorter examples beside those that make a row's length.
            found[group] = Rows(rows, width, max(1, width // SHORTEST), 2 * share)
        return found

    @functools.cached_property
    def _texts(self) -> int:
        """The most texts of one example: any of them may fill a row."""
        if self.texts_only:
            return 1
        positives = np.asarray(self.examples.positives)
        negatives = np.diff(np.asarray(self.examples.offsets)) - 1 - positives
        return 1 + (self.config.group_size if negatives.any() else 1)

    def lengths_of(self, index: int, epoch: int) -> list[int]:
        """Tokens of an example's query and of the passages picked this epoch, as far as kept."""
        first, last = self.examples.offsets[index : index + 2]
        tokens = np.asarray(self.examples.lengths[first:last])
        query = min(int(tokens[0]), self.config.query_length)
        kept = self.config.passage_length
        return [query, *(min(int(tokens[1 + i]), kept) for i in self.places(index, epoch))]

    def places(self, index: int, epoch: int) -> list[int]:
        """The passages picked this epoch, as places in positives followed by negatives."""
        positives = int(self.examples.positives[index])
        if not positives:
            return []
        first, last = self.examples.offsets[index : index + 2]
        negatives = int(last - first) - 1 - positives
        size = self.config.group_size if negatives else 1
        if positives == 1 and size == 1:
            return [0]
        positive, others = pick(self.config.seed, epoch, index, positives, negatives, size)
        return [positive, *(positives + i for i in others)]

    def _edge(self, group: int) -> int:
        """The longest text of a group; the last group has all that is longer."""
        longest = self.config.query_length
        longest = longest if self.texts_only else max(longest, self.config.passage_length)
        last = group == len(self.config.edges) - 1
        return longest if last else min(self.config.edges[group], longest)

    def _spec(self, examples: NDArray[np.int64], group: int) -> Spec:
        first = int(examples[0])
        group_size = len(self.places(first, 0))
        scored = bool(self.examples.flags[first] & SCORED) and group_size > 0
        if self.config.layout == "packed":
            queries = self.rows[group].most * self.part.shards // self.part.processes
        else:
            queries = self.config.batch_sizes[group] // self.part.processes
        return Spec(group, queries, group_size, scored, *self._widths(examples, group))

    def _widths(self, examples: NDArray[np.int64], group: int) -> tuple[int, int]:
        """Tokens of a row of queries and of passages: the same whichever passages are picked."""
        config, edge = self.config, self._edge(group)
        limits = min(config.query_length, edge), min(config.passage_length, edge)
        if config.layout == "group":
            return limits
        starts = np.asarray(self.examples.offsets[examples])
        counts = np.asarray(self.examples.offsets[examples + 1]) - starts - 1
        before = np.repeat(np.cumsum(counts) - counts, counts)
        passages = np.repeat(starts + 1, counts) + np.arange(counts.sum()) - before
        longest = [
            int(np.max(self.examples.lengths[places], initial=1)) for places in (starts, passages)
        ]
        query, passage = (
            bucket_of(min(length, limit), bucket_ladder(limit))
            for length, limit in zip(longest, limits, strict=True)
        )
        return query, passage

    def _packed(self, examples: NDArray[np.int64], epoch: int, spec: Spec, shard: int):
        """The rows of one device, several texts in each."""
        shape = self.rows[spec.group]
        texts = read_texts(self, examples, epoch)
        lengths = [self.lengths_of(int(i), epoch) for i in examples]
        return packed(texts, lengths, spec, shape, shard, self.tokenizer.pad_id)


def read_texts(feed: Feed, examples: NDArray[np.int64], epoch: int) -> Tokenised:
    """Reads and tokenises some examples with the passages picked this epoch."""
    config = feed.config
    queries, passages, in_batch, teacher = [], [], [], []
    for index in map(int, examples):
        example = feed.examples[index]
        queries.append(example.prompt + example.query)
        places = feed.places(index, epoch)
        both = (*example.positives, *example.negatives)
        texts = [both[place] for place in places]
        if texts and config.shuffle_ratio:
            texts[0] = shuffled_thirds(texts[0], config.shuffle_ratio, config.seed, epoch, index)
        passages += texts
        source = feed.examples.sources[int(feed.examples.source_ids[index])]
        flagged = bool(feed.examples.flags[index] & IN_BATCH)
        in_batch.append(flagged and source not in config.no_in_batch)
        if feed.examples.flags[index] & SCORED:  # all of its passages have scores
            scores = (*(example.positive_scores or ()), *(example.negative_scores or ()))
            teacher.append([scores[place] for place in places])
    return Tokenised(
        feed.tokenizer.encode(queries, config.query_length),
        feed.tokenizer.encode(passages, config.passage_length),
        in_batch,
        [text_key(text) for text in passages],
        teacher,
    )
