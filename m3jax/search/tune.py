"""Weights of a fused method, tuned on queries with judgements.

The ranking of w1 s_dense + w2 s_lex + w3 s_mul depends on the ratios alone, so the search goes
over weights that add up to 1: a grid first, then finer steps around the best.

q  queries    n  most candidates of a query    h  heads    k  kinds of queries
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
SLACK = 0.003  # of nDCG: what the weights may cost a kind of queries


class Tuned(NamedTuple):
    """The best weights found, their nDCG@10, how many were tried, and what the kind that pays most
    has below its best head alone."""

    weights: HeadWeights
    ndcg: float
    tried: int
    cost: float = 0.0


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
    kinds: Sequence[str] | None = None,
    grid: int = GRID,
    depth: int = 10,
) -> Tuned:
    """The weights with the highest mean nDCG@depth over the queries that have judgements.

    With `kinds`, one a query, the mean of the kinds' means counts, and weights under which a kind
    falls more than SLACK below its best head alone are passed over: no kind pays for the others.
    Where all weights cost some kind more than that, those that cost it least are taken. Equal
    scores go to the weights tried first, which lie nearest to even ones. Raises ValueError where
    no query has a relevant document.
    """
    heads = tuple(head for head in HEADS if head in found[0].scores) if found else ()
    problem = _problem(found, heads, query_ids, document_ids, qrels, depth)
    members = _members(query_ids, qrels, kinds)
    alone = [members @ ndcgs(problem, row, depth) for row in np.eye(len(heads))]
    best_alone = np.max(alone, axis=0) if kinds else np.zeros(1)

    def value(weights: np.ndarray) -> tuple[float, float]:
        means = members @ ndcgs(problem, weights, depth)
        return -max(SLACK, float((best_alone - means).max())), float(means.mean())

    points = [p for p in itertools.product(range(grid + 1), repeat=len(heads)) if sum(p) == grid]
    starts = [np.array(p) / grid for p in points]
    starts.sort(key=lambda w: float(np.square(w - 1 / len(heads)).sum()))
    best, count = _search(value, starts, 0.5 / grid)
    (_, ndcg), found_weights = best
    cost = float((best_alone - members @ ndcgs(problem, found_weights, depth)).max())
    weights = {head: 0.0 for head in HEADS} | dict(
        zip(heads, map(float, found_weights), strict=True)
    )
    return Tuned(HeadWeights(**weights), ndcg, count, max(0.0, cost))


def _search(
    value: Callable[[np.ndarray], tuple[float, float]], starts: Sequence[np.ndarray], step: float
) -> tuple[tuple[tuple[float, float], np.ndarray], int]:
    """(value, weights) of the best start or of its neighbours by ever finer steps; how many were
    tried."""
    best = max(((value(w), w) for w in starts), key=lambda pair: pair[0])
    count, moves = len(starts), np.eye(len(starts[0]))
    for _ in range(REFINEMENTS):
        near = [best[1] + step * (moves[i] - moves[j])
                for i, j in itertools.permutations(range(len(moves)), 2)]  # fmt: skip
        near = [w for w in near if w.min() >= 0]
        count += len(near)
        best = max([best, *((value(w), w) for w in near)], key=lambda pair: pair[0])
        step /= 2
    return best, count


def _members(
    query_ids: Sequence[str], qrels: Qrels, kinds: Sequence[str] | None
) -> Float[np.ndarray, "k q"]:
    """Rows that take the mean over each kind of the judged queries; one row without kinds."""
    judged = [any(g > 0 for g in qrels.get(query, {}).values()) for query in query_ids]
    kinds = kinds or [""] * len(query_ids)
    names = [kind for kind, kept in zip(kinds, judged, strict=True) if kept]
    rows = np.array([[name == kind for name in names] for kind in dict.fromkeys(names)], float)
    return rows / rows.sum(axis=1, keepdims=True)


def score_weights(
    found: Sequence[Candidates],
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Qrels,
    weights: HeadWeights,
    *,
    kinds: Sequence[str] | None = None,
    depth: int = 10,
) -> float:
    """The mean nDCG@depth under given weights; of the kinds' means, as `tune_weights` has it."""
    heads = tuple(head for head in HEADS if head in found[0].scores) if found else ()
    problem = _problem(found, heads, query_ids, document_ids, qrels, depth)
    row = np.array([getattr(weights, head) for head in heads])
    return float((_members(query_ids, qrels, kinds) @ ndcgs(problem, row, depth)).mean())


def ndcgs(
    problem: _Problem, weights: Float[np.ndarray, " h"], depth: int
) -> Float[np.ndarray, " q"]:
    """Of each query: sum_r gain_r / log2(1 + r) over the ideal sum, trec_eval's form."""
    filled = np.isfinite(problem.scores[:, :, 0])
    total = np.where(filled, np.where(filled[:, :, None], problem.scores, 0) @ weights, -np.inf)
    order = np.argsort(-total, axis=1, kind="stable")[:, :depth]
    gains = np.take_along_axis(problem.gains, order, axis=1)
    return (gains / np.log2(2 + np.arange(order.shape[1]))).sum(axis=1) / problem.ideal


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
