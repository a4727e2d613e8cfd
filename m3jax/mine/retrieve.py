"""A pool as indexes on disk, one a language, and what queries find there by any method.

    WORK/index-HASH/    an index (search/index.py) for each language, model and setting

The hash covers the pool's texts, the model's weights and how they are read, so a later checkpoint
gets an index of its own and an earlier one is found again.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from m3jax.config import HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.io.atomic import new_directory
from m3jax.io.jsonl import read_records
from m3jax.mine.pool import Pool, key_of
from m3jax.mine.resume import digest_of
from m3jax.mine.scoring import passages_index, scores_with, weights_of
from m3jax.pretrained import fingerprint
from m3jax.search import methods
from m3jax.search.build import IndexOptions, build_index
from m3jax.search.documents import Documents, write_documents
from m3jax.search.hits import Hits
from m3jax.search.index import Index
from m3jax.search.options import FUSED, Depths, SearchOptions, heads_of
from m3jax.search.queries import EncodedQueries


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """By what passages are found and scored; BM25 over words needs no model."""

    embedder: M3Embedder | None
    method: str = "dense"
    weights: HeadWeights | None = None  # of dense+sparse and all; None: the model's
    passage_length: int | None = None  # tokens of a passage that are read; None: all the model can
    bm25_terms: str = "words"
    dtype: str = "float16"  # of the vectors on disk
    batch_size: int | None = None

    def __post_init__(self):
        tokens = self.method == "bm25" and self.bm25_terms == "tokens"
        if self.embedder is None and (tokens or heads_of([self.method])):
            what = "BM25 over tokens" if tokens else f"method {self.method!r}"
            raise ValueError(f"{what} needs a model: name one with --model")
        if self.method != "bm25":
            weights_of(self.method, self.weights, self.embedder)

    @functools.cached_property
    def of_passages(self) -> list[object]:
        """What decides the index of some passages."""
        heads = heads_of([self.method])
        if self.embedder is None or not (heads or self.bm25_terms == "tokens"):
            return [self.bm25_terms]
        model, options = self.embedder.encoder.model, self.embedder
        return [
            heads, self.bm25_terms, self.passage_length, self.dtype, options.compute.dtype,
            fingerprint(model.params, model.config),
            options.query_instruction, options.passage_instruction,
        ]  # fmt: skip

    @property
    def identity(self) -> list[object]:
        """What decides the hits and scores."""
        weights = None
        if self.method != "bm25":
            weights = dataclasses.astuple(weights_of(self.method, self.weights, self.embedder))
        length = self.embedder.query_max_length if self.embedder else None
        return [self.method, weights, length, *self.of_passages]


class Shelf:
    """One language's passages, searched and scored by one method."""

    def __init__(self, pool: Pool, language: str, retrieval: Retrieval, work: Path):
        self.retrieval = retrieval
        self.keys = pool.keys(language)
        self.order = np.argsort(self.keys, kind="stable")
        self.weights = HeadWeights(dense=1.0, sparse=1.0, colbert=1.0)
        if retrieval.method != "bm25":
            self.weights = weights_of(retrieval.method, retrieval.weights, retrieval.embedder)
        self.index = _open(pool, language, retrieval, work)

    def __len__(self) -> int:
        return len(self.keys)

    def text(self, number: int) -> str:
        """A passage."""
        return self.index.documents[number].text

    def encode(self, queries: Sequence[str]) -> EncodedQueries:
        """Queries as the method needs them."""
        return methods.encode_queries(self.index, queries, [self.retrieval.method])

    def search(self, queries: EncodedQueries, top_k: int) -> Hits:
        """The best `top_k` passages of each query."""
        method = self.retrieval.method
        if method == "bm25":
            return self.index.bm25(self.retrieval.bm25_terms).search(queries.texts, top_k)
        options = SearchOptions(
            method=method,
            weights=self.weights if method in FUSED else None,
            depths=Depths(
                dense=max(1000, top_k), sparse=max(1000, top_k), rerank_top_k=max(200, top_k)
            ),
        )
        return methods.search(self.index, queries, options, top_k=top_k)

    def scores(self, queries: EncodedQueries, number: int, some: Sequence[int]) -> np.ndarray:
        """The float64 scores of one query with some passages of the shelf."""
        wanted, method = np.array(some, np.int64), self.retrieval.method
        if method == "bm25":
            bm25 = self.index.bm25(self.retrieval.bm25_terms)
            return bm25.scores(queries.texts[number], wanted)
        return scores_with(self.index, queries, number, wanted, method, self.weights)

    def positive_scores(
        self, queries: EncodedQueries, positives: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """The scores of each query's positives; those that are not on the shelf are encoded.

        BM25 scores only what is on the shelf, and leaves the others out.
        """
        places = [[self._find(text) for text in texts] for texts in positives]
        flat = [
            text
            for texts, numbers in zip(positives, places, strict=True)
            for text, number in zip(texts, numbers, strict=True)
            if number is None
        ]
        absent = {text: i for i, text in enumerate(dict.fromkeys(flat))}
        loose = self._loose(list(absent)) if absent else None
        out = []
        for query, (texts, numbers) in enumerate(zip(positives, places, strict=True)):
            here = [number for number in numbers if number is not None]
            parts = [self.scores(queries, query, here)]
            if loose is not None:
                elsewhere = [absent[t] for t, n in zip(texts, numbers, strict=True) if n is None]
                parts.append(
                    scores_with(
                        loose, queries, query, np.array(elsewhere, np.int64),
                        self.retrieval.method, self.weights,
                    )
                )  # fmt: skip
            out.append(np.concatenate(parts))
        return out

    def _loose(self, texts: list[str]) -> Index | None:
        embedder, method = self.retrieval.embedder, self.retrieval.method
        if method == "bm25" or embedder is None:
            return None
        return passages_index(embedder, texts, method, self.retrieval.passage_length)

    def _find(self, text: str) -> int | None:
        """The number of a passage with this text."""
        key = np.uint64(key_of(text))
        place = np.searchsorted(self.keys, key, sorter=self.order)
        if place < len(self.keys) and self.keys[self.order[place]] == key:
            return int(self.order[place])
        return None


def _open(pool: Pool, language: str, retrieval: Retrieval, work: Path) -> Index:
    """The index of one language, made or found; a stopped one goes on."""
    records = functools.partial(read_records, str(pool.file(language)))
    folder = work / f"index-{digest_of([pool.name, language, *retrieval.of_passages])}"
    heads = heads_of([retrieval.method])
    if not heads:
        if not (folder / "documents").is_dir():
            with new_directory(folder / "documents") as scratch:
                write_documents(records(), scratch, str(pool.file(language)))
        stored = Documents(folder / "documents")
        return Index(
            len(stored), None, None, None, stored, {}, path=folder, model=retrieval.embedder
        )
    assert retrieval.embedder is not None
    options = IndexOptions(
        modes=heads,
        max_length=retrieval.passage_length,
        dtype=retrieval.dtype,
        batch_size=retrieval.batch_size,
    )
    build_index(retrieval.embedder, records(), folder, options, source=str(pool.file(language)))
    # Index.use would read all weights once more for each language; the hash has seen to it.
    opened = Index.open(folder)
    opened.model = retrieval.embedder
    return opened
