"""Texts to embeddings: sorted by length, padded to few shapes, on all local devices."""

import concurrent.futures
import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from m3jax import sharding
from m3jax.config import ComputeConfig
from m3jax.embed.embeddings import (
    Embeddings,
    Ragged,
    lexical_matrix,
    stack_offsets,
)
from m3jax.model.m3 import encode_batch
from m3jax.pretrained import Pretrained
from m3jax.text.batches import Slot, plan_padded, rows_of_tokens
from m3jax.text.buckets import bucket_ladder, bucket_of
from m3jax.text.packing import pack_texts
from m3jax.types import Encoding, TextBatch

CHUNK = 4096  # texts that are tokenised, sorted and encoded together; bounds the memory
SHOW_FROM = 256  # texts from which a progress bar is shown
PACKED_WIDTH = 512  # tokens of a packed row, unless a text is longer
TOKENS_PER_BATCH = {"cpu": 4096, "gpu": 65_536, "tpu": 32_768}  # per device


@dataclasses.dataclass(frozen=True)
class Batching:
    """How texts become batches.

    batch_size   rows of a batch; None fills each batch up to a fixed number of tokens
    cls_every    MCLS [M3 app. B.2]: a [CLS] before every `cls_every` tokens (the paper: 256)
    packing      several short texts in a row; faster on accelerators only
    """

    batch_size: int | None = None
    cls_every: int | None = None
    packing: bool = False

    def __post_init__(self):
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


