"""The training batches of every epoch, addressed by step number alone."""

import dataclasses
import functools
import threading
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from m3jax.config import DataConfig
from m3jax.feed.layout import (
    BatchShape,
    TokenizedExamples,
    concatenate,
    packed_batch,
    padded_batch,
    text_key,
)
from m3jax.feed.plan import (
    EpochPlan,
    ExampleSizes,
    ExampleStats,
    Members,
    example_stats,
    length_groups,
    longest_text,
    packed_batches,
    plan_epoch,
)
from m3jax.feed.sampling import pick_passages, shuffled_thirds
from m3jax.text.buckets import bucket_ladder, bucket_of
from m3jax.text.packing import PackShape
from m3jax.text.tokenizer import Tokenizer
from m3jax.types import HAS_SCORES, IN_BATCH, TextBatch, TrainBatch

MIN_MEAN_LENGTH = 8  # tokens: the mean length of a row's texts, at least; bounds texts per row
_PLANNING = threading.RLock()  # several reader threads request plans


class Shard(NamedTuple):
    """The share of every global batch that one process makes."""

    process: int = 0
    processes: int = 1
    devices: int = 1  # devices of all processes that share the rows of a batch


@runtime_checkable
class Examples(ExampleSizes, Protocol):
    """Examples with random access, and their sizes."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...


@dataclasses.dataclass(frozen=True)
class BatchSource:
    """The batches of a training run as a function of the step number.

    Picklable: a worker process makes its own plans. Raises ValueError if there are no examples, or
    if the devices do not divide the batch sizes.
    """

    examples: Examples
    tokenizer: Tokenizer
    config: DataConfig
    shard: Shard = Shard()

    def __post_init__(self):
        if not len(self.examples):
            raise ValueError("there are no examples to train on")
        devices, processes = self.shard.devices, self.shard.processes
        if devices % processes:
            raise ValueError(f"{devices} devices cannot be divided evenly by {processes} processes")
        for size in self.config.batch_sizes:
            if size % devices:
                raise ValueError(
                    f"data.batch_sizes has {size}, which is not divisible by the {devices} devices "
                    "that share a batch"
                )

    @property
    def texts_only(self) -> bool:
        """Whether the examples are plain texts without passages, for pre-training."""
        return int(self.examples.positives[0]) == 0

    @functools.cached_property
    def _stats(self) -> ExampleStats:
        return example_stats(self.examples, self.config)

    @functools.cached_property
    def _plans(self) -> dict[int, EpochPlan]:
        return {}

    @functools.cached_property
    def _counts(self) -> dict[int, int]:
        return {}  # batches of each epoch planned so far

    def __getstate__(self) -> dict[str, Any]:
        """The fields without cached plans."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch, the same in every process. The last two plans are cached."""
        with _PLANNING:
            if epoch not in self._plans:
                build = None
                if self.config.batching == "packed":
                    lengths = functools.partial(self.lengths_of, epoch=epoch)
                    build = packed_batches(
                        self.config, self.pack_shapes, self.shard.devices, lengths
                    )
                while len(self._plans) > 1:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[epoch] = plan_epoch(self._stats, self.config, epoch, build)
            return self._plans[epoch]

    def locate(self, step: int) -> tuple[int, int]:
        """(epoch, number of the batch within it) of a step counted from 0."""
        epoch = 0
        while True:
            if epoch not in self._counts:
                self._counts[epoch] = len(self.plan(epoch).groups)
            if step < self._counts[epoch]:
                return epoch, step
            if not self._counts[epoch]:
                raise ValueError("the plan has no batches: data.drop_below drops every example")
            step -= self._counts[epoch]
            epoch += 1

    def shape(self, step: int) -> BatchShape:
        """The shape of a step's batch."""
        epoch, number = self.locate(step)
        plan = self.plan(epoch)
        return self._shape(np.concatenate(plan.batch(number)), int(plan.groups[number]))

    def batch(self, step: int) -> TrainBatch | TextBatch:
        """This process's share of a step's batch, as NumPy arrays; a TextBatch for plain texts."""
        epoch, number = self.locate(step)
        plan = self.plan(epoch)
        group, shards = int(plan.groups[number]), plan.batch(number)
        shape = self._shape(np.concatenate(shards), group)
        process, processes, devices = self.shard
        if self.config.batching == "packed":
            per_process = devices // processes
            first = process * per_process
            return concatenate(
                [
                    self._packed(examples, epoch, shape, first + i)
                    for i, examples in enumerate(shards[first : first + per_process])
                ]
            )
        local = shards[0][process * shape.queries : (process + 1) * shape.queries]
        examples = read_texts(self, local, epoch)
        return padded_batch(examples, shape, shape.queries, self.tokenizer.pad_id)

    @functools.cached_property
    def pack_shapes(self) -> dict[int, PackShape]:
        """The packed rows of one device by length group: as many as its share of a batch fills."""
        shapes = {}
        group_count = len(self.config.length_boundaries)
        groups = length_groups(self._stats, self.config)
        counts = np.bincount(groups, minlength=group_count)
        tokens = np.bincount(groups, self._stats.tokens, group_count)
        overall = self._stats.tokens.mean()
        for group, size in enumerate(self.config.batch_sizes):
            width = max(self.config.row_width, longest_text(self.config, group, self.texts_only))
            mean = tokens[group] / counts[group] if counts[group] else overall
            share = size // self.shard.devices
            num_rows = max(self._max_texts, round(share * mean / width))
            # Space for shorter examples beside those that give a row its width.
            max_texts = max(1, width // MIN_MEAN_LENGTH)
            shapes[group] = PackShape(num_rows, width, max_texts, 2 * share)
        return shapes

    @functools.cached_property
    def _max_texts(self) -> int:
        """The most texts of one example: each may fill a row."""
        if self.texts_only:
            return 1
        positives = np.asarray(self.examples.positives)
        negatives = np.diff(np.asarray(self.examples.offsets)) - 1 - positives
        return 1 + (self.config.group_size if negatives.any() else 1)

    def lengths_of(self, index: int, epoch: int) -> list[int]:
        """Tokens kept of an example's query and of the passages selected in this epoch."""
        first, last = self.examples.offsets[index : index + 2]
        tokens = np.asarray(self.examples.lengths[first:last])
        query = min(int(tokens[0]), self.config.query_length)
        limit = self.config.passage_length
        return [query, *(min(int(tokens[1 + i]), limit) for i in self.selected(index, epoch))]

    def selected(self, index: int, epoch: int) -> list[int]:
        """The passages selected in this epoch, as indices into positives + negatives."""
        positives = int(self.examples.positives[index])
        if not positives:
            return []
        first, last = self.examples.offsets[index : index + 2]
        negatives = int(last - first) - 1 - positives
        size = self.config.group_size if negatives else 1
        if positives == 1 and size == 1:
            return [0]
        positive, others = pick_passages(self.config.seed, epoch, index, positives, negatives, size)
        return [positive, *(positives + i for i in others)]

    def _shape(self, examples: Members, group: int) -> BatchShape:
        first = int(examples[0])
        group_size = len(self.selected(first, 0))
        has_scores = bool(self.examples.flags[first] & HAS_SCORES) and group_size > 0
        if self.config.batching == "packed":
            max_examples = self.pack_shapes[group].max_examples
            queries = max_examples * self.shard.devices // self.shard.processes
        else:
            queries = self.config.batch_sizes[group] // self.shard.processes
        return BatchShape(group, queries, group_size, has_scores, *self._widths(examples, group))

    def _widths(self, examples: Members, group: int) -> tuple[int, int]:
        """Tokens of a row of queries and of passages, whichever passages are selected."""
        config, longest = self.config, longest_text(self.config, group, self.texts_only)
        limits = min(config.query_length, longest), min(config.passage_length, longest)
        if config.batching == "padded_to_group":
            return limits
        queries = np.asarray(self.examples.offsets[examples])
        counts = np.asarray(self.examples.offsets[examples + 1]) - queries - 1
        before = np.repeat(np.cumsum(counts) - counts, counts)
        passages = np.repeat(queries + 1, counts) + np.arange(counts.sum()) - before
        lengths = [
            int(np.max(self.examples.lengths[texts], initial=1)) for texts in (queries, passages)
        ]
        query, passage = (
            bucket_of(min(length, limit), bucket_ladder(limit))
            for length, limit in zip(lengths, limits, strict=True)
        )
        return query, passage

    def _packed(
        self, examples: Members, epoch: int, shape: BatchShape, shard: int
    ) -> TrainBatch | TextBatch:
        """The packed rows of one device."""
        texts = read_texts(self, examples, epoch)
        lengths = [self.lengths_of(int(i), epoch) for i in examples]
        pack_shape = self.pack_shapes[shape.group]
        return packed_batch(texts, lengths, shape, pack_shape, shard, self.tokenizer.pad_id)


def read_texts(batch_source: BatchSource, examples: Members, epoch: int) -> TokenizedExamples:
    """Reads and tokenizes examples with the passages selected in this epoch."""
    config = batch_source.config
    queries, passages, in_batch, teacher_scores = [], [], [], []
    for index in map(int, examples):
        example = batch_source.examples[index]
        queries.append(example.prompt + example.query)
        selected = batch_source.selected(index, epoch)
        candidates = (*example.positives, *example.negatives)
        texts = [candidates[i] for i in selected]
        if texts and config.shuffle_ratio:
            texts[0] = shuffled_thirds(texts[0], config.shuffle_ratio, config.seed, epoch, index)
        passages += texts
        flags = int(batch_source.examples.flags[index])
        source = batch_source.examples.sources[int(batch_source.examples.source_ids[index])]
        in_batch.append(bool(flags & IN_BATCH) and source not in config.no_in_batch)
        if flags & HAS_SCORES:
            scores = (*(example.positive_scores or ()), *(example.negative_scores or ()))
            teacher_scores.append([scores[i] for i in selected])
    return TokenizedExamples(
        batch_source.tokenizer.encode(queries, config.query_length),
        batch_source.tokenizer.encode(passages, config.passage_length),
        in_batch,
        [text_key(text) for text in passages],
        teacher_scores,
    )
