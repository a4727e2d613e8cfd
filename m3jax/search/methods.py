"""Search of an index by every method, by the paper's protocol [M3 sec. 4].

    bm25           word statistics, no model
    dense, sparse  exact over all documents
    colbert        late interaction over the dense top 200
    dense+sparse   both top 1,000, their union scored by w1 s_dense + w2 s_lex
    all            w1 s_dense + w2 s_lex + w3 s_mul over the dense top 200

The missing score of a document that is in one of two rankings is computed; the reference code
takes it as 0 (`compat="flagembedding"`). Rankings are by float64 scores, ties in document order.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3jax.config import HEADS, PAPER_FUSION, HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.embeddings import concatenate
from m3jax.search import fuse
from m3jax.search.hits import Hits, ranked, rescore_close
from m3jax.search.index import Index
from m3jax.search.options import FUSED, METHODS, Depths, SearchOptions, heads_of
from m3jax.search.queries import EncodedQueries
from m3jax.search.retriever import Retriever


class LateScores(NamedTuple):
    """The dense top documents of one query, ascending, with their late interaction scores."""

    documents: np.ndarray
    scores: np.ndarray  # float64, each off by at most `bound`
    bound: float


class Candidates(NamedTuple):
    """The documents of one query that a fused method ranks, ascending, with each head's scores."""

    documents: np.ndarray
    scores: dict[str, np.ndarray]  # float64; colbert within `bound` of the exact value
    bound: float


@dataclasses.dataclass(frozen=True)
class Cache:
    """Rankings and scores of the same queries on the same index, shared by several searches."""

    rankings: dict[str, tuple[int, Hits]] = dataclasses.field(default_factory=dict)  # head: depth
    late: dict[tuple[int, int, str], LateScores] = dataclasses.field(default_factory=dict)


def encode_queries(
    model: M3Embedder | Index, texts: Sequence[str], methods: Sequence[str] = tuple(METHODS)
) -> EncodedQueries:
    """Queries encoded once for all of `methods`, with the model's query instruction and length."""
    heads = heads_of(methods)
    texts = list(texts)
    if not heads or not texts:
        return EncodedQueries(texts, None)
    embedder = model.embedder() if isinstance(model, Index) else model
    prefixed = [embedder.query_instruction + text for text in texts]
    parts = embedder.encode_stream(
        prefixed, heads=heads, max_length=embedder.query_max_length, batch_size=embedder.batch_size
    )
    return EncodedQueries(texts, concatenate(list(parts)))


def search(
    index: Index,
    queries: EncodedQueries | Sequence[str],
    options: SearchOptions | None = None,
    *,
    top_k: int,
    cache: Cache | None = None,
) -> Hits:
    """The `top_k` documents of each query, scores as float32.

    `cache` holds intermediate results; pass the same one for several methods on the same queries
    and index. The methods `colbert` and `all` return at most `depths.rerank_top_k` documents.
    Raises ValueError for a method whose representation the index lacks.
    """
    options = options or SearchOptions()
    method, weights = options.method, options.weights
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    index.require(METHODS[method].heads, method)
    if not isinstance(queries, EncodedQueries):
        queries = encode_queries(index, queries, [method])
    searcher = _Searcher(index, queries, options, Cache() if cache is None else cache)
    if method == "bm25":
        hits = searcher.retriever("bm25").search(queries.texts, top_k)
    elif method in ("dense", "sparse"):
        hits = searcher.ranking(method, top_k)
    elif method == "colbert":
        hits = searcher.reranked(top_k)
    else:
        is_sum = options.fusion == "weighted"
        weights = weights or (index.fusion(method) if is_sum else PAPER_FUSION)
        hits = _fused(searcher, top_k, weights)
    return Hits(hits.documents, [scores.astype(np.float32) for scores in hits.scores])


def candidates(
    index: Index,
    queries: EncodedQueries,
    method: str,
    *,
    depths: Depths | None = None,
) -> list[Candidates]:
    """The documents that a fused method (`dense+sparse`, `all`) ranks for each query."""
    if method not in FUSED:
        raise ValueError(f"{method!r} fuses nothing; use {' or '.join(FUSED)}")
    index.require(METHODS[method].heads, method)
    options = SearchOptions(method=method, depths=depths or Depths())
    searcher = _Searcher(index, queries, options, Cache())
    return [searcher.candidates(i) for i in range(len(queries.texts))]


