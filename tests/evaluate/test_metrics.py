"""Measures against pytrec_eval called directly, tests of significance against SciPy's; files."""

import gzip
import math

import numpy as np
import pytest
import pytrec_eval
import scipy.stats

from m3jax.evaluate.metrics import MEASURES, as_run, means, per_query
from m3jax.evaluate.significance import (
    bootstrap_means,
    compare,
    holm,
    interval,
    randomization_p,
)
from m3jax.io.atomic import replace_file
from m3jax.io.trec import read_qrels, read_run, write_run
from m3jax.search.hits import Hits

TREC_NAMES = {
    "nDCG@10": "ndcg_cut_10", "Recall@20": "recall_20", "Recall@100": "recall_100", "MAP": "map",
    "P@5": "P_5", "MRR": "recip_rank", "Success@1": "success_1",
}  # fmt: skip


def random_case(seed, queries=40, documents=150, scores=8):
    """Graded judgements and a run with many ties; some queries missing, some without results."""
    rng = np.random.default_rng(seed)
    qrels, run = {}, {}
    for q in range(queries):
        judged = rng.choice(documents, rng.integers(1, 12), replace=False)
        qrels[f"q{q}"] = {f"d{d}": int(rng.integers(0, 3)) for d in judged}
        found = rng.choice(documents, rng.integers(1, 130), replace=False)
        run[f"q{q}"] = {f"d{d}": float(rng.integers(scores)) for d in found}
    for q in (3, 7):
        del run[f"q{q}"]
    run["q11"] = {}
    run["unjudged"] = {"d1": 1.0}
    return qrels, run


@pytest.mark.parametrize("seed", range(5))
def test_equals_pytrec_eval_with_ties_and_missing_queries(seed):
    qrels, run = random_case(seed)
    want = pytrec_eval.RelevanceEvaluator(qrels, set(TREC_NAMES.values())).evaluate(run)
    skipped = per_query(qrels, run, list(TREC_NAMES), count_missing=False)
    counted = per_query(qrels, run, list(TREC_NAMES))
    for name, theirs in TREC_NAMES.items():
        assert set(counted[name]) == set(qrels)
        assert set(skipped[name]) == set(qrels) - {"q3", "q7"}
        for query in qrels:
            value = want[query][theirs] if query in want else 0.0
            assert counted[name][query] == pytest.approx(value, abs=1e-12), (name, query)
            assert skipped[name].get(query, value) == counted[name][query]
    assert counted["nDCG@10"]["q3"] == counted["nDCG@10"]["q11"] == 0


@pytest.mark.parametrize("cutoff", [1, 3, 10])
def test_mrr_is_cut_at_its_rank(cutoff):
    """By hand: trec_eval's order is by score, then by document id, the greater first."""
    qrels, run = random_case(9)
    got = per_query(qrels, run, [f"MRR@{cutoff}"])[f"MRR@{cutoff}"]
    for query, judged in qrels.items():
        order = sorted(run.get(query, {}).items(), key=lambda item: (item[1], item[0]))[::-1]
        ranks = [r for r, (d, _) in enumerate(order, 1) if judged.get(d, 0) > 0]
        want = 1 / ranks[0] if ranks and ranks[0] <= cutoff else 0.0
        assert got[query] == pytest.approx(want)


def test_ndcg_by_hand():
    run = as_run([("q", ["a", "b", "c"])])
    value = per_query({"q": {"c": 2, "b": 1, "x": 1}}, run, ["nDCG@10"])["nDCG@10"]["q"]
    gain = 1 / math.log2(3) + 2 / math.log2(4)
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert value == pytest.approx(gain / ideal)


def test_rankings_are_measured_in_their_own_order():
    """Scores too close for single precision would be ties; ranks are not."""
    documents = [f"d{i}" for i in range(50)]
    run = as_run([("q", documents)])
    for place in (0, 9, 49):
        value = per_query({"q": {f"d{place}": 1}}, run, ["MRR"])["MRR"]["q"]
        assert value == pytest.approx(1 / (place + 1))


