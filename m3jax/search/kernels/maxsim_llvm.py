"""The innermost step of late interaction on CPUs, in vector instructions: four rows, four vectors.

Written for LLVM directly, for two things a compiler does not find in a loop: the rows that come
next are fetched from memory while these are multiplied, and 16-bit products are added up in pairs
by one instruction where the CPU has it (x86 from SSE2 on, best with AVX-512 VNNI).

Import this where Numba is known to be installed.
"""

# pyright: reportArgumentType=false
import inspect

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

WIDTH = 32  # vectors must have a multiple of it
LINE = 64  # bytes that memory sends at once
BYTE, SHORT, INT, FLOAT, HALF = (
    ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType(), ir.HalfType()
)  # fmt: skip
SIZES = {BYTE: 1, SHORT: 2, HALF: 2, INT: 4, FLOAT: 4}


def _register() -> int:
    """Bytes of the CPU's widest vectors."""
    features = llvmlite.binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


LANES = _register() // 4  # sums in a register


def meet(context, values, scales, query, best, row, last, vector):
    """best[vector + k] = max(best[vector + k], scales[r] <values[r], query[vector + k]>).

    For k = 0..3 and the rows r = row..row + 3, of those behind `last` `last` again. Rows are
    float32, float16 as their 16 bits, both with float32 queries, or int8 with int16 queries, whose
    sums must fit 32 bits.
    """
    if (values.dtype, query.dtype) not in (
        (types.float32, types.float32),
        (types.uint16, types.float32),
        (types.int8, types.int16),
    ):
        return None
    index = types.intp
    return types.void(values, scales, query, best, index, index, index), _generate


meet = intrinsic(inspect.unwrap(meet))


def _generate(context, builder, signature, arguments):
    kinds = {types.float32: FLOAT, types.uint16: HALF, types.int8: BYTE}
    stored = kinds[signature.args[0].dtype]
    values, scales, query, best = (
        context.make_array(kind)(context, builder, argument)
        for kind, argument in zip(signature.args[:4], arguments[:4], strict=True)
    )
    row, last, vector = arguments[4:]
    number = row.type
    width = builder.extract_value(query.shape, 1)
    places = []
    for k in range(4):
        place = builder.add(row, number(k))
        places.append(builder.select(builder.icmp_signed("<", place, last), place, last))
    floats = stored != BYTE
    asked = FLOAT if floats else SHORT
    rows = [_at(builder, values.data, stored, builder.mul(p, width)) for p in places]
    ahead = _at(builder, values.data, stored, builder.mul(builder.add(row, number(4)), width))
    vectors = [
        _at(builder, query.data, asked, builder.mul(builder.add(vector, number(k)), width))
        for k in range(4)
    ]
    sums = _products(builder, rows, ahead, vectors, stored, asked, width)
    sums = _totals(builder, sums, floats)
    if not floats:
        sums = builder.sitofp(sums, ir.VectorType(FLOAT, 16))
    _keep_best(builder, sums, scales, places, _at(builder, best.data, FLOAT, vector))
    return context.get_dummy_value()


def _products(builder, rows, ahead, vectors, stored, asked, width):
    """The loop over the width: 16 accumulators, those of the first row first."""
    floats = stored != BYTE
    step = LANES if floats else 2 * LANES
    sums = ir.VectorType(FLOAT if floats else INT, LANES)
    before = builder.block
    loop, behind = (builder.append_basic_block(name) for name in ("tile", "tile.end"))
    builder.branch(loop)
    builder.position_at_end(loop)
    j = builder.phi(width.type)
    j.add_incoming(width.type(0), before)
    totals = [builder.phi(sums) for _ in range(16)]
    for near in range(0, 4 * step * SIZES[stored], LINE):  # the next four rows, in the loop's time
        place = builder.gep(ahead, [builder.mul(j, width.type(4))])
        place = builder.gep(builder.bitcast(place, BYTE.as_pointer()), [width.type(near)])
        _prefetch(builder, place)
    left = [_wide(builder, _load(builder, place, j, stored, step), stored) for place in rows]
    right = [_load(builder, place, j, asked, step) for place in vectors]
    multiply = _multiply_add if floats else _multiply_pairs
    added = [
        multiply(builder, totals[4 * a + b], left[a], right[b]) for a in range(4) for b in range(4)
    ]
    for total, value in zip(totals, added, strict=True):
        total.add_incoming(ir.Constant(sums, None), before)
        total.add_incoming(value, loop)
    following = builder.add(j, width.type(step))
    j.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, width), loop, behind)
    builder.position_at_end(behind)
    return added


