"""Ranked documents, and when two scores computed in float32 are too close to be told apart.

Everything that searches here ranks by the float64 score of the stored numbers, best first, equal
scores in document order. Fast passes run in float32 and are settled in float64 where their
rounding could matter.

k  hits of a query    n  candidates
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

UNIT = 2.0**-24  # of float32


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
    """The best `top_k`, ties in document order: sorted by (-score, document)."""
    order = np.lexsort((documents, -scores))[:top_k]
    return documents[order].astype(np.int64), scores[order]


def rounding(width: int) -> float:
    """How far a float32 inner product of two unit vectors may lie from the exact one.

    min(d, 8 sqrt(d)) u: the first always holds; for the second, with rounding errors that do not
    conspire, the chance of an exception is below 1e-13 [Higham and Mary 2019, thm. 2.4].
    """
    return min(width + 2, 8 * math.sqrt(width)) * UNIT


def settle(
    documents: Int[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    bound: float,
    exact: Callable[[np.ndarray], np.ndarray],
    top_k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """`ranked` by exact scores, from scores that are each off by at most `bound`.

    `exact` gives the float64 scores of some positions; it is asked only for those whose
    neighbours in the ranking are closer than two bounds, and that can reach the first `top_k`.
    """
    scores = scores.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    close = np.diff(scores[order]) >= -2 * bound
    unsure = np.zeros(len(order), bool)
    unsure[:-1] |= close
    unsure[1:] |= close
    if 0 < top_k < len(order):
        unsure &= scores[order] >= scores[order[top_k - 1]] - 2 * bound
    again = order[unsure]
    if len(again):
        scores[again] = exact(again)
    return ranked(documents, scores, top_k)
