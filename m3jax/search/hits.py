"""Ranked documents, and rankings that do not depend on float32 rounding.

Every ranking is by the float64 score of the stored numbers, best first, equal scores in document
order. Fast passes compute float32 scores; `rescore_close` computes those again in float64 that are
too close for their rounding error.

k  hits of a query    n  candidates
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

UNIT_ROUNDOFF = 2.0**-24  # of float32


class Hits(NamedTuple):
    """For each query the numbers of its documents, best first, and their scores."""

    documents: list[np.ndarray]  # int64
    scores: list[np.ndarray]  # float32 from `methods.search`, float64 inside the package

    def cut(self, top_k: int) -> "Hits":
        """The first `top_k` of each query."""
        return Hits([d[:top_k] for d in self.documents], [s[:top_k] for s in self.scores])


def ranked(
    documents: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"], top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best `top_k` documents and their scores, sorted by (-score, document)."""
    order = np.lexsort((documents, -scores))[:top_k]
    return documents[order].astype(np.int64), scores[order]


def rounding_bound(width: int) -> float:
    """The largest error of a float32 inner product of two unit vectors of this width.

    min(d, 8 sqrt(d)) u: the first always holds. The second holds with probability above
    1 - 1e-13 for independent rounding errors [Higham and Mary 2019, thm. 2.4].
    """
    return min(width + 2, 8 * math.sqrt(width)) * UNIT_ROUNDOFF


def rescore_close(
    documents: Int[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    bound: float,
    exact: Callable[[np.ndarray], np.ndarray],
    top_k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """`ranked` by exact scores, from scores that are each off by at most `bound`.

    `exact` maps positions in `documents` to float64 scores. Only candidates within 2 `bound` of a
    neighbour in the ranking that can reach the first `top_k` are rescored.
    """
    scores = scores.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    close = np.diff(scores[order]) >= -2 * bound
    uncertain = np.zeros(len(order), bool)
    uncertain[:-1] |= close
    uncertain[1:] |= close
    if 0 < top_k < len(order):
        uncertain &= scores[order] >= scores[order[top_k - 1]] - 2 * bound
    positions = order[uncertain]
    if len(positions):
        scores[positions] = exact(positions)
    return ranked(documents, scores, top_k)
