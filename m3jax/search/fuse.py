"""Several scores or rankings of the same documents made into one.

The paper's protocol is the weighted sum of complete scores; presets hold its weights for each
benchmark [M3 sec. 4 and app.], and a model may keep its own (`m3jax tune-weights --save`).
Reciprocal rank fusion and sums of normalised scores need no tuned weights. All computed in float64.

n  candidates of one query
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from m3jax.config import HEADS, PAPER_FUSION, HeadWeights

FUSIONS = ("weighted", "rrf", "minmax", "zscore")
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
    """w1 s_dense + w2 s_lex + w3 s_mul of the heads in `scores` [M3 sec. 3.2], as s_rank."""
    total = np.zeros(len(next(iter(scores.values()))), np.float64)
    for head in HEADS:
        if head in scores:
            total += getattr(weights, head) * scores[head].astype(np.float64)
    return total


def normalised(scores: Float[np.ndarray, " n"], how: str) -> Float[np.ndarray, " n"]:
    """`minmax`: (s - min) / (max - min); `zscore`: (s - mean) / deviation; 0 where all are equal.

    Over the candidates of one query, each of which has its score: nothing is missing.
    """
    scores = scores.astype(np.float64)
    if not len(scores) or scores.min() == scores.max():
        return np.zeros(len(scores), np.float64)
    if how == "minmax":
        return (scores - scores.min()) / (scores.max() - scores.min())
    if how == "zscore":
        return (scores - scores.mean()) / scores.std()
    raise ValueError(f"normalisation must be minmax or zscore, got {how!r}")


def check(fusion: str, weights: object, compat: str | None) -> None:
    """ValueError where an option would do nothing."""
    if fusion == "rrf" and weights is not None:
        raise ValueError("fusion rrf adds reciprocal ranks, without weights; leave weights out")
    if fusion != "weighted" and compat is not None:
        raise ValueError(f"compat {compat} is for the weighted fusion, not for {fusion}")


def reciprocal_ranks(
    rankings: Sequence[Int[np.ndarray, " _"]],
    weights: Sequence[float] | None = None,
    k: int = RRF_K,
) -> tuple[np.ndarray, np.ndarray]:
    """(documents ascending, sum over the rankings that hold a document of w / (k + rank)).

    Ranks count from 1; a document that a ranking lacks gets nothing from it.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    documents = union(rankings)
    total = np.zeros(len(documents), np.float64)
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        place = np.searchsorted(documents, ranking)
        total[place] += weight / (k + 1 + np.arange(len(ranking)))
    return documents, total


def union(rankings: Sequence[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " n"]:
    """The documents of all rankings, ascending, each once."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *rankings]))
