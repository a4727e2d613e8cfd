"""The pool as indexes on disk, one per language, searched and scored by one method.

    WORKDIR/index-DIGEST/    an index (m3jax/search/index.py) for each language, model and setting

The digest covers the texts of the pool, the weights of the model and how passages are encoded. A
later checkpoint therefore gets its own indexes, and those of an earlier one are reused.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from m3jax.config import HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.io.atomic import new_directory
from m3jax.io.jsonl import read_records
from m3jax.mine.options import MiningOptions
from m3jax.mine.pool import Pool, text_hash
from m3jax.mine.resume import json_digest
from m3jax.mine.scoring import document_scores, index_passages, method_weights, recorded_method
from m3jax.pretrained import fingerprint
from m3jax.search import methods
from m3jax.search.build import IndexOptions, build_index
from m3jax.search.documents import Documents, write_documents
from m3jax.search.hits import Hits
from m3jax.search.index import Index
from m3jax.search.options import FUSED, Depths, SearchOptions, heads_of
from m3jax.search.queries import EncodedQueries


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """An embedder and the options by which it retrieves; BM25 over words needs no embedder.

    Raises ValueError for a method that needs an embedder if there is none, and for weights that
    the method does not use.
    """

    embedder: M3Embedder | None
    options: MiningOptions

    def __post_init__(self):
        method = self.options.method
        tokens = method == "bm25" and self.options.bm25_terms == "tokens"
        if self.embedder is None and (tokens or heads_of([method])):
            name = "BM25 over tokens" if tokens else f"method {method!r}"
            raise ValueError(f"{name} needs a model: name one with --model")
        _ = self.weights

    @property
    def weights(self) -> HeadWeights | None:
        """The weights of the heads; None for BM25."""
        if self.options.method == "bm25":
            return None
        return method_weights(self.options.method, self.options.weights, self.embedder)

    @functools.cached_property
    def index_identity(self) -> list[object]:
        """Everything, apart from the passages, that determines an index."""
        heads = heads_of([self.options.method])
        if self.embedder is None or not (heads or self.options.bm25_terms == "tokens"):
            return [self.options.bm25_terms]
        model, embedder = self.embedder.encoder.model, self.embedder
        return [
            heads,
            self.options.bm25_terms,
            self.options.passage_length,
            self.options.dtype,
            embedder.compute.dtype,
            fingerprint(model.params, model.config),
            embedder.query_instruction,
            embedder.passage_instruction,
        ]

    @property
    def identity(self) -> list[object]:
        """Everything, apart from the texts, that determines hits and scores."""
        weights = None if self.weights is None else dataclasses.astuple(self.weights)
        length = self.embedder.query_max_length if self.embedder else None
        return [recorded_method(self.options.method), weights, length, *self.index_identity]


class LanguagePool:
    """The passages of one language, searched and scored by one method."""

    def __init__(self, pool: Pool, language: str, retrieval: Retrieval, workdir: Path):
        self.retrieval = retrieval
        self.method = retrieval.options.method
        self.weights = retrieval.weights or HeadWeights(dense=1.0, sparse=1.0, colbert=1.0)
        self.text_hashes = pool.text_hashes(language)
        self.order = np.argsort(self.text_hashes, kind="stable")
        self.index = _open(pool, language, retrieval, workdir)

    def __len__(self) -> int:
        return len(self.text_hashes)

    def text(self, number: int) -> str:
        """The text of a passage."""
        return self.index.documents[number].text

    def encode(self, queries: Sequence[str]) -> EncodedQueries:
        """Encodes queries into the representations of the method."""
        return methods.encode_queries(self.index, queries, [self.method])

    def search(self, queries: EncodedQueries, top_k: int) -> Hits:
        """The best `top_k` passages of each query."""
        if self.method == "bm25":
            bm25 = self.index.bm25(self.retrieval.options.bm25_terms)
            return bm25.search(queries.texts, top_k)
        options = SearchOptions(
            method=self.method,
            weights=self.weights if self.method in FUSED else None,
            depths=Depths(
                dense=max(1000, top_k), sparse=max(1000, top_k), rerank_top_k=max(200, top_k)
            ),
        )
        return methods.search(self.index, queries, options, top_k=top_k)

    def scores(
        self, queries: EncodedQueries, query: int, passages: Sequence[int]
    ) -> Float[np.ndarray, " n"]:
        """The float64 scores of query number `query` with the given passages."""
        numbers = np.array(passages, np.int64)
        if self.method == "bm25":
            bm25 = self.index.bm25(self.retrieval.options.bm25_terms)
            return bm25.scores(queries.texts[query], numbers)
        return document_scores(self.index, queries, query, numbers, self.method, self.weights)

    def positive_scores(
        self, queries: EncodedQueries, positives: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """The float64 scores of each query with its positives.

        Positives outside the pool are encoded, and their scores come after the others. BM25 cannot
        score them: they have no score.
        """
        numbers = [[self._find(text) for text in texts] for texts in positives]
        outside = {
            text: None
            for texts, row in zip(positives, numbers, strict=True)
            for text, number in zip(texts, row, strict=True)
            if number is None
        }
        extra_number = {text: i for i, text in enumerate(outside)}
        extra = self._index_extra(list(outside)) if outside else None
        scores = []
        for query, (texts, row) in enumerate(zip(positives, numbers, strict=True)):
            parts = [self.scores(queries, query, [n for n in row if n is not None])]
            if extra is not None:
                missing = [t for t, number in zip(texts, row, strict=True) if number is None]
                documents = np.array([extra_number[text] for text in missing], np.int64)
                parts.append(
                    document_scores(extra, queries, query, documents, self.method, self.weights)
                )
            scores.append(np.concatenate(parts))
        return scores

    def _index_extra(self, texts: list[str]) -> Index | None:
        """An index in memory of positives outside the pool; None for BM25."""
        embedder, length = self.retrieval.embedder, self.retrieval.options.passage_length
        if self.method == "bm25" or embedder is None:
            return None
        return index_passages(embedder, texts, self.method, length)

    def _find(self, text: str) -> int | None:
        """The number of the passage with this text, if there is one."""
        value = np.uint64(text_hash(text))
        position = np.searchsorted(self.text_hashes, value, sorter=self.order)
        if position < len(self) and self.text_hashes[self.order[position]] == value:
            return int(self.order[position])
        return None


def _open(pool: Pool, language: str, retrieval: Retrieval, workdir: Path) -> Index:
    """The index of one language; it is built if it is missing, or completed."""
    records = functools.partial(read_records, str(pool.file(language)))
    folder = workdir / f"index-{json_digest([pool.name, language, *retrieval.index_identity])}"
    options, embedder = retrieval.options, retrieval.embedder
    heads = heads_of([options.method])
    if not heads:
        if not (folder / "documents").is_dir():
            with new_directory(folder / "documents") as scratch:
                write_documents(records(), scratch, str(pool.file(language)))
        stored = Documents(folder / "documents")
        return Index(len(stored), None, None, None, stored, {}, path=folder, model=embedder)
    assert embedder is not None
    index_options = IndexOptions(
        modes=heads,
        max_length=options.passage_length,
        dtype=options.dtype,
        batch_size=options.batch_size,
    )
    build_index(embedder, records(), folder, index_options, source=str(pool.file(language)))
    opened = Index.open(folder)
    # Index.use would compare the weights again for each language; the digest already covers them.
    opened.model = embedder
    return opened
