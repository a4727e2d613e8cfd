"""Fusion by hand, by brute force over every document, and weights tuned to a known best."""

from typing import Any

import ir_measures
import numpy as np
import pytest
import scipy.sparse
from support import brute
from support.brute import every_score, expected

from m3jax.config import HeadWeights
from m3jax.embed.embeddings import Embeddings, Ragged
from m3jax.io.trec import read_qrels, write_run
from m3jax.search import fuse
from m3jax.search.hits import Hits
from m3jax.search.index import in_memory
from m3jax.search.methods import (
    METHODS,
    Candidates,
    Depths,
    EncodedQueries,
    candidates,
    head_scores,
    search,
)
from m3jax.search.tune import score_weights, tune_weights

WEIGHTS = HeadWeights(dense=0.7, sparse=0.4, colbert=1.3)


def test_weighted_sums_and_presets_by_hand():
    scores = {"dense": np.array([0.5, 0.2]), "sparse": np.array([1.0, 3.0])}
    weights = HeadWeights(dense=2.0, sparse=0.5, colbert=9.0)
    np.testing.assert_allclose(fuse.weighted_sum(scores, weights), [1.5, 1.9])
    assert fuse.preset("miracl", "all") == HeadWeights(dense=1.0, sparse=0.3, colbert=1.0)
    assert fuse.preset("mkqa", "dense+sparse") == HeadWeights(dense=1.0, sparse=0.3, colbert=0.0)
    assert fuse.preset("mldr", "all") == HeadWeights(dense=0.15, sparse=0.5, colbert=0.35)
    assert fuse.preset("narrativeqa", "dense+sparse").sparse == 0.8
    with pytest.raises(ValueError, match="no weights named 'beir'"):
        fuse.preset("beir", "all")


def test_reciprocal_ranks_by_hand():
    documents, scores = fuse.reciprocal_ranks([np.array([7, 2, 9]), np.array([2, 5])])
    assert documents.tolist() == [2, 5, 7, 9]
    np.testing.assert_allclose(scores, [1 / 62 + 1 / 61, 1 / 62, 1 / 61, 1 / 63], rtol=1e-15)
    _, scores = fuse.reciprocal_ranks([np.array([1]), np.array([1])], [2.0, 0.5], k=1)
    np.testing.assert_allclose(scores, [2.5 / 2])


def test_normalised_scores_by_hand():
    np.testing.assert_allclose(fuse.normalised(np.array([2.0, 4.0, 3.0]), "minmax"), [0, 1, 0.5])
    np.testing.assert_allclose(fuse.normalised(np.array([1.0, 3.0]), "zscore"), [-1, 1])
    assert fuse.normalised(np.array([3.0, 3.0]), "zscore").tolist() == [0, 0]
    assert fuse.normalised(np.zeros(0), "minmax").tolist() == []


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


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("top_k", [10, 200])
def test_methods_rank_as_brute_force_does(method, top_k):
    rng = np.random.default_rng(0)
    documents, queries = random_embeddings(rng, 300, copies=60), random_embeddings(rng, 12)
    depths = Depths(dense=50, sparse=40, rerank=30)
    scores = every_score(queries, documents)
    encoded, index = EncodedQueries([""] * 12, queries), in_memory(documents)
    cache = {}
    for _ in range(2):  # the second time from the cache
        hits = search(index, encoded, method, top_k=top_k, weights=WEIGHTS, depths=depths,
                      cache=cache)  # fmt: skip
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
    encoded, index = EncodedQueries([""] * 8, queries), in_memory(documents)
    given: Any = dict(top_k=40, weights=WEIGHTS, depths=depths)
    ours = search(index, encoded, "dense+sparse", **given)
    theirs = search(index, encoded, "dense+sparse", compat="flagembedding", **given)
    for i in range(8):
        want, _ = expected("dense+sparse", scores, i, 40, depths, WEIGHTS, zero=True)
        np.testing.assert_array_equal(theirs.documents[i], want)
    assert any((a != b).any() for a, b in zip(ours.documents, theirs.documents, strict=True))


@pytest.mark.parametrize("method", ["dense+sparse", "all"])
@pytest.mark.parametrize("fusion", ["rrf", "minmax", "zscore"])
def test_other_fusions_rank_as_brute_force_does(method, fusion):
    rng = np.random.default_rng(2)
    documents, queries = random_embeddings(rng, 200, copies=20), random_embeddings(rng, 6)
    depths = Depths(dense=30, sparse=25, rerank=20)
    scores = every_score(queries, documents)
    hits = search(in_memory(documents), EncodedQueries([""] * 6, queries), method, top_k=15,
                  weights=None if fusion == "rrf" else WEIGHTS, depths=depths,
                  fusion=fusion)  # fmt: skip
    for i in range(6):
        lists = [expected(m, scores, i, d, depths, WEIGHTS)[0]
                 for m, d in (("dense", 30), ("sparse", 25), ("multivector", 20))]  # fmt: skip
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
                low, spread = (part.min(), np.ptp(part)) if fusion == "minmax" else (
                    part.mean(), part.std())  # fmt: skip
                total[pool] += getattr(WEIGHTS, head) * (part - low) / spread
        want = pool[brute.top(total[pool], 15)]
        np.testing.assert_array_equal(hits.documents[i], want)