def _multiply_add(builder, total, left, right):
    # "contract" allows one fused instruction and no other order.
    return builder.fadd(builder.fmul(left, right, flags=("contract",)), total, flags=("contract",))


def _multiply_pairs(builder, total, left, right):
    """total + the products of 16-bit numbers, neighbours added: LLVM knows the pattern."""
    wide = ir.VectorType(INT, left.type.count)
    products = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
    even, odd = (
        _shuffle(builder, products, products, range(k, left.type.count, 2)) for k in (0, 1)
    )
    return builder.add(builder.add(even, odd), total)


def _totals(builder, sums, floats):
    """A vector of the 16 accumulators' totals, every one added up in the same order.

    Two vectors that hold n sums each become one with 2n: the halves of each piece are added.
    """
    add = builder.fadd if floats else builder.add
    piece = LANES
    while piece > 1:
        low, high = (
            [i for i in range(2 * LANES) if i % piece // (piece // 2) == k] for k in (0, 1)
        )
        sums = [
            add(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high))
            for a, b in zip(sums[::2], sums[1::2], strict=True)
        ]
        piece //= 2
    while len(sums) > 1:
        sums = [
            _shuffle(builder, a, b, range(2 * a.type.count))
            for a, b in zip(sums[::2], sums[1::2], strict=True)
        ]
    return sums[0]


def _keep_best(builder, sums, scales, places, best):
    """The highest of four rows and of what stood there before."""
    rows = ir.Constant(ir.VectorType(FLOAT, 4), None)
    stride = builder.extract_value(scales.strides, 0)  # bytes; 0 where all rows share a scale
    for k, place in enumerate(places):
        scale = _at(builder, scales.data, BYTE, builder.mul(place, stride))
        scale = builder.load(builder.bitcast(scale, FLOAT.as_pointer()), typ=FLOAT)
        rows = builder.insert_element(rows, scale, INT(k))
    sums = builder.fmul(sums, _shuffle(builder, rows, rows, [i // 4 for i in range(16)]))
    parts = [_shuffle(builder, sums, sums, range(4 * k, 4 * k + 4)) for k in range(4)]
    found = _load(builder, best, INT(0), FLOAT, 4)
    for part in parts:
        found = builder.select(builder.fcmp_ordered(">", part, found), part, found)
    builder.store(found, builder.bitcast(best, found.type.as_pointer()), align=SIZES[FLOAT])


def _wide(builder, vector, stored):
    """Rows as they are multiplied."""
    if stored == FLOAT:
        return vector
    if stored == HALF:
        return builder.fpext(vector, ir.VectorType(FLOAT, vector.type.count))
    return builder.sext(vector, ir.VectorType(SHORT, vector.type.count))


def _at(builder, data, kind, index):
    """The address of an element."""
    return builder.gep(builder.bitcast(data, kind.as_pointer()), [index])


def _load(builder, place, index, kind, count):
    vector = ir.VectorType(kind, count)
    place = builder.bitcast(builder.gep(place, [index]), vector.as_pointer())
    return builder.load(place, align=SIZES[kind], typ=vector)


def _shuffle(builder, left, right, places):
    places = list(places)
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(INT, len(places)), places))


def _prefetch(builder, place):
    """For reading, to be used again soon (3), data (1)."""
    kinds = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), INT, INT, INT])
    function = cgutils.get_or_insert_function(builder.module, kinds, "llvm.prefetch.p0")
    builder.call(function, [place, INT(0), INT(3), INT(1)])
