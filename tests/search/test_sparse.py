"""Lexical search ranks as sums over dictionaries; a loaded index equals the built one."""

import hypothesis
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import scipy.sparse
from hypothesis import strategies as st
from support import brute

from m3jax.search import sparse
from m3jax.search.kernels import lexical

ENGINES = ("numba", "scipy")


def search(queries, postings, top_k, engine="auto"):
    return sparse.SparseRetriever(postings, engine).search(queries, top_k)


# Sixteenths: every sum is exact, and ties are common.
SIXTEENTHS = st.sampled_from([0, 0, 0, 1, 2, 4, 8, 16]).map(lambda n: n / 16)


def matrix(values) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(np.asarray(values, np.float32))


def random_matrix(rows, tokens, density, seed):
    rng = np.random.default_rng(seed)
    return scipy.sparse.csr_array(
        scipy.sparse.random_array((rows, tokens), density=density, rng=rng, dtype=np.float32)
    )


def expected(queries, documents, top_k):
    held = brute.dictionaries(documents)
    for query in brute.dictionaries(queries):
        scores = np.array([brute.lexical(query, document) for document in held])
        best = brute.top(scores, top_k)
        yield best[scores[best] > 0], scores


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    documents=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 40), st.just(6)), elements=SIXTEENTHS
    ),
    queries=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 4), st.just(6)), elements=SIXTEENTHS
    ),
    top_k=st.integers(1, 45),
    cut=st.integers(0, 40),
)
def test_any_documents_any_queries(documents, queries, top_k, cut):
    parts = [matrix(part) for part in (documents[:cut], documents[cut:]) if len(part)]
    index = sparse.build(lambda: parts)
    results = [search(matrix(queries), index, top_k, engine=e) for e in ENGINES]
    for i, (want, scores) in enumerate(expected(matrix(queries), matrix(documents), top_k)):
        for hits in results:
            np.testing.assert_array_equal(hits.documents[i], want)
            np.testing.assert_array_equal(hits.scores[i], scores[want])


@pytest.mark.parametrize("block", [7, 64, 1 << 15])
def test_both_engines_return_the_same_bits(monkeypatch, block):
    monkeypatch.setattr(sparse, "BLOCK", block)
    documents, queries = random_matrix(3000, 50, 0.2, 0), random_matrix(20, 50, 0.2, 1)
    index = sparse.build(lambda: [documents])
    numba, scipy_ = (search(queries, index, 30, engine=e) for e in ENGINES)
    for i, (want, scores) in enumerate(expected(queries, documents, 30)):
        np.testing.assert_array_equal(numba.documents[i], want)
        np.testing.assert_array_equal(numba.scores[i], scipy_.scores[i])
        np.testing.assert_array_equal(scipy_.documents[i], want)
        some = np.array([5, 17, 2999])
        np.testing.assert_array_equal(
            sparse.SparseRetriever(index).scores(queries[[i]], some), scores[some]
        )


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_one_query_is_split_over_the_cores(monkeypatch, cores):
    """The best of all ranges together are those of all documents, ties in document order."""
    monkeypatch.setattr(sparse, "BLOCK", 64)
    monkeypatch.setattr(sparse, "cores", lambda: cores)
    dense = random_matrix(3000, 50, 0.2, 0).toarray()
    dense[1400:1600] = dense[2900:3000] = dense[7]
    index = sparse.build(lambda: [matrix(dense)])
    queries = random_matrix(20, 50, 0.2, 1)
    assert len(sparse._ranges(index.size, 1)) == cores
    for i, (want, scores) in enumerate(expected(queries, matrix(dense), 150)):
        hits = search(queries[[i]], index, 150, engine="numba")
        np.testing.assert_array_equal(hits.documents[0], want)
        np.testing.assert_array_equal(hits.scores[0], scores[want])