def test_nothing_found_and_nothing_asked():
    assert means(per_query({"q": {"d": 1}}, {})) == dict.fromkeys(MEASURES, 0.0)
    assert means(per_query({"q": {"d": 1}}, {}, count_missing=False)) == dict.fromkeys(
        MEASURES, 0.0
    )
    for bad in ("nDGC@10", "MRR@ten", "Recall@", ""):
        with pytest.raises(ValueError, match="measure"):
            per_query({"q": {"d": 1}}, {}, [bad])


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    draws = rng.random((300, 60)) ** 2  # mean 1/3
    hits = 0
    for values in draws:
        low, high = interval(bootstrap_means(values, samples=400))
        assert low <= values.mean() <= high
        hits += low <= 1 / 3 <= high
    assert 0.90 < hits / 300 < 0.985
    np.testing.assert_array_equal(bootstrap_means(draws[0]), bootstrap_means(draws[0]))
    theirs = scipy.stats.bootstrap(
        (draws[0],), np.mean, n_resamples=20_000, method="percentile", rng=rng
    ).confidence_interval
    ours = interval(bootstrap_means(draws[0], samples=20_000))
    np.testing.assert_allclose(ours, theirs, atol=0.01)
    assert interval(bootstrap_means(np.zeros(0))) == (0.0, 0.0)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.2])
def test_randomization_equals_scipys_exact_test(shift):
    rng = np.random.default_rng(1)
    a = rng.random(13)
    b = np.where(rng.random(13) < 0.3, a, a - shift + rng.normal(0, 0.1, 13))
    exact = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=2**13,
    ).pvalue  # fmt: skip
    assert randomization_p(a - b, samples=40_000) == pytest.approx(exact, abs=0.012)


def test_pairs_of_methods_are_compared():
    rng = np.random.default_rng(2)
    base = rng.random(200)
    methods = {"a": base, "b": base - 0.1 + rng.normal(0, 0.1, 200), "c": base.copy()}
    rows = {(row.a, row.b): row for row in compare(methods, samples=2000)}
    assert set(rows) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert rows["a", "b"].difference == pytest.approx(np.mean(base - methods["b"]))
    assert rows["a", "b"].t_p == pytest.approx(scipy.stats.ttest_rel(base, methods["b"]).pvalue)
    assert rows["a", "b"].randomization_p == pytest.approx(1 / 2001)
    assert rows["a", "c"].randomization_p == rows["a", "c"].t_p == 1.0
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_run_survives_the_file(tmp_path):
    """Ties included: what is measured from the file is what was ranked."""
    hits = Hits(
        [np.array([2, 0, 1]), np.array([], int)],
        [np.full(3, 3, np.float32), np.zeros(0, np.float32)],
    )
    path = tmp_path / "deep" / "run.trec"
    write_run(path, ["q1", "q2"], ["a", "b", "c"], hits, "m3")
    run = read_run(path)
    assert sorted(run["q1"], key=lambda d: -run["q1"][d]) == ["c", "a", "b"] and "q2" not in run
    measured = per_query({"q1": {"a": 1}, "q2": {"a": 1}}, run, ["MRR"])["MRR"]
    assert measured == {"q1": 0.5, "q2": 0.0}


def test_a_file_is_whole_or_not_there(tmp_path):
    with replace_file(tmp_path / "deep" / "file") as stream:
        stream.write("whole")
    with pytest.raises(KeyboardInterrupt), replace_file(tmp_path / "deep" / "file") as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert (tmp_path / "deep" / "file").read_text() == "whole"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_qrels_in_both_formats_are_the_same(tmp_path):
    want = {"q1": {"d1": 1, "d2": 0}, "q2": {"d 3": 2}}
    beir = tmp_path / "test.tsv"
    beir.write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td 3\t2.0\n\n")
    trec = tmp_path / "qrels.trec.gz"
    trec.write_bytes(gzip.compress(b"q1\t0\td1\t1\nq1\tQ0\td2\t0\nq2\t0\td 3\t2\n"))
    assert read_qrels(beir) == read_qrels(trec) == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 0 d1 1\nq1 0 d2 high\n", ":2: expected `query document grade`"),
        ("q1 0 d1 1\nq1 0 d1 2\n", ":2: 'd1' is judged twice for query 'q1', as 1 and 2"),
        ("q1 0 d1 1 9\n", ":1: expected"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgements"),
    ],
)
def test_bad_qrels_name_the_line(tmp_path, text, message):
    (tmp_path / "q").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_qrels(tmp_path / "q")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 Q0 d1 1 0.5\n", ":1: a TREC run has 6 columns"),
        ("q1 Q0 d1 1 0.5 t\nq1 Q0 d1 2 0.4 t\n", ":2: 'd1' stands twice"),
        ("q1 Q0 d1 1 nan t\n", ":1: a score must be a finite number, got 'nan'"),
        ("", "holds no result"),
    ],
)
def test_bad_runs_name_the_line(tmp_path, text, message):
    (tmp_path / "r").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "r")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_run(tmp_path / "none")
