"""Dense search ranks by float64 scores, ties in document order, with every engine and dtype."""

import numpy as np
import pytest
from support import brute

from m3jax.embed.embeddings import to_int8
from m3jax.embed.vectors import StoredVectors, as_stored_vectors
from m3jax.search import dense

ENGINES = ("numpy", "jax", "faiss")


def search(queries, documents, top_k, engine="auto"):
    return dense.DenseRetriever(as_stored_vectors(documents), engine).search(queries, top_k)


def whole_numbers(rng, rows, width=16):
    """Vectors whose products are exact in any order, with many ties."""
    return rng.integers(-3, 4, (rows, width)).astype(np.float32)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("top_k", [1, 10, 700])
def test_ties_are_in_document_order(engine, top_k):
    rng = np.random.default_rng(top_k)
    documents, queries = whole_numbers(rng, 20_000), whole_numbers(rng, 70)
    parts = as_stored_vectors([documents[:8192], documents[8192:9000], documents[9000:]])
    hits = search(queries, parts, top_k, engine)
    exact = queries.astype(np.float64) @ documents.astype(np.float64).T
    for i, scores in enumerate(exact):
        want = brute.top(scores, top_k)
        np.testing.assert_array_equal(hits.documents[i], want)
        np.testing.assert_array_equal(hits.scores[i], scores[want])


@pytest.mark.parametrize("engine", ENGINES)
def test_more_ties_at_the_threshold_than_an_engine_fetches(engine):
    documents = np.zeros((3000, 8), np.float32)
    documents[:, 0] = 1
    documents[2990:, 0] = 2
    (found,) = search(np.eye(1, 8, dtype=np.float32), documents, 40, engine).documents
    np.testing.assert_array_equal(found, [*range(2990, 3000), *range(30)])


@pytest.mark.parametrize("engine", ENGINES)
def test_scores_closer_than_float32_can_tell_are_ordered_by_float64(engine):
    """A thousand documents within 1e-7 of one another; float32 alone puts hundreds out of place."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal(256)
    documents = (base + 1e-6 * rng.standard_normal((1000, 256))).astype(np.float32)
    query = base.astype(np.float32)
    (found,) = search(query[None], documents, 1000, engine).documents
    exact = brute.inner(query.astype(np.float64), documents)
    np.testing.assert_allclose(exact[found], np.sort(exact)[::-1], rtol=1e-14)
    float32 = np.argsort(-(documents @ query), kind="stable")
    assert (float32 != found).sum() > 100


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_float16_and_int8_vectors_are_ranked_by_their_stored_values(monkeypatch, dtype, compiled):
    monkeypatch.setattr(dense, "have_numba", lambda: compiled)
    rng = np.random.default_rng(1)
    documents = rng.standard_normal((500, 32)).astype(np.float32)
    queries = rng.standard_normal((5, 32)).astype(np.float32)
    codes, scales = to_int8(documents) if dtype == "int8" else (documents.astype(dtype), None)
    documents = brute.wide(codes, scales)
    parts = [(a, b) for a, b in ((0, 200), (200, 500))]
    rows = StoredVectors(
        tuple(codes[a:b] for a, b in parts),
        tuple(None if scales is None else scales[a:b] for a, b in parts),
    )
    hits = search(queries, rows, 500)
    for query, found, scores in zip(queries, *hits, strict=True):
        exact = brute.inner(query.astype(np.float64), documents)
        np.testing.assert_array_equal(found, brute.top(exact, 500))
        np.testing.assert_allclose(scores, exact[found], rtol=1e-12, atol=1e-12)


def test_memory_mapped_files_give_the_same_hits(tmp_path):
    rng = np.random.default_rng(2)
    documents, queries = rng.standard_normal((9000, 8)), rng.standard_normal((3, 8))
    documents, queries = documents.astype(np.float32), queries.astype(np.float32)
    np.save(tmp_path / "d.npy", documents)
    mapped = as_stored_vectors(np.load(tmp_path / "d.npy", mmap_mode="r"))
    pairs = zip(search(queries, mapped, 9), search(queries, documents, 9), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b)


def test_small_corpora_and_bad_input():
    documents = np.eye(3, dtype=np.float32)
    (found,) = search(documents[:1], documents, 10).documents
    np.testing.assert_array_equal(found, [0, 1, 2])
    assert search(documents[:0], documents, 10).documents == []
    assert len(search(documents, documents[:0], 10).documents[2]) == 0
    with pytest.raises(ValueError, match="width 2 against documents of width 3"):
        search(np.ones((1, 2), np.float32), documents, 1)
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        search(documents, documents, 0)
    with pytest.raises(ValueError, match="engine must be one of"):
        search(documents, documents, 1, "magic")
    with pytest.raises(ValueError, match="queries' vectors hold numbers that are not finite"):
        search(documents * np.float32(np.nan), documents, 1)
    with pytest.raises(ValueError, match="documents' vectors hold numbers that are not finite"):
        search(documents, np.full((3, 3), np.inf, np.float32), 1)
