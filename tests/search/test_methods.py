"""Every method and fusion against brute force over every document."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from support import brute
from support.brute import every_score, expected

from m3jax.config import HeadWeights
from m3jax.embed.embeddings import Embeddings, Ragged
from m3jax.search.index import Index
from m3jax.search.methods import Cache, candidates, head_scores, search
from m3jax.search.options import ENGINES, METHODS, Depths, SearchOptions, canonical_method
from m3jax.search.queries import EncodedQueries

WEIGHTS = HeadWeights(dense=0.7, sparse=0.4, colbert=1.3)


def random_embeddings(rng, texts, copies=0) -> Any:
    """Texts of which the last `copies` are copies of the first: ties in every head."""
    kept = np.r_[0:texts, 0:copies]
    dense = rng.standard_normal((texts, 24)).astype(np.float32)[kept]
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    sparse = scipy.sparse.random_array((texts, 40), density=0.1, rng=rng, dtype=np.float32)
    sparse = scipy.sparse.csr_array(scipy.sparse.csr_array(sparse)[kept])
    matrices = [rng.standard_normal((int(n), 24)) for n in rng.integers(1, 7, texts)]
    matrices = [(m / np.linalg.norm(m, axis=1, keepdims=True)).astype(np.float32) for m in matrices]
    matrices = [matrices[i] for i in kept]
    offsets = np.concatenate([[0], np.cumsum([len(m) for m in matrices])])
    return Embeddings(dense, sparse, Ragged(np.concatenate(matrices), offsets))


@pytest.mark.parametrize("method", list(METHODS)[1:])
@pytest.mark.parametrize("top_k", [10, 200])
def test_methods_rank_as_brute_force_does(method, top_k):
    rng = np.random.default_rng(0)
    documents, queries = random_embeddings(rng, 300, copies=60), random_embeddings(rng, 12)
    depths = Depths(dense=50, sparse=40, rerank_top_k=30)
    scores = every_score(queries, documents)
    encoded, index = EncodedQueries([""] * 12, queries), Index.from_embeddings(documents)
    cache = Cache()
    options = SearchOptions(method=method, weights=WEIGHTS, depths=depths)
    for _ in range(2):  # the second time from the cache
        hits = search(index, encoded, options, top_k=top_k, cache=cache)
        for i in range(12):
            want, values = expected(method, scores, i, top_k, depths, WEIGHTS)
            np.testing.assert_array_equal(hits.documents[i], want)
            np.testing.assert_allclose(hits.scores[i], values, rtol=1e-6, atol=1e-7)
            assert hits.scores[i].dtype == np.float32


def test_the_reference_takes_a_missing_score_as_zero():
    rng = np.random.default_rng(1)
    documents, queries = random_embeddings(rng, 300), random_embeddings(rng, 8)
    depths = Depths(dense=20, sparse=20)
    scores = every_score(queries, documents)
    encoded, index = EncodedQueries([""] * 8, queries), Index.from_embeddings(documents)
    options = SearchOptions(method="dense+sparse", weights=WEIGHTS, depths=depths)
    ours = search(index, encoded, options, top_k=40)
    reference = dataclasses.replace(options, compat="flagembedding")
    theirs = search(index, encoded, reference, top_k=40)
    for i in range(8):
        want, _ = expected("dense+sparse", scores, i, 40, depths, WEIGHTS, zero=True)
        np.testing.assert_array_equal(theirs.documents[i], want)
    assert any((a != b).any() for a, b in zip(ours.documents, theirs.documents, strict=True))


@pytest.mark.parametrize("method", ["dense+sparse", "all"])
@pytest.mark.parametrize("fusion", ["rrf", "minmax", "zscore"])
def test_other_fusions_rank_as_brute_force_does(method, fusion):
    rng = np.random.default_rng(2)
    documents, queries = random_embeddings(rng, 200, copies=20), random_embeddings(rng, 6)
    depths = Depths(dense=30, sparse=25, rerank_top_k=20)
    scores = every_score(queries, documents)
    hits = Index.from_embeddings(documents).search(
        EncodedQueries([""] * 6, queries),
        method=method,
        top_k=15,
        weights=None if fusion == "rrf" else WEIGHTS,
        fusion=fusion,
        depths=depths,
    )
    for i in range(6):
        lists = [
            expected(m, scores, i, d, depths, WEIGHTS)[0]
            for m, d in (("dense", 30), ("sparse", 25), ("colbert", 20))
        ]
        lists = lists if method == "all" else lists[:2]
        total = np.zeros(220)
        if fusion == "rrf":
            pool = np.unique(np.concatenate(lists))
            for ranking in lists:
                total[ranking] += 1 / (60 + np.arange(1, len(ranking) + 1))
        else:
            pool = np.sort(lists[2]) if method == "all" else np.unique(np.concatenate(lists))
            heads = ("dense", "sparse", "colbert") if method == "all" else ("dense", "sparse")
            for head in heads:
                part = scores[head][i][pool]
                low, spread = (
                    (part.min(), np.ptp(part)) if fusion == "minmax" else (part.mean(), part.std())
                )
                total[pool] += getattr(WEIGHTS, head) * (part - low) / spread
        want = pool[brute.top(total[pool], 15)]
        np.testing.assert_array_equal(hits.documents[i], want)


def test_bad_input_and_missing_representations():
    rng = np.random.default_rng(3)
    documents, queries = random_embeddings(rng, 9), EncodedQueries(["q"], random_embeddings(rng, 1))
    index = Index.from_embeddings(Embeddings(documents.dense, None, None))
    assert len(index.search(queries, method="dense", top_k=20).documents[0]) == 9
    with pytest.raises(ValueError, match="'all' needs sparse and colbert, but the index holds"):
        index.search(queries, method="all", top_k=1)
    with pytest.raises(ValueError, match="method must be one of"):
        index.search(queries, method="magic")
    with pytest.raises(ValueError, match="fusion must be one of"):
        index.search(queries, method="dense", fusion="magic")
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"fusion": "rrf", "weights": WEIGHTS}, "without weights"),
        ({"fusion": "rrf", "compat": "flagembedding"}, "for the weighted"),
        ({"fusion": "zscore", "compat": "flagembedding"}, "for the weighted"),
    )
    for given, message in refused:
        with pytest.raises(ValueError, match=message):
            SearchOptions(method="dense+sparse", **given)
    with pytest.raises(ValueError, match="compat must be"):
        SearchOptions(compat="lucene")
    with pytest.raises(ValueError, match="depths must be at least 1"):
        Depths(rerank_top_k=0)
    with pytest.raises(ValueError, match="'dense' fuses nothing"):
        candidates(index, queries, "dense")
    with pytest.raises(ValueError, match="different numbers of documents"):
        Index.from_embeddings(Embeddings(documents.dense, documents.sparse[[0, 1]], None))
    with pytest.raises(ValueError, match="no model; encode the queries first"):
        index.search(["a text"], method="dense")
    empty = Index.from_embeddings(documents).search(EncodedQueries([], queries.embeddings))
    assert empty.documents == []


def test_head_scores_are_the_exact_ones():
    rng = np.random.default_rng(4)
    documents, queries = random_embeddings(rng, 20), random_embeddings(rng, 2)
    some = np.array([3, 17, 5])
    got = head_scores(Index.from_embeddings(documents), EncodedQueries(["", ""], queries), 1, some)
    for head, scores in every_score(queries, documents).items():
        np.testing.assert_allclose(got[head], scores[1][some], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("method", "engine"),
    [
        (method, engine)
        for method in list(METHODS)[1:]
        for engine in sorted({name for head in METHODS[method].heads for name in ENGINES[head]})
    ],
)
def test_every_engine_gives_the_same_ranking(method, engine):
    rng = np.random.default_rng(6)
    documents, queries = random_embeddings(rng, 200, copies=40), random_embeddings(rng, 5)
    index, encoded = Index.from_embeddings(documents), EncodedQueries([""] * 5, queries)
    auto, chosen = (index.search(encoded, method=method, engine=e) for e in ("auto", engine))
    for i in range(5):
        np.testing.assert_array_equal(chosen.documents[i], auto.documents[i])
        np.testing.assert_allclose(chosen.scores[i], auto.scores[i], rtol=1e-5, atol=1e-6)
    retrievers = [getattr(index, head) for head in METHODS[method].heads]
    for retriever, head in zip(retrievers, METHODS[method].heads, strict=True):
        numbers, query = np.arange(20), encoded.query(head, 0)
        error = np.abs(
            retriever.scores(query, numbers) - retriever.scores(query, numbers, exact=True)
        )
        assert error.max() <= retriever.error_bound(query)


def test_an_engine_that_no_head_has_is_refused():
    with pytest.raises(ValueError, match="engine of dense must be one of auto, numpy, jax, faiss"):
        SearchOptions(method="dense", engine="scipy")
    with pytest.raises(ValueError, match="engine of bm25 must be one of auto, numba, scipy, got"):
        SearchOptions(method="bm25", engine="faiss")


def test_the_former_name_of_colbert_warns():
    with pytest.warns(FutureWarning, match="'multivector' is deprecated, use 'colbert'"):
        assert canonical_method("multivector") == "colbert"
    with pytest.raises(ValueError, match="method must be one of bm25, dense, sparse, colbert"):
        canonical_method("magic")


def test_hits_lead_to_their_documents():
    rng = np.random.default_rng(7)
    index = Index.from_embeddings(random_embeddings(rng, 9))
    hits = index.search(EncodedQueries(["", ""], random_embeddings(rng, 2)), top_k=4)
    found = index.documents_of(hits)
    assert [[int(d.id) for d in row] for row in found] == [d.tolist() for d in hits.documents]