def test_bad_input_and_missing_representations():
    rng = np.random.default_rng(3)
    documents, queries = random_embeddings(rng, 9), EncodedQueries(["q"], random_embeddings(rng, 1))
    index = in_memory(Embeddings(documents.dense, None, None))
    assert len(search(index, queries, "dense", top_k=20).documents[0]) == 9
    with pytest.raises(ValueError, match="'all' needs sparse and multivector, but the index holds"):
        search(index, queries, "all", top_k=1)
    with pytest.raises(ValueError, match="method must be one of"):
        search(index, queries, "magic", top_k=1)
    with pytest.raises(ValueError, match="fusion must be one of"):
        search(index, queries, "dense", top_k=1, fusion="magic")
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"fusion": "rrf", "weights": WEIGHTS}, "without weights"),
        ({"fusion": "rrf", "compat": "flagembedding"}, "for the weighted"),
        ({"fusion": "zscore", "compat": "flagembedding"}, "for the weighted"),
    )
    for given, message in refused:
        with pytest.raises(ValueError, match=message):
            search(index, queries, "dense+sparse", top_k=1, **given)
    with pytest.raises(ValueError, match="compat must be"):
        search(index, queries, "dense", top_k=1, compat="lucene")
    with pytest.raises(ValueError, match="depths must be at least 1"):
        Depths(rerank=0)
    with pytest.raises(ValueError, match="'dense' fuses nothing"):
        candidates(index, queries, "dense")
    with pytest.raises(ValueError, match="different numbers of documents"):
        in_memory(Embeddings(documents.dense, documents.sparse[[0, 1]], None))
    with pytest.raises(ValueError, match="no model; encode the queries first"):
        search(index, ["a text"], "dense", top_k=1)
    empty = search(in_memory(documents), EncodedQueries([], queries.embeddings), "all", top_k=1)
    assert empty.documents == []


def test_head_scores_are_the_exact_ones():
    rng = np.random.default_rng(4)
    documents, queries = random_embeddings(rng, 20), random_embeddings(rng, 2)
    some = np.array([3, 17, 5])
    got = head_scores(in_memory(documents), EncodedQueries(["", ""], queries), 1, some)
    for head, scores in every_score(queries, documents).items():
        np.testing.assert_allclose(got[head], scores[1][some], rtol=1e-12, atol=1e-15)


def judged_problem():
    """Relevant documents have the highest 0.2 dense + 0.8 sparse, noise in both alone."""
    rng = np.random.default_rng(5)
    found, qrels = [], {}
    for q in range(40):
        hidden = rng.permutation(30) / 30
        noise = rng.standard_normal(30)
        scores = {"dense": 0.2 * hidden + 0.8 * noise, "sparse": 0.2 * hidden - 0.2 * noise}
        scores["colbert"] = rng.standard_normal(30)
        found.append(Candidates(np.arange(30), scores, 0.0))
        best = np.argsort(-hidden)[:4]
        qrels[f"q{q}"] = {f"d{i}": 2 - (n > 1) for n, i in enumerate(best)}
    return found, [f"q{q}" for q in range(40)], [f"d{i}" for i in range(30)], qrels


def test_tuning_finds_the_known_best(tmp_path):
    found, queries, documents, qrels = judged_problem()
    best = tune_weights(found, queries, documents, qrels)
    assert best.ndcg > 0.999 and best.weights.colbert < 0.02
    assert best.weights.sparse / best.weights.dense == pytest.approx(4, rel=0.1)
    even = HeadWeights(dense=1.0, sparse=1.0, colbert=1.0)
    assert score_weights(found, queries, documents, qrels, even) < 0.7
    # The same nDCG as pytrec_eval's, of the run that these weights make.
    totals = [fuse.weighted_sum(some.scores, even) for some in found]
    order = [brute.top(total, 30) for total in totals]
    scores = [total[o] for total, o in zip(totals, order, strict=True)]
    write_run(tmp_path / "run", queries, documents, Hits(order, scores), "even")
    run = list(ir_measures.read_trec_run(str(tmp_path / "run")))
    judged = [ir_measures.Qrel(q, d, g) for q, row in qrels.items() for d, g in row.items()]
    want = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], judged, run)
    assert score_weights(found, queries, documents, qrels, even) == pytest.approx(
        want[ir_measures.nDCG @ 10], abs=1e-9
    )
    with pytest.raises(ValueError, match="no query has a relevant document"):
        tune_weights(found, queries, documents, {"other": {"d1": 1}})


