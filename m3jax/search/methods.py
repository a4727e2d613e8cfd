"""Every way to search an index, by the paper's protocol [M3 sec. 4].

    bm25           word statistics, no model
    dense, sparse  exact over all documents
    multivector    late interaction over the dense top 200
    dense+sparse   both top 1,000, their union scored by w1 s_dense + w2 s_lex
    all            w1 s_dense + w2 s_lex + w3 s_mul over the dense top 200

A document that one of two lists lacks has its missing score computed; the reference code takes it
as 0 (`compat="flagembedding"`). Rankings are those of float64 scores, ties in document order.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from m3jax.config import HEADS, PAPER_FUSION, HeadWeights
from m3jax.embed.embedder import M3Embedder
from m3jax.embed.embeddings import Embeddings, concatenate
from m3jax.search import colbert, dense, fuse, sparse
from m3jax.search.hits import Hits, ranked, settle
from m3jax.search.index import Index

METHODS = ("bm25", "dense", "sparse", "multivector", "dense+sparse", "all")
_HEADS = {
    "bm25": (),
    "dense": ("dense",),
    "sparse": ("sparse",),
    "multivector": ("dense", "colbert"),
    "dense+sparse": ("dense", "sparse"),
    "all": ("dense", "sparse", "colbert"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depths:
    """How many documents a list holds before lists are merged or ranked again."""

    dense: int = 1000
    sparse: int = 1000
    rerank: int = 200

    def __post_init__(self):
        if min(self.dense, self.sparse, self.rerank) < 1:
            raise ValueError(f"depths must be at least 1, got {self}")


class EncodedQueries(NamedTuple):
    """Queries and what a model made of them; `embeddings` is None where only BM25 is asked for."""

    texts: list[str]
    embeddings: Embeddings | None


class Candidates(NamedTuple):
    """The documents of one query that a fused method ranks, ascending, with each head's scores."""

    documents: np.ndarray
    scores: dict[str, np.ndarray]  # float64; colbert within `bound` of the exact value
    bound: float


Cache = dict[str, Any]  # lists already made for these queries on this index


def heads_of(methods: Sequence[str]) -> tuple[str, ...]:
    """The representations that some methods need, in the model's order."""
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    needed = {head for method in methods for head in _HEADS[method]}
    return tuple(head for head in HEADS if head in needed)


def encode_queries(
    model: M3Embedder | Index, texts: Sequence[str], methods: Sequence[str] = METHODS
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
    method: str,
    *,
    top_k: int,
    weights: HeadWeights | None = None,
    depths: Depths | None = None,
    fusion: str = "weighted",
    compat: str | None = None,
    cache: Cache | None = None,
) -> Hits:
    """The `top_k` documents of each query by one method, scores as float32.

    weights   of the heads in the fused methods; None: the model's own, which are for the weighted
              sum, else 1 / 0.3 / 1
    fusion    "weighted", "rrf" (reciprocal ranks, k = 60), "minmax" or "zscore" (weighted sums of
              scores normalised over the query's candidates)
    compat    "flagembedding": a document missing from one of two lists scores 0 there
    cache     a dict of the caller's, the same for several methods on the same queries and index

    `multivector` and `all` return at most `depths.rerank` documents. Raises ValueError for a
    method whose representation the index lacks.
    """
    needed = heads_of([method])
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if fusion not in fuse.FUSIONS:
        raise ValueError(f"fusion must be one of {', '.join(fuse.FUSIONS)}, got {fusion!r}")
    if compat not in (None, "flagembedding"):
        raise ValueError(f"compat must be None or 'flagembedding', got {compat!r}")
    fuse.check(fusion, weights, compat)
    index.require(needed, method)
    if not isinstance(queries, EncodedQueries):
        queries = encode_queries(index, queries, [method])
    run = _Run(index, queries, depths or Depths(), {} if cache is None else cache)
    if method == "bm25":
        hits = index.bm25().search(queries.texts, top_k)
    elif method in ("dense", "sparse"):
        hits = run.ranking(method, top_k)
    elif method == "multivector":
        hits = run.rerank(top_k)
    else:
        weights = weights or (index.fusion(method) if fusion == "weighted" else PAPER_FUSION)
        hits = _fused(run, method, top_k, weights, fusion, compat)
    return Hits(hits.documents, [scores.astype(np.float32) for scores in hits.scores])


def candidates(
    index: Index,
    queries: EncodedQueries,
    method: str,
    *,
    depths: Depths | None = None,
    cache: Cache | None = None,
) -> list[Candidates]:
    """What a fused method (`dense+sparse`, `all`) ranks for each query: for tuning weights."""
    if method not in ("dense+sparse", "all"):
        raise ValueError(f"{method!r} fuses nothing; use dense+sparse or all")
    index.require(heads_of([method]), method)
    run = _Run(index, queries, depths or Depths(), {} if cache is None else cache)
    return [run.candidates(method, i) for i in range(len(queries.texts))]


def head_scores(
    index: Index, queries: EncodedQueries, number: int, documents: np.ndarray
) -> dict[str, np.ndarray]:
    """The float64 scores of one query with some documents, by each head that both sides have."""
    embeddings, scores = queries.embeddings, {}
    if embeddings is None:
        return scores
    if embeddings.dense is not None and index.dense is not None:
        scores["dense"] = dense.scores_at(embeddings.dense[number], index.dense, documents)
    if embeddings.sparse is not None and index.sparse is not None:
        scores["sparse"] = sparse.scores_at(embeddings.sparse, number, index.sparse, documents)
    if embeddings.colbert is not None and index.colbert is not None:
        vectors = embeddings.colbert[number]
        scores["colbert"] = colbert.exact_scores_at(vectors, index.colbert, documents)
    return scores


