"""Lexical search over postings on CPUs, compiled by Numba; needs the extra `search`."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
from typing import NamedTuple

import numpy as np

from m3jax.search.kernels.jit import compiled

GROUP = 64  # documents tested per vectorised comparison
SPARE = 0.2  # terms are skipped while their summed upper bounds are below SPARE * threshold (tuned)


class Terms(NamedTuple):
    """The query's terms, one entry each: their postings are `starts` .. `stops`."""

    starts: np.ndarray
    stops: np.ndarray
    factors: np.ndarray  # float64; score of a posting = factor * weight
    bounds: np.ndarray  # the highest score of each term


class Postings(NamedTuple):
    """Documents, ascending within a term, and their weights."""

    documents: np.ndarray
    weights: np.ndarray


class _Cut(NamedTuple):
    """A block's sums lack `skipped` terms, which can add at most `spare`; kept documents must score
    more than `threshold`."""

    threshold: float
    spare: float
    skipped: int


class _Kept(NamedTuple):
    """The best documents so far."""

    documents: np.ndarray
    scores: np.ndarray


@compiled()
def lexical_top(terms, postings, begin, end, top_k, block):
    """The documents in [begin, end) with the `top_k` highest sums of factor * weight, in float64.

    Goes over the documents block by block, so that the sums stay in the cache. Terms that together
    cannot lift a document to the `top_k`-th score so far are skipped [Turtle and Flood 1995,
    MaxScore]; documents that could still reach it are scored again with all terms. Every score
    returned is added up in the order of the terms.

    Returns (documents, scores) in document order: the best `top_k` and some more.
    """
    size = 2 * top_k + block
    kept = _Kept(np.empty(size, np.int64), np.empty(size, np.float64))
    sums = np.zeros(block, np.float64)
    starts, stops = terms.starts.copy(), terms.starts.copy()  # of the block's postings
    for t in range(starts.size):
        stops[t] = _first_at(postings.documents, starts[t], terms.stops[t], begin)
    order = np.argsort(terms.bounds)
    summed = np.cumsum(terms.bounds[order]) * (1 + 1e-12)  # bound of the terms up to this one
    needed = np.ones(starts.size, np.bool_)
    count, threshold, spare, skipped = 0, 0.0, 0.0, 0
    for first in range(begin, end, block):
        last = min(first + block, end)
        while skipped < order.size and summed[skipped] <= SPARE * threshold:
            spare = summed[skipped]
            needed[order[skipped]] = False
            skipped += 1
        touched = False
        for t in range(starts.size):
            starts[t] = stops[t]
            stops[t] = _first_at(postings.documents, starts[t], terms.stops[t], last)
            if needed[t]:
                touched |= starts[t] < stops[t]
                for p in range(starts[t], stops[t]):
                    sums[postings.documents[p] - first] += terms.factors[t] * postings.weights[p]
        if not touched:
            continue
        here = Terms(starts, stops, terms.factors, terms.bounds)
        cut = _Cut(threshold, spare, skipped)
        count = _collect(sums[: last - first], first, cut, here, postings, kept, count)
        sums[:] = 0
        if count >= 2 * top_k:
            threshold = np.partition(kept.scores[:count], count - top_k)[count - top_k]
            count = _keep_best(kept, count, threshold, top_k)
    return kept.documents[:count].copy(), kept.scores[:count].copy()


@compiled()
def _collect(sums, first, cut, terms, postings, kept, count):
    """Adds the documents of a block whose full sum exceeds the threshold; returns the new count.

    A sum equal to the threshold is not added: it loses to those kept, which are earlier documents.
    """
    lowest = cut.threshold - cut.spare
    for group in range(0, sums.size, GROUP):
        last = min(group + GROUP, sums.size)
        if _count_above(sums, group, last, lowest):
            for i in range(group, last):
                total = sums[i]
                if total > lowest and total > 0:
                    if cut.skipped:
                        total = _sum_at(terms, postings, first + i)
                    if total > cut.threshold:
                        kept.documents[count], kept.scores[count] = first + i, total
                        count += 1
    return count


@compiled(inline="always")
def _count_above(sums, start, end, cut):
    count = 0
    for i in range(start, end):
        count += sums[i] > cut
    return count


@compiled(inline="always")
def _first_at(documents, low, high, document):
    """The index of the first posting of `document` or a later one."""
    while low < high:
        middle = (low + high) // 2
        if documents[middle] < document:
            low = middle + 1
        else:
            high = middle
    return low


@compiled()
def _sum_at(terms, postings, document):
    """The score of one document by all terms."""
    total = 0.0
    for t in range(terms.starts.size):
        p = _first_at(postings.documents, terms.starts[t], terms.stops[t], document)
        if p < terms.stops[t] and postings.documents[p] == document:
            total += terms.factors[t] * postings.weights[p]
    return total


@compiled()
def _keep_best(kept, count, threshold, top_k):
    """Keeps the best `top_k`, the earliest of equal ones. Returns their number."""
    ties, size = top_k, 0
    for i in range(count):
        ties -= kept.scores[i] > threshold
    for i in range(count):
        is_tie = kept.scores[i] == threshold
        if kept.scores[i] > threshold or (is_tie and ties > 0):
            ties -= is_tie
            kept.documents[size], kept.scores[size] = kept.documents[i], kept.scores[i]
            size += 1
    return size
