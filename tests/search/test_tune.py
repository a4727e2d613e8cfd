"""Weights tuned to a known best."""

import ir_measures
import numpy as np
import pytest
from support import brute

from m3jax.config import HeadWeights
from m3jax.io.trec import write_run
from m3jax.search import fuse
from m3jax.search.hits import Hits
from m3jax.search.methods import Candidates
from m3jax.search.tune import score_weights, tune_weights


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


def largest_drops(found, queries, documents, qrels, groups, weights) -> list[float]:
    """The drop of each group below its best single head."""
    heads = [
        HeadWeights(**{name: float(name == head) for name in ("dense", "sparse", "colbert")})
        for head in ("dense", "sparse", "colbert")
    ]
    costs = []
    for group in dict.fromkeys(groups):
        rows = [i for i, name in enumerate(groups) if name == group]
        own = ([found[i] for i in rows], [queries[i] for i in rows], documents, qrels)
        costs.append(max(score_weights(*own, w) for w in heads) - score_weights(*own, weights))
    return costs


def test_tuning_by_groups_limits_the_drop_of_each_group():
    """Sparse scores are noise for a few queries, which tuning over all queries makes worse."""
    found, queries, documents, qrels = judged_problem()
    rng = np.random.default_rng(6)
    for some in found[30:]:
        signal = some.scores["dense"] + 4 * some.scores["sparse"]
        some.scores.update(dense=signal, sparse=rng.standard_normal(30))
    groups = ["shared words"] * 30 + ["other language"] * 10

    def few(weights: HeadWeights) -> float:
        return score_weights(found[30:], queries[30:], documents, qrels, weights)

    def loss(weights: HeadWeights) -> float:
        return few(HeadWeights(dense=1.0, sparse=0.0, colbert=0.0)) - few(weights)

    assert loss(tune_weights(found, queries, documents, qrels).weights) > 0.02
    best = tune_weights(found, queries, documents, qrels, groups=groups)
    assert loss(best.weights) <= 0.003
    parts = [
        score_weights(found[a:b], queries[a:b], documents, qrels, best.weights)
        for a, b in ((0, 30), (30, 40))
    ]
    assert best.ndcg == pytest.approx(np.mean(parts), abs=1e-9)  # a group counts, not its queries
    for some, group in zip(found, groups, strict=True):  # now what serves one harms the other
        signal = some.scores["dense"] + some.scores["sparse"]
        sign = 1 if group == groups[0] else -1
        some.scores.update(dense=sign * signal, sparse=-sign * signal, colbert=np.zeros(30))
    best = tune_weights(found, queries, documents, qrels, groups=groups)
    costs = [
        max(largest_drops(found, queries, documents, qrels, groups, weights))
        for weights in (
            best.weights,
            *(HeadWeights(dense=d, sparse=1 - d, colbert=0.0) for d in np.linspace(0, 1, 21)),
        )
    ]
    assert best.cost == pytest.approx(costs[0], abs=1e-9) and best.cost > 0.003
    assert costs[0] <= min(costs[1:]) + 1e-9
