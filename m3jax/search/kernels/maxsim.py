"""Inner products and late interaction on CPUs, compiled by Numba; needs the extra `search`.

`FAST` lets the compiler reorder sums, which makes them vector instructions. The order is the same
for every row, so equal rows get equal scores.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportRedeclaration=false
import inspect

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from m3jax.search.kernels.jit import compiled
from m3jax.search.kernels.maxsim_llvm import maxsim_tile

FAST = {"reassoc", "nsz", "contract"}


def _half(context, bits):
    """The float32 of a float16 given as its 16 bits; Numba has no float16 on CPUs, LLVM has."""

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
    @compiled(fastmath=FAST)
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
    @compiled(fastmath=FAST)
    def maxsim(values, scales, starts, stops, query, count, out):
        """out[n] = mean over the first `count` query vectors of max over rows of <row, vector>.

        Four rows by four query vectors at a time. `query` has a multiple of four vectors; its
        dtype, float32 or float64, is that of the sums.
        """
        zero = query.dtype.type(0)  # a product with 0 would be float64
        best = np.empty(query.shape[0], query.dtype)
        for n in range(starts.size):
            last = stops[n] - 1
            best[:] = -np.inf
            for r in range(starts[n], stops[n], 4):
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
def maxsim_tiles(values, scales, starts, stops, query, factors, out):
    """out[n] = mean over i of factors[i] max over rows r of scales[r] <values[r], query[i]>.

    In float32, for the dtypes that `maxsim_tile` takes. `query` has a multiple of four vectors; the
    mean is over the first `factors.size`.
    """
    best = np.empty(query.shape[0], np.float32)
    for n in range(starts.size):
        best[:] = -np.inf
        for row in range(starts[n], stops[n], 4):
            for i in range(0, query.shape[0], 4):
                maxsim_tile(values, scales, query, best, (row, stops[n] - 1), i)
        total = 0.0
        for i in range(factors.size):
            total += best[i] * factors[i]
        out[n] = total / factors.size


# For float32 and int8 values, and for float16 values viewed as uint16.
dots, dots_half = _make_dots(_same), _make_dots(_from_half)
maxsim, maxsim_half = _make_maxsim(_same), _make_maxsim(_from_half)
