"""Measures against pytrec_eval called directly, and by hand."""

import math

import numpy as np
import pytest
import pytrec_eval

from m3jax.evaluate.metrics import MEASURES, as_run, means, per_query

TREC_NAMES = {
    "nDCG@10": "ndcg_cut_10",
    "Recall@20": "recall_20",
    "Recall@100": "recall_100",
    "MAP": "map",
    "P@5": "P_5",
    "MRR": "recip_rank",
    "Success@1": "success_1",
}


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


def test_rankings_are_measured_in_their_order():
    """Scores too close for single precision would be ties; ranks are not."""
    documents = [f"d{i}" for i in range(50)]
    run = as_run([("q", documents)])
    for rank in (0, 9, 49):
        value = per_query({"q": {f"d{rank}": 1}}, run, ["MRR"])["MRR"]["q"]
        assert value == pytest.approx(1 / (rank + 1))


def test_empty_runs_and_unknown_measures():
    assert means(per_query({"q": {"d": 1}}, {})) == dict.fromkeys(MEASURES, 0.0)
    assert means(per_query({"q": {"d": 1}}, {}, count_missing=False)) == dict.fromkeys(
        MEASURES, 0.0
    )
    for bad in ("nDGC@10", "MRR@ten", "Recall@", ""):
        with pytest.raises(ValueError, match="measure"):
            per_query({"q": {"d": 1}}, {}, [bad])