def head_scores(
    index: Index, queries: EncodedQueries, number: int, documents: Int[np.ndarray, " n"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """The float64 scores of one query with some documents, by each head that both sides have."""
    scores = {}
    for head in HEADS:
        retriever: Retriever | None = getattr(index, head)
        if retriever is not None and getattr(queries.embeddings, head, None) is not None:
            scores[head] = retriever.scores(queries.query(head, number), documents, exact=True)
    return scores


def _fused(searcher: "_Searcher", top_k: int, weights: HeadWeights) -> Hits:
    options = searcher.options
    pairs = []
    for i in range(len(searcher.queries.texts)):
        if options.fusion == "rrf":
            pairs.append(ranked(*fuse.reciprocal_ranks(searcher.rankings(i)), top_k))
            continue
        pool = searcher.candidates(i)
        scores, exact, bound = pool.scores, None, weights.colbert * pool.bound
        if options.fusion != "weighted":
            scores = searcher.exact_scores(pool, i)
            scores = {h: fuse.normalised(s, options.fusion) for h, s in scores.items()}
            bound = 0.0
        elif options.compat and options.method == "dense+sparse":
            scores = searcher.zero_for_missing(pool, i)
        elif bound:
            exact = _exact_sum(searcher, pool, i, weights)
        total = fuse.weighted_sum(scores, weights)
        if exact is None:
            pairs.append(ranked(pool.documents, total, top_k))
        else:
            pairs.append(rescore_close(pool.documents, total, abs(bound), exact, top_k))
    return Hits([d for d, _ in pairs], [s for _, s in pairs])


def _exact_sum(
    searcher: "_Searcher", pool: Candidates, number: int, weights: HeadWeights
) -> Callable[[np.ndarray], np.ndarray]:
    """The exact weighted sums at some positions in `pool`."""

    def exact(positions: np.ndarray) -> np.ndarray:
        scores = {head: values[positions] for head, values in pool.scores.items()}
        scores["colbert"] = searcher.exact_late(number, pool.documents[positions])
        return fuse.weighted_sum(scores, weights)

    return exact


@dataclasses.dataclass(frozen=True)
class _Searcher:
    """A search of some queries on an index."""

    index: Index
    queries: EncodedQueries
    options: SearchOptions
    cache: Cache

    def retriever(self, name: str) -> Any:
        """The index's retriever of a head, or of BM25, with the engine of the options."""
        retriever = self.index.bm25() if name == "bm25" else getattr(self.index, name)
        engine = self.options.engine_of(name)
        return retriever if engine == "auto" else dataclasses.replace(retriever, engine=engine)

    def ranking(self, head: str, top_k: int) -> Hits:
        """The `top_k` by the dense or the sparse head, from the cache where it is deep enough."""
        if not self.queries.texts:
            return Hits([], [])
        depth, hits = self.cache.rankings.get(head, (0, Hits([], [])))
        if depth < top_k:
            hits = self.retriever(head).search(getattr(self.queries.embeddings, head), top_k)
            self.cache.rankings[head] = top_k, hits
        return hits.cut(top_k)

    def reranked(self, top_k: int) -> Hits:
        """The dense top, ranked by late interaction."""
        pairs = [self.late_ranking(i, top_k) for i in range(len(self.queries.texts))]
        return Hits([d for d, _ in pairs], [s for _, s in pairs])

    def late_scores(self, number: int) -> LateScores:
        """The late interaction of one query with its dense top, from the cache where it is."""
        depth = self.options.depths.rerank_top_k
        key = number, depth, self.options.engine_of("colbert")
        if key not in self.cache.late:
            documents = np.sort(self.ranking("dense", depth).documents[number])
            retriever, query = self.retriever("colbert"), self.queries.query("colbert", number)
            scores = retriever.scores(query, documents).astype(np.float64)
            self.cache.late[key] = LateScores(documents, scores, retriever.error_bound(query))
        return self.cache.late[key]

    def late_ranking(self, number: int, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """(documents, scores) of one query's dense top, ranked by late interaction."""
        documents, scores, bound = self.late_scores(number)

        def exact(positions: np.ndarray) -> np.ndarray:
            return self.exact_late(number, documents[positions])

        return rescore_close(documents, scores, bound, exact, top_k)

    def exact_late(self, number: int, documents: np.ndarray) -> np.ndarray:
        """The float64 late interaction of one query with some documents."""
        query = self.queries.query("colbert", number)
        return self.retriever("colbert").scores(query, documents, exact=True)

    def candidates(self, number: int) -> Candidates:
        """The documents that a fused method ranks, each with the scores of all its heads."""
        scores, bound = {}, 0.0
        if self.options.method == "all":
            documents, scores["colbert"], bound = self.late_scores(number)
        else:
            documents = fuse.union(self.rankings(number))
        for head in ("dense", "sparse"):
            query = self.queries.query(head, number)
            scores[head] = self.retriever(head).scores(query, documents, exact=True)
        return Candidates(documents, scores, bound)

    def rankings(self, number: int) -> list[np.ndarray]:
        """The rankings of one query that a fused method merges."""
        depths = self.options.depths
        rankings = [
            self.ranking("dense", depths.dense).documents[number],
            self.ranking("sparse", depths.sparse).documents[number],
        ]
        if self.options.method == "all":
            rankings.append(self.late_ranking(number, depths.rerank_top_k)[0])
        return rankings

    def exact_scores(self, pool: Candidates, number: int) -> dict[str, np.ndarray]:
        """The candidates' scores, all in float64."""
        if "colbert" not in pool.scores:
            return pool.scores
        return pool.scores | {"colbert": self.exact_late(number, pool.documents)}

    def zero_for_missing(self, pool: Candidates, number: int) -> dict[str, np.ndarray]:
        """The scores of the reference code: 0 for a document that a head's ranking lacks."""
        return {
            head: np.where(np.isin(pool.documents, documents), pool.scores[head], 0.0)
            for head, documents in zip(("dense", "sparse"), self.rankings(number), strict=True)
        }
