"""Weights of a fused method, tuned on queries with relevance judgements.

The ranking of w1 s_dense + w2 s_lex + w3 s_mul depends on the ratios alone, so the search is over
weights that add up to 1: a grid first, then finer steps around the best.

q  queries    n  most candidates of a query    h  heads    g  groups of queries
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3jax.config import HEADS, HeadWeights
from m3jax.io.trec import Qrels
from m3jax.search.methods import Candidates

GRID = 40  # steps of the simplex: 861 triples, 41 pairs
REFINEMENTS = 4  # halvings of the step
SLACK = 0.003  # of nDCG: the drop of a group below its best single head that is accepted


class Tuned(NamedTuple):
    """The best weights, their nDCG@10, the number of weights tried, and the largest drop of any
    group below its best single head."""

    weights: HeadWeights
    ndcg: float
    tried: int
    cost: float = 0.0


class _Problem(NamedTuple):
    """The judged queries as arrays, candidates in document order."""

    heads: tuple[str, ...]
    scores: Float[np.ndarray, "q n h"]  # -inf where a query has fewer candidates
    gains: Int[np.ndarray, "q n"]
    ideal: Float[np.ndarray, " q"]


def tune_weights(
    pools: Sequence[Candidates],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Qrels,
    *,
    groups: Sequence[str] | None = None,
    grid: int = GRID,
    depth: int = 10,
) -> Tuned:
    """The weights with the highest mean nDCG@depth over the judged queries.

    `pools` are the candidates of each query. With `groups` (one label for each query) the score is
    the macro average over groups. Weights that put a group more than SLACK below its best single
    head are rejected; if all do, the smallest drop wins. Ties prefer uniform weights. Raises
    ValueError where no query has a relevant document.
    """
    problem = _problem(pools, query_ids, document_ids, qrels, depth)
    averages = _averages(query_ids, qrels, groups)
    singles = np.eye(len(problem.heads))
    by_head = [averages @ ndcgs(problem, row, depth) for row in singles]
    best_single = np.max(by_head, axis=0) if groups else np.zeros(1)

    def value(weights: np.ndarray) -> tuple[float, float]:
        means = averages @ ndcgs(problem, weights, depth)
        return -max(SLACK, float((best_single - means).max())), float(means.mean())

    count = len(problem.heads)
    points = [p for p in itertools.product(range(grid + 1), repeat=count) if sum(p) == grid]
    starts = [np.array(p) / grid for p in points]
    starts.sort(key=lambda w: float(np.square(w - 1 / count).sum()))
    ((_, ndcg), best), tried = _search(value, starts, 0.5 / grid)
    drop = float((best_single - averages @ ndcgs(problem, best, depth)).max())
    weights = dict.fromkeys(HEADS, 0.0)
    weights |= dict(zip(problem.heads, map(float, best), strict=True))
    return Tuned(HeadWeights(**weights), ndcg, tried, max(0.0, drop))


def _search(
    value: Callable[[np.ndarray], tuple[float, float]], starts: Sequence[np.ndarray], step: float
) -> tuple[tuple[tuple[float, float], np.ndarray], int]:
    """((value, weights) of the best start or of its neighbours by ever finer steps, the number of
    weights tried)."""
    best = max(((value(w), w) for w in starts), key=lambda pair: pair[0])
    count, moves = len(starts), np.eye(len(starts[0]))
    for _ in range(REFINEMENTS):
        pairs = itertools.permutations(range(len(moves)), 2)
        neighbours = [best[1] + step * (moves[i] - moves[j]) for i, j in pairs]
        neighbours = [w for w in neighbours if w.min() >= 0]
        count += len(neighbours)
        best = max([best, *((value(w), w) for w in neighbours)], key=lambda pair: pair[0])
        step /= 2
    return best, count


def _averages(
    query_ids: Sequence[str], qrels: Qrels, groups: Sequence[str] | None
) -> Float[np.ndarray, "g q"]:
    """A matrix that averages over the judged queries of each group; one row without groups."""
    judged = [any(g > 0 for g in qrels.get(query, {}).values()) for query in query_ids]
    groups = groups or [""] * len(query_ids)
    labels = [group for group, kept in zip(groups, judged, strict=True) if kept]
    rows = np.array([[one == group for one in labels] for group in dict.fromkeys(labels)], float)
    return rows / rows.sum(axis=1, keepdims=True)


def score_weights(
    pools: Sequence[Candidates],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Qrels,
    weights: HeadWeights,
    *,
    groups: Sequence[str] | None = None,
    depth: int = 10,
) -> float:
    """The mean nDCG@depth under given weights; with `groups` the macro average."""
    problem = _problem(pools, query_ids, document_ids, qrels, depth)
    row = np.array([getattr(weights, head) for head in problem.heads])
    return float((_averages(query_ids, qrels, groups) @ ndcgs(problem, row, depth)).mean())


def ndcgs(
    problem: _Problem, weights: Float[np.ndarray, " h"], depth: int
) -> Float[np.ndarray, " q"]:
    """nDCG of each query: sum_r gain_r / log2(1 + r) over the ideal sum, as in trec_eval."""
    is_candidate = np.isfinite(problem.scores[:, :, 0])
    scores = np.where(is_candidate[:, :, None], problem.scores, 0)
    total = np.where(is_candidate, scores @ weights, -np.inf)
    order = np.argsort(-total, axis=1, kind="stable")[:, :depth]
    gains = np.take_along_axis(problem.gains, order, axis=1)
    return (gains / np.log2(2 + np.arange(order.shape[1]))).sum(axis=1) / problem.ideal


def _problem(
    pools: Sequence[Candidates],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Qrels,
    depth: int,
) -> _Problem:
    heads = tuple(head for head in HEADS if head in pools[0].scores) if pools else ()
    pairs = zip(pools, (qrels.get(query, {}) for query in query_ids), strict=True)
    judged = [(pool, grades) for pool, grades in pairs if any(g > 0 for g in grades.values())]
    if not judged:
        raise ValueError("no query has a relevant document in the judgements: nothing to tune on")
    width = max(1, *(len(pool.documents) for pool, _ in judged))
    scores = np.full((len(judged), width, len(heads)), -np.inf)
    gains = np.zeros((len(judged), width), np.int64)
    ideal = np.zeros(len(judged))
    for row, (pool, grades) in enumerate(judged):
        count = len(pool.documents)
        for column, head in enumerate(heads):
            scores[row, :count, column] = pool.scores[head]
        gains[row, :count] = [max(grades.get(document_ids[int(d)], 0), 0) for d in pool.documents]
        best = np.sort([g for g in grades.values() if g > 0])[::-1][:depth]
        ideal[row] = (best / np.log2(2 + np.arange(len(best)))).sum()
    return _Problem(heads, scores, gains, ideal)
