"""Inner loops for CPUs, compiled by Numba. Import this where Numba is known to be installed.

The functions carry no annotations: they are compiled from their arguments' types, and release
the interpreter's lock. `fast` lets the compiler reorder sums, which makes them vector
instructions; the order is the same for every row, so equal rows get equal scores.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportRedeclaration=false
import inspect

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from m3jax.search.kernels.maxsim_llvm import meet

GROUP = 64  # sums compared at once before any is looked at
SPARE = 0.2  # of the cut so far: what the terms left out may add at most. Measured
fast = {"reassoc", "nsz", "contract"}


def compiled(**options):
    """numba.njit of a function as it was written, whatever has been wrapped around it since."""
    return lambda function: numba.njit(nogil=True, **options)(inspect.unwrap(function))


def _half(context, bits):
    """The float32 of a float16 given as its 16 bits: Numba has no float16 on CPUs, LLVM has."""

    def generate(context, builder, signature, arguments):
        half = builder.bitcast(arguments[0], ir.HalfType())
        return builder.fpext(half, ir.FloatType())

    return types.float32(types.uint16), generate


_half = intrinsic(inspect.unwrap(_half))


@compiled(inline="always")
def _same(number):
    return np.float32(number)


@compiled(inline="always")
def _from_half(bits):
    return _half(bits)


def _make_dots(read):
    @compiled(fastmath=fast)
    def dots(values, rows, query, out):
        """out[i] = <values[rows[i]], query> in float64."""
        for i in range(rows.size):
            row = values[rows[i]]
            total = 0.0
            for j in range(query.size):
                total += np.float64(read(row[j])) * query[j]
            out[i] = total

    return dots


def _make_maxsim(read):
    @compiled(fastmath=fast)
    def maxsim(values, scales, firsts, ends, query, count, out):
        """out[n] = mean over the first `count` query vectors of max over rows of <row, vector>.

        Four rows by four query vectors at a time; `query` has a multiple of four vectors, and its
        type, float32 or float64, is that of the sums.
        """
        zero = query.dtype.type(0)  # a product with 0 would be float64
        best = np.empty(query.shape[0], query.dtype)
        for n in range(firsts.size):
            last = ends[n] - 1
            best[:] = -np.inf
            for r in range(firsts[n], ends[n], 4):
                r1, r2, r3 = min(r + 1, last), min(r + 2, last), min(r + 3, last)
                s0, s1, s2, s3 = scales[r], scales[r1], scales[r2], scales[r3]
                for i in range(0, query.shape[0], 4):
                    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
                    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = zero
                    for j in range(query.shape[1]):
                        w, x = read(values[r, j]), read(values[r1, j])
                        y, z = read(values[r2, j]), read(values[r3, j])
                        p, q, s, t = query[i, j], query[i + 1, j], query[i + 2, j], query[i + 3, j]
                        a0, a1, a2, a3 = a0 + w * p, a1 + w * q, a2 + w * s, a3 + w * t
                        b0, b1, b2, b3 = b0 + x * p, b1 + x * q, b2 + x * s, b3 + x * t
                        c0, c1, c2, c3 = c0 + y * p, c1 + y * q, c2 + y * s, c3 + y * t
                        d0, d1, d2, d3 = d0 + z * p, d1 + z * q, d2 + z * s, d3 + z * t
                    best[i] = max(best[i], a0 * s0, b0 * s1, c0 * s2, d0 * s3)
                    best[i + 1] = max(best[i + 1], a1 * s0, b1 * s1, c1 * s2, d1 * s3)
                    best[i + 2] = max(best[i + 2], a2 * s0, b2 * s1, c2 * s2, d2 * s3)
                    best[i + 3] = max(best[i + 3], a3 * s0, b3 * s1, c3 * s2, d3 * s3)
            total = 0.0
            for i in range(count):
                total += best[i]
            out[n] = total / count

    return maxsim


@compiled()
def maxsim_tiles(values, scales, firsts, ends, query, factors, out):
    """out[n] = mean over i of factors[i] max over rows r of scales[r] <values[r], query[i]>.

    In float32, for the types that `tiles.meet` takes; `query` has a multiple of four vectors, of
    which the first `factors.size` count.
    """
    best = np.empty(query.shape[0], np.float32)
    for n in range(firsts.size):
        best[:] = -np.inf
        for row in range(firsts[n], ends[n], 4):
            for i in range(0, query.shape[0], 4):
                meet(values, scales, query, best, row, ends[n] - 1, i)
        total = 0.0
        for i in range(factors.size):
            total += best[i] * factors[i]
        out[n] = total / factors.size


# float32 and int8 are read as they are, float16 through the view of its bits.
dots, dots_half = _make_dots(_same), _make_dots(_from_half)
maxsim, maxsim_half = _make_maxsim(_same), _make_maxsim(_from_half)


@compiled()
def lexical_top(starts, ends, factors, bounds, documents, weights, begin, size, top_k, block):
    """The documents with the `top_k` highest sums of factor * weight over the terms, float64.

    Of the documents from `begin` up to `size`. `bounds` are the terms' highest products. Goes over
    the documents block by block, so that the sums stay in the cache. Terms that together cannot
    lift a document to the `top_k`-th score so far are left out [Turtle and Flood 1995, MaxScore];
    what the others leave possible is scored again in full. Every score returned is added up in the
    order of the terms.

    Returns (documents, scores) in document order: the best and some more.
    """
    found = np.empty(2 * top_k + block, np.int64)
    scores = np.empty(2 * top_k + block, np.float64)
    sums = np.zeros(block, np.float64)
    place, stop = starts.copy(), starts.copy()
    for t in range(starts.size):
        stop[t] = _first_at(documents, starts[t], ends[t], begin)
    order = np.argsort(bounds)
    below = np.cumsum(bounds[order]) * (1 + 1e-12)  # what the terms up to here can add
    needed = np.ones(starts.size, np.bool_)
    count, least, spare, left_out = 0, 0.0, 0.0, 0
    for first in range(begin, size, block):
        end = min(first + block, size)
        while left_out < order.size and below[left_out] <= SPARE * least:
            spare = below[left_out]
            needed[order[left_out]] = False
            left_out += 1
        touched = False
        for t in range(starts.size):
            place[t] = stop[t]
            stop[t] = _first_at(documents, place[t], ends[t], end)
            if needed[t]:
                touched |= place[t] < stop[t]
                for p in range(place[t], stop[t]):
                    sums[documents[p] - first] += factors[t] * weights[p]
        if not touched:
            continue
        count = _collect(
            sums, end - first, first, least, spare, left_out,
            place, stop, factors, documents, weights, found, scores, count,
        )  # fmt: skip
        sums[:] = 0
        if count >= 2 * top_k:
            least = np.partition(scores[:count], count - top_k)[count - top_k]
            count = _keep_best(found, scores, count, least, top_k)
    return found[:count].copy(), scores[:count].copy()


@compiled()
def _collect(
    sums, width, first, least, spare, left_out,
    place, stop, factors, documents, weights, found, scores, count,
):  # fmt: skip
    """Enters the documents of a block whose full sum exceeds `least`; returns the new count.

    An equal sum loses to those kept: they are earlier documents.
    """
    for group in range(0, width, GROUP):
        last = min(group + GROUP, width)
        if _count_above(sums, group, last, least - spare):
            for i in range(group, last):
                total = sums[i]
                if total > least - spare and total > 0:
                    if left_out:
                        total = _sum_at(place, stop, factors, documents, weights, first + i)
                    if total > least:
                        found[count], scores[count] = first + i, total
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
    """The place of the first posting at or behind `document`."""
    while low < high:
        middle = (low + high) // 2
        if documents[middle] < document:
            low = middle + 1
        else:
            high = middle
    return low


@compiled()
def _sum_at(place, stop, factors, documents, weights, document):
    total = 0.0
    for t in range(place.size):
        p = _first_at(documents, place[t], stop[t], document)
        if p < stop[t] and documents[p] == document:
            total += factors[t] * weights[p]
    return total


@compiled()
def _keep_best(found, scores, count, least, top_k):
    """Keeps the `top_k`, of those that tie with the last the earliest; returns their number."""
    room, kept = top_k, 0
    for i in range(count):
        room -= scores[i] > least
    for i in range(count):
        tie = scores[i] == least
        if scores[i] > least or (tie and room > 0):
            room -= tie
            found[kept], scores[kept] = found[i], scores[i]
            kept += 1
    return kept
