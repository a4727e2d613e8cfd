"""A cache of encoded corpora and queries, keyed by a hash of model, texts and settings.

    CACHE/corpus-HASH-MODES/     an index (search/index.py); MODES are letters of `LETTERS`
    CACHE/queries-HASH-MODES/    embeddings (search/corpus.py)

The hash covers texts, ids, model, instruction, length and number format. An entry with more modes
than requested is used too.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from m3jax.config import HEADS
from m3jax.embed import corpus
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.embeddings import Embeddings
from m3jax.evaluate.tasks import Task
from m3jax.io.hashing import hex_digest
from m3jax.io.jsonl import Record
from m3jax.search.build import IndexOptions, build_index, join
from m3jax.search.documents import Document
from m3jax.search.index import MANIFEST, Index
from m3jax.search.options import heads_of

QUERY_SHARD = 1024  # queries searched at a time
LETTERS = {"dense": "d", "sparse": "s", "colbert": "m"}  # in names of directories


def modes_for(
    embedder: M3Embedder | None, methods: Iterable[str], store: str = "all"
) -> tuple[str, ...]:
    """Representations to store: those that `methods` need, and with store="all" all others.

    Of a checkpoint whose heads are untrained, only those needed.
    """
    needed = heads_of(tuple(methods))
    trained = embedder is not None and embedder.encoder.model.heads_trained
    return HEADS if needed and store == "all" and trained else needed


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingStore:
    """A model and the directory of its encoded corpora and queries."""

    embedder: M3Embedder
    fingerprint: str  # of the model, computed once
    folder: Path
    modes: tuple[str, ...]
    dtype: str = "float32"  # of document vectors; queries' stay float32
    batch_size: int | None = None
    cls_every: int | None = None  # MCLS, of documents

    def corpus(self, task: Task, length: int) -> Index:
        """The index of a task's corpus, built if missing; those of the parts of a united task."""
        if task.parts:
            return join({part.name: self.corpus(part, length) for part in task.parts})
        folder = self._folder_of(task, length)
        if not _is_index(folder):
            options = IndexOptions(
                modes=self.modes,
                max_length=length,
                dtype=self.dtype,
                batch_size=self.batch_size,
                cls_every=self.cls_every,
            )
            build_index(self.embedder, task.documents(), folder, options)
        opened = Index.open(folder)
        opened.use(self.embedder)
        return opened

    def has(self, task: Task, length: int) -> bool:
        """Whether `corpus` needs to encode nothing."""
        return all(_is_index(self._folder_of(part, length)) for part in task.parts or [task])

    def _folder_of(self, task: Task, length: int) -> Path:
        prefix = self.embedder.passage_instruction
        identity = [
            task.digest,
            self.fingerprint,
            self.embedder.compute.dtype,
            prefix,
            length,
            self.dtype,
            *([] if self.cls_every is None else [self.cls_every]),
        ]
        return _entry(self.folder, "corpus", identity, self.modes, _is_index)

    def queries(self, ids: list[str], texts: list[str], length: int) -> Iterator[Embeddings]:
        """Embeddings of `QUERY_SHARD` queries at a time, in order, encoded if missing."""
        prefix = self.embedder.query_instruction
        identity = [ids, texts, self.fingerprint, self.embedder.compute.dtype, prefix, length]
        folder = _entry(self.folder, "queries", identity, self.modes, _is_complete)
        if not _is_complete(folder):
            pairs = enumerate(zip(ids, texts, strict=True), start=1)
            options = corpus.CorpusOptions(
                modes=self.modes,
                max_length=length,
                shard_size=QUERY_SHARD,
                batch_size=self.batch_size,
            )
            corpus.encode_corpus(
                self.embedder,
                (Record(name, prefix + text, line) for line, (name, text) in pairs),
                folder,
                options,
                source="queries",
            )
        return (embeddings for _, embeddings in corpus.read_shards(folder))


def text_index(documents: Iterable[Record], embedder: M3Embedder | None) -> Index:
    """An index without vectors, for BM25."""
    texts = [Document(record.id, record.text) for record in documents]
    return Index(len(texts), None, None, None, texts, {}, model=embedder)


def _entry(
    cache: Path, content: str, identity: list[Any], modes: tuple[str, ...], is_complete: Any
) -> Path:
    """The directory of an entry: a complete one with at least `modes`, else a new one."""
    stem = f"{content}-{hex_digest(json.dumps(identity, ensure_ascii=False), size=10)}"
    letters = {LETTERS[mode] for mode in modes}
    for path in sorted(cache.glob(f"{stem}-*")):
        if letters <= set(path.name.rsplit("-", 1)[-1]) and is_complete(path):
            return path
    return cache / f"{stem}-{''.join(LETTERS[mode] for mode in HEADS if mode in modes)}"


def _is_index(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def _is_complete(path: Path) -> bool:
    return (path / corpus.MANIFEST).is_file() and corpus.read_manifest(path)["complete"]