def found_cost(found, queries, documents, qrels, kinds, weights) -> list[float]:
    """What each kind has below its best head alone."""
    heads = [HeadWeights(**{name: float(name == head) for name in ("dense", "sparse", "colbert")})
             for head in ("dense", "sparse", "colbert")]  # fmt: skip
    costs = []
    for kind in dict.fromkeys(kinds):
        rows = [i for i, name in enumerate(kinds) if name == kind]
        own = ([found[i] for i in rows], [queries[i] for i in rows], documents, qrels)
        costs.append(max(score_weights(*own, w) for w in heads) - score_weights(*own, weights))
    return costs


def test_tuning_by_kinds_lets_no_kind_pay():
    """Where sparse scores are noise for a few queries, tuning over all of them costs those."""
    found, queries, documents, qrels = judged_problem()
    rng = np.random.default_rng(6)
    for some in found[30:]:
        signal = some.scores["dense"] + 4 * some.scores["sparse"]
        some.scores.update(dense=signal, sparse=rng.standard_normal(30))
    kinds = ["shared words"] * 30 + ["other language"] * 10

    def few(weights: HeadWeights) -> float:
        return score_weights(found[30:], queries[30:], documents, qrels, weights)

    def loss(weights: HeadWeights) -> float:
        return few(HeadWeights(dense=1.0, sparse=0.0, colbert=0.0)) - few(weights)

    assert loss(tune_weights(found, queries, documents, qrels).weights) > 0.02
    best = tune_weights(found, queries, documents, qrels, kinds=kinds)
    assert loss(best.weights) <= 0.003
    parts = [score_weights(found[a:b], queries[a:b], documents, qrels, best.weights)
             for a, b in ((0, 30), (30, 40))]  # fmt: skip
    assert best.ndcg == pytest.approx(np.mean(parts), abs=1e-9)  # a kind counts, not its queries
    for some, kind in zip(found, kinds, strict=True):  # now what serves one harms the other
        signal = some.scores["dense"] + some.scores["sparse"]
        sign = 1 if kind == kinds[0] else -1
        some.scores.update(dense=sign * signal, sparse=-sign * signal, colbert=np.zeros(30))
    best = tune_weights(found, queries, documents, qrels, kinds=kinds)
    costs = [max(found_cost(found, queries, documents, qrels, kinds, weights))
             for weights in (best.weights, *(HeadWeights(dense=d, sparse=1 - d, colbert=0.0)
                                             for d in np.linspace(0, 1, 21)))]  # fmt: skip
    assert best.cost == pytest.approx(costs[0], abs=1e-9) and best.cost > 0.003
    assert costs[0] <= min(costs[1:]) + 1e-9


def test_a_run_keeps_its_ranking_in_every_evaluator(tmp_path):
    """Equal scores: trec_eval would sort by document name, backwards."""
    hits = Hits([np.array([2, 0, 1])], [np.array([1.0, 1.0, 1.0], np.float32)])
    assert write_run(tmp_path / "a" / "run", ["q"], ["a", "b", "c"], hits, "t") == 3
    rows = [line.split() for line in (tmp_path / "a" / "run").read_text().splitlines()]
    assert [(row[2], row[3]) for row in rows] == [("c", "1"), ("a", "2"), ("b", "3")]
    written = [np.float32(row[4]) for row in rows]
    assert written[0] == 1 and written[0] > written[1] > written[2] > 0.9999997
    qrels = [ir_measures.Qrel("q", "a", 1)]
    measured = ir_measures.calc_aggregate(
        [ir_measures.RR @ 10], qrels, ir_measures.read_trec_run(str(tmp_path / "a" / "run"))
    )
    assert measured[ir_measures.RR @ 10] == 0.5
    with pytest.raises(ValueError, match="cannot hold the id 'd 1'"):
        write_run(tmp_path / "b", ["q"], ["a", "b", "d 1"], hits, "t")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_judgements_in_both_forms(tmp_path):
    (tmp_path / "beir.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td 1\t2\n\nq2\td2\t0\n")
    assert read_qrels(tmp_path / "beir.tsv") == {"q1": {"d 1": 2}, "q2": {"d2": 0}}
    (tmp_path / "trec").write_text("q1 0 d1 1\nq1 0 d2 -1\n")
    assert read_qrels(tmp_path / "trec") == {"q1": {"d1": 1, "d2": -1}}
    (tmp_path / "bad").write_text("q1 0 d1 1\nq1 0 d2 good\n")
    with pytest.raises(ValueError, match="bad:2: expected"):
        read_qrels(tmp_path / "bad")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ValueError, match="holds no judgements"):
        read_qrels(tmp_path / "empty")