def test_all_documents_tie_at_the_threshold():
    """More equal scores than the kernel keeps, some better ones at the very end."""
    values = np.ones((5000, 1), np.float32)
    values[4990:] = 2
    index = sparse.build(lambda: [matrix(values)])
    bounds = index.largest.astype(float)
    terms = lexical.Terms(index.offsets[:1], index.offsets[1:], np.ones(1), bounds)
    postings = lexical.Postings(index.documents, index.weights)
    found, _ = lexical.lexical_top(terms, postings, 0, 5000, 20, 8)
    assert {*range(4990, 5000), *range(10)} <= set(found.tolist()) and len(found) < 60
    for engine in ENGINES:
        (best,) = search(matrix([[1]]), index, 20, engine=engine).documents
        np.testing.assert_array_equal(best, [*range(4990, 5000), *range(10)])


@pytest.mark.parametrize("bits", [32, 8])
def test_a_loaded_index_equals_the_built_one(tmp_path, bits):
    documents, queries = random_matrix(400, 50, 0.2, 0), random_matrix(5, 50, 0.2, 1)
    parts = [documents[:150], documents[150:]]
    built = sparse.build(lambda: [documents], bits=bits)
    on_disk = sparse.build(lambda: parts, tmp_path / "a", bits=bits)
    sparse.save(built, tmp_path / "b")
    results = [
        search(queries, index, 40)
        for index in (built, on_disk, sparse.load(tmp_path / "a"), sparse.load(tmp_path / "b"))
    ]
    for hits in results[1:]:
        for i in range(5):
            np.testing.assert_array_equal(hits.documents[i], results[0].documents[i])
            np.testing.assert_array_equal(hits.scores[i], results[0].scores[i])
    both = [search(queries, on_disk, 40, engine=e) for e in ENGINES]
    np.testing.assert_array_equal(both[0].scores[3], both[1].scores[3])


def test_scores_of_eight_bit_weights_are_within_the_documented_error():
    documents, queries = random_matrix(400, 50, 0.3, 0), random_matrix(5, 50, 0.3, 1)
    index = sparse.build(lambda: [documents], bits=8)
    assert index.weights.dtype == np.uint8
    everything = np.arange(400)
    largest = documents.toarray().max(axis=0).astype(np.float64)
    for i, (_, exact) in enumerate(expected(queries, documents, 1)):
        bound = (queries.toarray()[i] * largest).sum() / 510
        error = np.abs(sparse.SparseRetriever(index).scores(queries[[i]], everything) - exact)
        assert 0 < error.max() <= bound * 1.0001


def test_shared_tokens_are_sorted_by_their_product():
    index = sparse.build(lambda: [matrix([[0, 1, 2, 0.5], [1, 0, 0, 0]])])
    retriever, query = sparse.SparseRetriever(index), matrix([[1, 1, 0.25, 4]])
    assert retriever.matches(query, 0) == [(3, 4, 0.5), (1, 1, 1), (2, 0.25, 2)]
    assert retriever.matches(query, 1) == [(0, 1, 1)]


def test_bad_input(tmp_path):
    index = sparse.build(lambda: [matrix([[1, 0]])])
    with pytest.raises(ValueError, match="queries over 3 tokens, the index has 2"):
        search(matrix([[1, 1, 1]]), index, 1)
    with pytest.raises(ValueError, match="bits must be 8 or 32"):
        sparse.build(lambda: [matrix([[1]])], bits=4)
    with pytest.raises(FileNotFoundError, match="has no offsets.npy"):
        sparse.load(tmp_path)
    sparse.save(index, tmp_path / "x")
    np.save(tmp_path / "x" / "weights.npy", np.ones(7, np.float32))
    with pytest.raises(ValueError, match="damaged"):
        sparse.load(tmp_path / "x")
    with pytest.raises(FileExistsError, match="already exists"):
        sparse.save(index, tmp_path / "x")


def test_a_failed_build_leaves_no_files(tmp_path):
    def read():
        yield matrix([[1, 0]])
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="on fire"):
        sparse.build(read, tmp_path / "x")
    assert not list(tmp_path.iterdir())
