"""Corpora and queries encoded once for each model and content, and found again by their hash.

    CACHE/corpus-HASH-MODES/     an index (search/index.py); MODES are letters: `LETTERS`
    CACHE/queries-HASH-MODES/    embeddings (search/corpus.py)

The hash covers texts, ids, model, instruction, length and number format. An entry that holds more
modes than are asked for serves as well.
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
STORES = ("all", "needed")
LETTERS = {"dense": "d", "sparse": "s", "colbert": "m"}  # in folder names


def modes_for(
    embedder: M3Embedder | None, methods: Iterable[str], store: str = "all"
) -> tuple[str, ...]:
    """The representations to keep: what `methods` need, and with "all" what later ones may.

    A checkpoint without trained heads has the dense one only; its others are made when a method
    asks for them.
    """
    needed = heads_of(tuple(methods))
    if needed and store == "all" and embedder is not None and embedder.encoder.model.heads_trained:
        return HEADS
    return needed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Store:
    """A model and the directory where what it encoded is kept."""

    embedder: M3Embedder
    fingerprint: str  # of the model, computed once
    folder: Path
    modes: tuple[str, ...]
    dtype: str = "float32"  # of document vectors; queries' stay float32
    batch_size: int | None = None
    cls_every: int | None = None  # MCLS, of documents

    def corpus(self, task: Task, length: int) -> Index:
        """The index of a task's corpus, found or made; of a united task, that of its parts."""
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
        """Whether `corpus` would find it."""
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
        """Embeddings of `QUERY_SHARD` queries at a time, in order, found or made."""
        prefix = self.embedder.query_instruction
        identity = [ids, texts, self.fingerprint, self.embedder.compute.dtype, prefix, length]
        folder = _entry(self.folder, "queries", identity, self.modes, _is_complete)
        if not _is_complete(folder):
            pairs = enumerate(zip(ids, texts, strict=True), start=1)
            corpus.encode_corpus(
                self.embedder,
                (Record(name, prefix + text, line) for line, (name, text) in pairs),
                folder,
                modes=self.modes,
                max_length=length,
                shard_size=QUERY_SHARD,
                source="queries",
                batch_size=self.batch_size,
            )
        return (embeddings for _, embeddings in corpus.read_shards(folder))


def of_texts(documents: Iterable[Record], embedder: M3Embedder | None) -> Index:
    """An index without vectors: what BM25 needs."""
    texts = [Document(record.id, record.text) for record in documents]
    return Index(len(texts), None, None, None, texts, {}, model=embedder)


def _entry(
    cache: Path, kind: str, identity: list[Any], modes: tuple[str, ...], is_whole: Any
) -> Path:
    """The directory of this content: a whole one with at least `modes`, else where to make it."""
    stem = f"{kind}-{hex_digest(json.dumps(identity, ensure_ascii=False), size=10)}"
    letters = {LETTERS[mode] for mode in modes}
    for path in sorted(cache.glob(f"{stem}-*")):
        if letters <= set(path.name.rsplit("-", 1)[-1]) and is_whole(path):
            return path
    return cache / f"{stem}-{''.join(LETTERS[mode] for mode in HEADS if mode in modes)}"


def _is_index(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def _is_complete(path: Path) -> bool:
    return (path / corpus.MANIFEST).is_file() and corpus.read_manifest(path)["complete"]
