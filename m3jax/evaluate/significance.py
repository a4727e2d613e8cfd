"""Confidence intervals of means and paired tests between methods, over queries.

n  queries    b  resampled means
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

RESAMPLES = 2000
PERMUTATIONS = 10_000
_BLOCK_VALUES = 1 << 22  # resampled values in memory at a time


class Comparison(NamedTuple):
    """A paired comparison of two methods; `difference` is mean(a) - mean(b)."""

    a: str
    b: str
    difference: float
    randomization_p: float  # Fisher's, two-sided
    t_p: float  # of the paired t-test
    holm_p: float  # randomization_p, corrected for the number of pairs


def bootstrap_means(
    values: Float[np.ndarray, " n"], *, samples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, " b"]:
    """Means of `samples` draws of n queries with replacement; zeros without queries."""
    if not len(values):
        return np.zeros(samples)
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            values[rng.integers(0, len(values), (rows, len(values)))].mean(axis=1)
            for rows in _blocks(samples, len(values))
        ]
    )


def interval(means: Float[np.ndarray, " b"], level: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of resampled means."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def randomization_p(
    difference: Float[np.ndarray, " n"], *, samples: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Fisher's randomisation test of mean(difference) = 0, two-sided.

    p = (1 + #{|sum_i s_i d_i| >= |sum_i d_i|}) / (1 + samples), each s_i a fair sign.
    """
    d = difference[difference != 0].astype(np.float64)  # zero differences contribute nothing
    if not len(d):
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(d.sum())
    scale = 1e-9 * np.abs(d).sum()  # sums of the same terms in another order count as equal
    extreme = 0
    for rows in _blocks(samples, len(d)):
        positive = rng.integers(0, 2, (rows, len(d)), dtype=np.int8)
        # sum_i s_i d_i = 2 * (sum over the positive ones) - (sum of all)
        extreme += int((np.abs(2 * (positive @ d) - d.sum()) >= observed - scale).sum())
    return (1 + extreme) / (1 + samples)


def compare(
    methods: Mapping[str, Float[np.ndarray, " n"]], *, seed: int = 0, samples: int = PERMUTATIONS
) -> list[Comparison]:
    """Compares every pair of methods; their values are in the same order of queries."""
    rows: list[Any] = []
    for a, b in combinations(methods, 2):
        difference = methods[a].astype(np.float64) - methods[b].astype(np.float64)
        p = randomization_p(difference, samples=samples, seed=seed)
        rows.append(
            (a, b, float(difference.mean()) if len(difference) else 0.0, p, _t_p(difference))
        )
    corrected = holm([row[3] for row in rows])
    return [Comparison(*row, holm_p=p) for row, p in zip(rows, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the i-th smallest of m is multiplied by m - i, monotonically."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected.tolist()


def _t_p(difference: Float[np.ndarray, " n"]) -> float:
    if len(difference) < 2 or np.ptp(difference) < 1e-12:  # no variance: t is not defined
        return 1.0 if not difference.any() else float("nan")
    result: Any = scipy.stats.ttest_1samp(difference, 0.0)
    return float(result.pvalue)


def _blocks(rows: int, columns: int) -> list[int]:
    """Numbers of rows, adding up to `rows`, of blocks of bounded size."""
    size = max(1, _BLOCK_VALUES // columns)
    return [min(size, rows - start) for start in range(0, rows, size)]
