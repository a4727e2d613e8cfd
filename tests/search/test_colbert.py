"""Late interaction over ragged vectors equals its definition, with rankings by float64 scores."""

from typing import Any

import numpy as np
import pytest
from support import brute

from m3jax.embed.embeddings import to_int8
from m3jax.embed.vectors import StoredMatrices, StoredVectors
from m3jax.search import colbert

ENGINES = ("numba", "numpy", "jax")


def ragged(seed=0, documents=60, width=20, dtype="float32"):
    """Documents of 0 to 12 vectors in two parts, and each as a float64 matrix."""
    rng = np.random.default_rng(seed)
    parts, scales, offsets, matrices = [], [], [], []
    for count in (documents // 3, documents - documents // 3):
        heights = rng.integers(0, 13, count)
        ends = np.concatenate([[0], np.cumsum(heights)])
        values = rng.standard_normal((ends[-1], width)).astype(np.float32)
        values, scale = to_int8(values) if dtype == "int8" else (values.astype(dtype), None)
        exact = brute.wide(values, scale)
        matrices += [exact[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
        parts.append(values)
        scales.append(scale)
        offsets.append(ends)
    return StoredMatrices(StoredVectors(tuple(parts), tuple(scales)), tuple(offsets)), matrices


@pytest.mark.parametrize("width", [20, 64, 1024])  # of tails, and of whole registers
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_scores_are_the_mean_of_the_best_matches(engine, dtype, width):
    store, matrices = ragged(dtype=dtype, width=width)
    rng = np.random.default_rng(1)
    numbers = rng.permutation(60)[:50]
    for count in (1, 3, 4, 9, 40):
        query = rng.standard_normal((count, width)).astype(np.float32)
        exact = np.array([brute.late(query, matrices[i]) for i in numbers])
        got = colbert.ColbertRetriever(store, engine).scores(query, numbers)
        retriever = colbert.ColbertRetriever(store)
        assert np.abs(got - exact).max() <= retriever.error_bound(query)
        wide = retriever.scores(query, numbers, exact=True)
        np.testing.assert_allclose(wide, exact, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_rankings_are_those_of_float64(engine, dtype):
    """Half of the candidates are copies or all but copies of others."""
    rng = np.random.default_rng(3)
    base = [rng.standard_normal((int(n), 64)) for n in rng.integers(1, 9, 30)]
    copies = [m + 1e-7 * rng.standard_normal(m.shape) for m in base[:20]] + base[20:]
    matrices = [m.astype(np.float32) for m in base + copies]
    offsets = np.concatenate([[0], np.cumsum([len(m) for m in matrices])])
    values, scales = np.concatenate(matrices), None
    if dtype == "int8":
        values, scales = to_int8(values)
        exact = brute.wide(values, scales)
        matrices = [exact[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    store = StoredMatrices(StoredVectors((values,), (scales,)), (offsets,))
    queries = [rng.standard_normal((n, 64)).astype(np.float32) for n in (5, 8)]
    retriever = colbert.ColbertRetriever(store, engine)
    for top_k in (60, 7):
        hits = retriever.search(queries, top_k)
        for query, found in zip(queries, hits.documents, strict=True):
            exact = np.array([brute.late(query, m) for m in matrices])
            np.testing.assert_array_equal(found, brute.top(exact, top_k))


def test_integer_sums_never_overflow():
    """The largest codes and numbers of one sign: 32-bit sums would wrap around."""
    codes = np.full((4, 1024), 127, np.int8) * np.array([[1], [-1], [1], [-1]], np.int8)
    store = StoredMatrices(
        StoredVectors((codes,), (np.ones(4, np.float32),)), (np.array([0, 1, 2, 4]),)
    )
    query = np.array([[1.0] * 1024, [-0.5] * 1024, [0.0] * 1024], np.float32)
    got = colbert.ColbertRetriever(store, "numba").scores(query, np.arange(3))
    np.testing.assert_allclose(got, 127 * 1024 * np.array([0.5, -0.5, 1.5]) / 3, rtol=1e-5)


def test_jax_compiles_few_shapes():
    rng = np.random.default_rng(0)
    store, _ = ragged(seed=5)
    compiled: Any = colbert._late_interaction
    compiled.clear_cache()
    retriever = colbert.ColbertRetriever(store, "jax")
    for count in range(1, 31):
        query = rng.standard_normal((count, 20)).astype(np.float32)
        retriever.scores(query, rng.permutation(60)[: 2 * count])
    assert compiled._cache_size() == 1


def test_nothing_to_match_and_bad_input():
    store, _ = ragged()
    retriever, query = colbert.ColbertRetriever(store), np.ones((2, 20), np.float32)
    assert retriever.scores(query[:0], np.arange(3)).tolist() == [0, 0, 0]
    assert len(retriever.scores(query, np.zeros(0, np.int64))) == 0
    with pytest.raises(ValueError, match="width 3 against 20"):
        retriever.scores(np.ones((2, 3), np.float32), np.arange(3))
    with pytest.raises(ValueError, match="engine must be one of"):
        colbert.ColbertRetriever(store, "magic")
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        retriever.search([query], 0)
