"""Fusion of several scores or rankings of the same documents.

The paper's protocol is the weighted sum of complete scores. `PRESETS` holds its weights for each
benchmark [M3 sec. 4 and app.]; a model may store tuned ones (`m3jax tune-weights --save`).
Reciprocal rank fusion and sums of normalised scores need no tuned weights. All is in float64.

n  candidates of one query
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from m3jax.config import HEADS, PAPER_FUSION, HeadWeights

RRF_K = 60  # [Cormack et al. 2009]

_SHORT = {"dense+sparse": HeadWeights(dense=1.0, sparse=0.3, colbert=0.0), "all": PAPER_FUSION}
_LONG = {
    "dense+sparse": HeadWeights(dense=0.2, sparse=0.8, colbert=0.0),
    "all": HeadWeights(dense=0.15, sparse=0.5, colbert=0.35),
}
# Benchmark -> method -> weights, from the ACL 2024 text.
PRESETS: Mapping[str, Mapping[str, HeadWeights]] = {
    "miracl": _SHORT,
    "mkqa": _SHORT,
    "mldr": _LONG,
    "narrativeqa": _LONG,
}


def preset(name: str, method: str) -> HeadWeights:
    """The paper's weights for a benchmark: `preset("mldr", "all")`."""
    if name not in PRESETS:
        raise ValueError(f"no weights named {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name].get(method, PAPER_FUSION)


def weighted_sum(
    scores: Mapping[str, Float[np.ndarray, " n"]], weights: HeadWeights
) -> Float[np.ndarray, " n"]:
    """s_rank = w1 s_dense + w2 s_lex + w3 s_mul over the heads in `scores` [M3 sec. 3.2]."""
    total = np.zeros(len(next(iter(scores.values()))), np.float64)
    for head in HEADS:
        if head in scores:
            total += getattr(weights, head) * scores[head].astype(np.float64)
    return total


def normalised(scores: Float[np.ndarray, " n"], how: str) -> Float[np.ndarray, " n"]:
    """`minmax`: (s - min) / (max - min); `zscore`: (s - mean) / deviation; 0 where all are equal.

    Over the complete scores of the candidates of one query.
    """
    scores = scores.astype(np.float64)
    if not len(scores) or scores.min() == scores.max():
        return np.zeros(len(scores), np.float64)
    if how == "minmax":
        return (scores - scores.min()) / (scores.max() - scores.min())
    if how == "zscore":
        return (scores - scores.mean()) / scores.std()
    raise ValueError(f"normalisation must be minmax or zscore, got {how!r}")


def reciprocal_ranks(
    rankings: Sequence[Int[np.ndarray, " _"]],
    weights: Sequence[float] | None = None,
    k: int = RRF_K,
) -> tuple[np.ndarray, np.ndarray]:
    """(documents ascending, their scores: the sum over rankings of w / (k + rank)).

    Ranks count from 1. A ranking adds nothing to a document that it does not contain.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    documents = union(rankings)
    total = np.zeros(len(documents), np.float64)
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        positions = np.searchsorted(documents, ranking)
        total[positions] += weight / (k + 1 + np.arange(len(ranking)))
    return documents, total


def union(rankings: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " n"]:
    """The distinct documents of all rankings, ascending."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *rankings]))