def _fused(
    run: "_Run", method: str, top_k: int, weights: HeadWeights, fusion: str, compat: str | None
) -> Hits:
    pairs = []
    for i in range(len(run.queries.texts)):
        if fusion == "rrf":
            pairs.append(ranked(*fuse.reciprocal_ranks(run.rankings(method, i)), top_k))
            continue
        found = run.candidates(method, i)
        scores, exact, bound = found.scores, None, weights.colbert * found.bound
        if fusion != "weighted":
            scores = {h: fuse.normalised(s, fusion) for h, s in run.exactly(found, i).items()}
            bound = 0.0
        elif compat and method == "dense+sparse":
            scores = run.zero_for_missing(found, i)
        elif bound:
            exact = _exact_sum(run, found, i, weights)
        total = fuse.weighted_sum(scores, weights)
        if exact is None:
            pairs.append(ranked(found.documents, total, top_k))
        else:
            pairs.append(settle(found.documents, total, abs(bound), exact, top_k))
    return Hits([d for d, _ in pairs], [s for _, s in pairs])


def _exact_sum(
    run: "_Run", found: Candidates, number: int, weights: HeadWeights
) -> Callable[[np.ndarray], np.ndarray]:
    def exact(places: np.ndarray) -> np.ndarray:
        scores = {head: values[places] for head, values in found.scores.items()}
        scores["colbert"] = run.exact_colbert(number, found.documents[places])
        return fuse.weighted_sum(scores, weights)

    return exact


@dataclasses.dataclass(frozen=True)
class _Run:
    """Some queries on an index, with the lists made so far."""

    index: Index
    queries: EncodedQueries
    depths: Depths
    cache: Cache

    @property
    def embeddings(self) -> Any:  # Embeddings whose heads the caller has made sure of
        return self.queries.embeddings

    def ranking(self, head: str, top_k: int) -> Hits:
        """The `top_k` by the dense or the sparse head, from the cache where it is deep enough."""
        if not self.queries.texts:
            return Hits([], [])
        depth, hits = self.cache.get(head, (0, None))
        if depth < top_k:
            module = dense if head == "dense" else sparse
            vectors = getattr(self.embeddings, head)
            hits = module.search(vectors, getattr(self.index, head), top_k)
            self.cache[head] = top_k, hits
        assert hits is not None
        return hits.cut(top_k)

    def rerank(self, top_k: int) -> Hits:
        """The dense top by late interaction."""
        assert self.index.colbert is not None
        pairs = []
        for i in range(len(self.queries.texts)):
            documents, scores, bound = self.late(i)

            def exact(places: np.ndarray, i=i, documents=documents) -> np.ndarray:
                return self.exact_colbert(i, documents[places])

            pairs.append(settle(documents, scores, bound, exact, top_k))
        return Hits([d for d, _ in pairs], [s for _, s in pairs])

    def late(self, number: int) -> tuple[np.ndarray, np.ndarray, float]:
        """(dense top of one query ascending, s_mul of each, how far off it may be)."""
        key = f"colbert {number} {self.depths.rerank}"
        if key not in self.cache:
            assert self.index.colbert is not None
            documents = np.sort(self.ranking("dense", self.depths.rerank).documents[number])
            query = self.embeddings.colbert[number]
            scores = colbert.scores_at(query, self.index.colbert, documents)
            bound = colbert.error_bound(query, self.index.colbert)
            self.cache[key] = documents, scores.astype(np.float64), bound
        return self.cache[key]

    def exact_colbert(self, number: int, documents: np.ndarray) -> np.ndarray:
        assert self.index.colbert is not None
        query = self.embeddings.colbert[number]
        return colbert.exact_scores_at(query, self.index.colbert, documents)

    def candidates(self, method: str, number: int) -> Candidates:
        """The documents that a fused method ranks, every score there."""
        assert self.index.dense is not None and self.index.sparse is not None
        vectors = self.embeddings
        scores, bound = {}, 0.0
        if method == "all":
            documents, scores["colbert"], bound = self.late(number)
        else:
            documents = fuse.union(self.rankings(method, number))
        scores["dense"] = dense.scores_at(vectors.dense[number], self.index.dense, documents)
        scores["sparse"] = sparse.scores_at(vectors.sparse, number, self.index.sparse, documents)
        return Candidates(documents, scores, bound)

    def rankings(self, method: str, number: int) -> list[np.ndarray]:
        """The lists that a fused method merges."""
        lists = [
            self.ranking("dense", self.depths.dense).documents[number],
            self.ranking("sparse", self.depths.sparse).documents[number],
        ]
        if method == "all":
            documents, scores, bound = self.late(number)
            best = settle(
                documents, scores, bound,
                lambda places: self.exact_colbert(number, documents[places]), len(documents),
            )  # fmt: skip
            lists.append(best[0])
        return lists

    def exactly(self, found: Candidates, number: int) -> dict[str, np.ndarray]:
        """The candidates' scores, s_mul in float64."""
        if "colbert" not in found.scores:
            return found.scores
        return found.scores | {"colbert": self.exact_colbert(number, found.documents)}

    def zero_for_missing(self, found: Candidates, number: int) -> dict[str, np.ndarray]:
        """The reference code's way: a list's score, or 0 for a document it lacks."""
        lists = self.rankings("dense+sparse", number)
        return {
            head: np.where(np.isin(found.documents, documents), found.scores[head], 0.0)
            for head, documents in zip(("dense", "sparse"), lists, strict=True)
        }