class TextEncoder:
    """A model on its devices. Its only state are the compiled programs.

    It can be shared between threads.
    """

    def __init__(self, model: Pretrained, mesh: jax.sharding.Mesh, compute: ComputeConfig):
        self.model = model
        self.mesh = mesh
        self.compute = compute
        self.rows_multiple = sharding.batch_shards(mesh)
        per_device = TOKENS_PER_BATCH.get(sharding.platform_of(mesh), TOKENS_PER_BATCH["gpu"])
        self.tokens_per_batch = per_device * self.rows_multiple
        self._functions: dict[tuple[str, ...], Any] = {}

    def encode(
        self,
        texts: Iterable[str],
        heads: tuple[str, ...],
        max_length: int,
        batching: Batching = Batching(),
        *,
        progress: bool | None = None,
        chunk: int = CHUNK,
    ) -> Iterator[Embeddings]:
        """Yields the embeddings of `chunk` texts at a time, in order.

        At most two chunks are in memory: while one is on the devices, the next is tokenised.
        `progress` shows a progress bar; None shows it on a terminal if there are many texts. Raises
        TypeError for an item that is not a string, ValueError for a `max_length` beyond the
        position table.
        """
        self.check(max_length, batching.cls_every)
        total = len(texts) if isinstance(texts, Sequence) else None
        large = total is None or total > SHOW_FROM
        show = sys.stderr.isatty() and large if progress is None else progress
        chunks = _chunks(iter(texts), chunk)
        tokenize = functools.partial(
            self.model.tokenizer.encode, max_length=max_length, cls_every=batching.cls_every
        )
        with (
            concurrent.futures.ThreadPoolExecutor(1, "m3jax-tokenize") as pool,
            tqdm(total=total, unit="text", disable=not show, desc="encode") as bar,
        ):
            tokenized = None
            for chunk_texts in itertools.chain(chunks, [None]):
                following = None if chunk_texts is None else pool.submit(tokenize, chunk_texts)
                if tokenized is not None:
                    yield self.encode_chunk(tokenized.result(), heads, batching, bar)
                tokenized = following

    def check(self, max_length: int, cls_every: int | None = None) -> None:
        """Raises ValueError for lengths that the model does not support."""
        longest = self.model.config.encoder.max_length
        if not 2 <= max_length <= longest:
            raise ValueError(
                f"max_length {max_length} is outside 2..{longest}: the position table of "
                f"{self.model.source} ends there (m3jax convert extend-positions makes it longer)"
            )
        if cls_every is not None and (cls_every < 1 or self.model.config.pooling != "cls"):
            raise ValueError(
                "cls_every (MCLS) must be at least 1 and needs a model pooled by [CLS]"
            )

    def encode_chunk(
        self,
        token_ids: list[np.ndarray],
        heads: tuple[str, ...],
        batching: Batching = Batching(),
        bar: tqdm | None = None,
    ) -> Embeddings:
        """The embeddings of tokenised texts, in their order."""
        collected = _Collector(len(token_ids), self.model.config, heads)
        batches = self._batches(token_ids, batching)
        running: tuple[Encoding, list[Slot], TextBatch] | None = None
        apply = self._compiled(heads)
        for batch, slots in batches:
            on_device = jax.device_put(batch, sharding.batch_sharding(self.mesh))
            # The call returns at once: the previous batch is fetched while this one runs.
            encoding = apply(self.model.params, on_device)
            collected.take(running)
            running = encoding, slots, batch
            if bar is not None:
                bar.update(len(slots))
        collected.take(running)
        return collected.embeddings()

    def _batches(
        self, token_ids: list[np.ndarray], batching: Batching
    ) -> Iterator[tuple[TextBatch, list[Slot]]]:
        lengths = [len(ids) for ids in token_ids]
        pad_id = self.model.config.encoder.pad_id
        ladder = bucket_ladder(self.model.config.encoder.max_length)
        if batching.packing and lengths:
            width = bucket_of(min(max(PACKED_WIDTH, *lengths), ladder[-1]), ladder)
            rows = pack_texts(lengths, width)
            segments = 1 << (max(map(len, rows)) - 1).bit_length()  # powers of two, for few shapes
            several = self.rows_multiple
            height = max(several, self.tokens_per_batch // width // several * several)
            for start in range(0, len(rows), height):
                yield rows_of_tokens(
                    token_ids,
                    rows[start : start + height],
                    width,
                    pad_id=pad_id,
                    cls_every=batching.cls_every,
                    num_rows=height,
                    segments=segments,
                )
            return
        plan = plan_padded(
            lengths,
            ladder,
            self.tokens_per_batch,
            rows_per_batch=batching.batch_size,
            row_multiple=self.rows_multiple,
        )
        for bucket, height, rows in plan:
            yield rows_of_tokens(
                token_ids,
                rows,
                bucket,
                pad_id=pad_id,
                cls_every=batching.cls_every,
                num_rows=height,
            )

    def _compiled(self, heads: tuple[str, ...]):
        if heads not in self._functions:
            self._functions[heads] = self._jit(heads)
        return self._functions[heads]

    def _jit(self, heads: tuple[str, ...]):
        config, compute, mesh = self.model.config, self.compute, self.mesh
        rows = sharding.batch_sharding(mesh)

        def apply(params, batch):
            # Otherwise float32 products are rounded to TF32 on a GPU and to bfloat16 on a TPU.
            exact = "highest" if compute.dtype == "float32" else "default"
            with jax.default_matmul_precision(exact):
                return encode_batch(params, batch, config, compute, heads, mesh=mesh)

        return jax.jit(apply, out_shardings=rows)


class _Collector:
    """Collects the outputs of batches and restores the order of the texts."""

    def __init__(self, texts: int, config, heads: tuple[str, ...]):
        self.texts = texts
        self.config = config
        d = config.encoder.hidden_size
        self.dense = np.zeros((texts, d), np.float32) if "dense" in heads else None
        self.sparse: list[tuple[np.ndarray, ...]] | None = [] if "sparse" in heads else None
        self.colbert: dict[int, np.ndarray] | None = {} if "colbert" in heads else None

    def take(self, finished: tuple[Encoding, list[Slot], TextBatch] | None) -> None:
        """Copies the outputs of one batch from the devices; waits until they are computed."""
        if finished is None:
            return
        encoding, slots, batch = finished
        host = jax.device_get(encoding)
        numbers = np.array([slot.text for slot in slots])
        rows = np.array([slot.row for slot in slots])
        if self.dense is not None:
            self.dense[numbers] = host.dense[rows, [slot.segment for slot in slots]]
        if self.sparse is not None:
            owner = np.zeros(batch.lengths.shape, np.int64)
            owner[rows, [slot.segment for slot in slots]] = numbers
            row, column = np.nonzero(host.sparse > 0)
            segment_ids, token_ids = np.asarray(batch.segment_ids), np.asarray(batch.token_ids)
            text = owner[row, segment_ids[row, column] - 1]
            self.sparse.append((text, token_ids[row, column], host.sparse[row, column]))
        if self.colbert is not None:
            for slot in slots:
                here = slice(slot.start, slot.start + slot.length)
                kept = host.mask[slot.row, here]
                self.colbert[slot.text] = host.colbert[slot.row, here][kept]

    def embeddings(self) -> Embeddings:
        """The embeddings of all texts, in order."""
        sparse = colbert = None
        if self.sparse is not None:
            shape = (self.texts, self.config.encoder.vocab_size)
            empty = (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
            columns = zip(empty, *self.sparse, strict=True)
            text, token_ids, weights = (np.concatenate(column) for column in columns)
            sparse = lexical_matrix(text, token_ids, weights, shape)
        if self.colbert is not None:
            matrices = [self.colbert[i] for i in range(self.texts)]
            blank = np.zeros((0, self.config.colbert_dim), np.float32)
            heights = np.array([len(m) for m in matrices], np.int64)
            colbert = Ragged(np.concatenate([blank, *matrices]), stack_offsets([heights]))
        return Embeddings(self.dense, sparse, colbert)


def _chunks(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(texts, size)):
        yield chunk
