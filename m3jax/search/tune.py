"""Weights of a fused method, tuned on queries with judgements.

The ranking of w1 s_dense + w2 s_lex + w3 s_mul depends on the ratios alone, so the search goes
over weights that add up to 1: a grid first, then finer steps around the best.

q  queries    n  most candidates of a query    h  heads
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3jax.config import HeadWeights
from m3jax.search.fuse import HEADS
from m3jax.search.methods import Candidates
from m3jax.search.trec import Qrels

GRID = 20  # steps of the simplex: 231 triples, 21 pairs
REFINEMENTS = 4  # halvings of the step


class Tuned(NamedTuple):
    """The best weights found, their nDCG@10, and how many were tried."""

    weights: HeadWeights
    ndcg: float
    tried: int


class _Problem(NamedTuple):
    scores: Float[np.ndarray, "q n h"]  # -inf where a query has fewer candidates
    gains: Int[np.ndarray, "q n"]
    ideal: Float[np.ndarray, " q"]


def tune_weights(
    found: Sequence[Candidates],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Qrels,
    *,
    grid: int = GRID,
    depth: int = 10,
) -> Tuned:
    """The weights with the highest mean nDCG@depth over the queries that have judgements.

    Equal scores go to the weights tried first, which lie nearest to even ones. Raises ValueError
    where no query has a relevant document.
    """
    heads = tuple(head for head in HEADS if head in found[0].scores) if found else ()
    problem = _problem(found, heads, query_ids, document_ids, qrels, depth)
    points = [p for p in itertools.product(range(grid + 1), repeat=len(heads)) if sum(p) == grid]
    starts = [np.array(p) / grid for p in points]
    starts.sort(key=lambda w: float(np.square(w - 1 / len(heads)).sum()))
    tried = [(ndcg(problem, w, depth), w) for w in starts]
    best = max(tried, key=lambda pair: pair[0])
    count = len(tried)
    step = 0.5 / grid
    for _ in range(REFINEMENTS):
        near = [best[1] + step * (np.eye(len(heads))[i] - np.eye(len(heads))[j])
                for i, j in itertools.permutations(range(len(heads)), 2)]  # fmt: skip
        near = [w for w in near if w.min() >= 0]
        count += len(near)
        best = max([best, *((ndcg(problem, w, depth), w) for w in near)], key=lambda pair: pair[0])
        step /= 2
    weights = {head: 0.0 for head in HEADS} | dict(zip(heads, map(float, best[1]), strict=True))
    return Tuned(HeadWeights(**weights), best[0], count)


def score_weights(
    found: Sequence[Candidates],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Qrels,
    weights: HeadWeights,
    depth: int = 10,
) -> float:
    """The mean nDCG@depth under given weights."""
    heads = tuple(head for head in HEADS if head in found[0].scores) if found else ()
    problem = _problem(found, heads, query_ids, document_ids, qrels, depth)
    return ndcg(problem, np.array([getattr(weights, head) for head in heads]), depth)


def ndcg(problem: _Problem, weights: Float[np.ndarray, " h"], depth: int) -> float:
    """Mean over queries of sum_r gain_r / log2(1 + r) over the ideal sum, trec_eval's form."""
    filled = np.isfinite(problem.scores[:, :, 0])
    total = np.where(filled, np.where(filled[:, :, None], problem.scores, 0) @ weights, -np.inf)
    order = np.argsort(-total, axis=1, kind="stable")[:, :depth]
    gains = np.take_along_axis(problem.gains, order, axis=1)
    found = (gains / np.log2(2 + np.arange(order.shape[1]))).sum(axis=1)
    return float((found / problem.ideal).mean())


def _problem(
    found: Sequence[Candidates],
    heads: tuple[str, ...],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Qrels,
    depth: int,
) -> _Problem:
    """Arrays of the judged queries, candidates in document order."""
    pairs = zip(found, (qrels.get(query, {}) for query in query_ids), strict=True)
    judged = [(some, grades) for some, grades in pairs if any(g > 0 for g in grades.values())]
    if not judged:
        raise ValueError("no query has a relevant document in the judgements: nothing to tune on")
    width = max(1, *(len(some.documents) for some, _ in judged))
    scores = np.full((len(judged), width, len(heads)), -np.inf)
    gains = np.zeros((len(judged), width), np.int64)
    ideal = np.zeros(len(judged))
    for row, (some, grades) in enumerate(judged):
        count = len(some.documents)
        for column, head in enumerate(heads):
            scores[row, :count, column] = some.scores[head]
        gains[row, :count] = [max(grades.get(document_ids[int(d)], 0), 0) for d in some.documents]
        best = np.sort([g for g in grades.values() if g > 0])[::-1][:depth]
        ideal[row] = (best / np.log2(2 + np.arange(len(best)))).sum()
    return _Problem(scores, gains, ideal)
