"""The innermost step of late interaction on CPUs: a tile of four rows by four query vectors.

Written for LLVM directly, for two things that a compiler does not do in a loop: the next rows are
prefetched while these are multiplied, and 16-bit products are added in pairs by one instruction
where the CPU has it (x86 from SSE2, best with AVX-512 VNNI). Needs the extra `search`.
"""

# pyright: reportArgumentType=false
import inspect

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

WIDTH = 32  # the width of vectors must be a multiple of it
LINE = 64  # bytes of a cache line
BYTE, SHORT, INT = ir.IntType(8), ir.IntType(16), ir.IntType(32)
FLOAT, HALF = ir.FloatType(), ir.HalfType()
SIZES = {BYTE: 1, SHORT: 2, HALF: 2, INT: 4, FLOAT: 4}


def _register() -> int:
    """Bytes of the CPU's widest vector register."""
    features = llvmlite.binding.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") else 16


LANES = _register() // 4  # 32-bit sums in a register


def maxsim_tile(context, values, scales, query, best, rows, vector):
    """best[vector + k] = max(best[vector + k], scales[r] <values[r], query[vector + k]>).

    For k = 0..3 and, with rows = (row, last), for r = row..row + 3; beyond `last`, `last` again.
    Values are float32 or uint16 (the bits of float16) with float32 queries, or int8 with int16
    queries, whose sums must fit 32 bits.
    """
    if (values.dtype, query.dtype) not in (
        (types.float32, types.float32),
        (types.uint16, types.float32),
        (types.int8, types.int16),
    ):
        return None
    pair = types.UniTuple(types.intp, 2)
    return types.void(values, scales, query, best, pair, types.intp), _generate


maxsim_tile = intrinsic(inspect.unwrap(maxsim_tile))


def _generate(context, builder, signature, arguments):
    llvm_types = {types.float32: FLOAT, types.uint16: HALF, types.int8: BYTE}
    stored = llvm_types[signature.args[0].dtype]
    values, scales, query, best = (
        context.make_array(array)(context, builder, argument)
        for array, argument in zip(signature.args[:4], arguments[:4], strict=True)
    )
    pair, vector = arguments[4:]
    row, last = builder.extract_value(pair, 0), builder.extract_value(pair, 1)
    number = row.type
    width = builder.extract_value(query.shape, 1)
    indices = []
    for k in range(4):
        index = builder.add(row, number(k))
        indices.append(builder.select(builder.icmp_signed("<", index, last), index, last))
    floats = stored != BYTE
    query_type = FLOAT if floats else SHORT
    rows = [_at(builder, values.data, stored, builder.mul(i, width)) for i in indices]
    ahead = _at(builder, values.data, stored, builder.mul(builder.add(row, number(4)), width))
    vectors = [
        _at(builder, query.data, query_type, builder.mul(builder.add(vector, number(k)), width))
        for k in range(4)
    ]
    sums = _products(builder, rows, ahead, vectors, stored, width)
    sums = _totals(builder, sums, floats)
    if not floats:
        sums = builder.sitofp(sums, ir.VectorType(FLOAT, 16))
    _keep_best(builder, sums, scales, indices, _at(builder, best.data, FLOAT, vector))
    return context.get_dummy_value()


def _products(builder, rows, ahead, vectors, stored, width):
    """The loop over the width: 16 accumulators, those of the first row first."""
    floats = stored != BYTE
    query_type = FLOAT if floats else SHORT
    step = LANES if floats else 2 * LANES
    sums = ir.VectorType(FLOAT if floats else INT, LANES)
    before = builder.block
    loop, after = (builder.append_basic_block(name) for name in ("tile", "tile.end"))
    builder.branch(loop)
    builder.position_at_end(loop)
    j = builder.phi(width.type)
    j.add_incoming(width.type(0), before)
    totals = [builder.phi(sums) for _ in range(16)]
    for offset in range(0, 4 * step * SIZES[stored], LINE):  # one step prefetches as much
        address = builder.gep(ahead, [builder.mul(j, width.type(4))])
        address = builder.gep(builder.bitcast(address, BYTE.as_pointer()), [width.type(offset)])
        _prefetch(builder, address)
    left = [_wide(builder, _load(builder, address, j, stored, step), stored) for address in rows]
    right = [_load(builder, address, j, query_type, step) for address in vectors]
    multiply = _multiply_add if floats else _multiply_pairs
    added = [
        multiply(builder, totals[4 * a + b], left[a], right[b]) for a in range(4) for b in range(4)
    ]
    for total, value in zip(totals, added, strict=True):
        total.add_incoming(ir.Constant(sums, None), before)
        total.add_incoming(value, loop)
    following = builder.add(j, width.type(step))
    j.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, width), loop, after)
    builder.position_at_end(after)
    return added


def _multiply_add(builder, total, left, right):
    # "contract" allows one fused instruction and no other order.
    return builder.fadd(builder.fmul(left, right, flags=("contract",)), total, flags=("contract",))


def _multiply_pairs(builder, total, left, right):
    """total + products of 16-bit numbers, neighbours added; LLVM recognises the pattern."""
    wide = ir.VectorType(INT, left.type.count)
    products = builder.mul(builder.sext(left, wide), builder.sext(right, wide))
    even, odd = (
        _shuffle(builder, products, products, range(k, left.type.count, 2)) for k in (0, 1)
    )
    return builder.add(builder.add(even, odd), total)


def _totals(builder, sums, floats):
    """A vector of the 16 accumulators' totals, each added up in the same order.

    Two vectors of n partial sums become one of 2n: the halves of each partial sum are added.
    """
    add = builder.fadd if floats else builder.add
    lanes = LANES  # of one partial sum
    while lanes > 1:
        low, high = (
            [i for i in range(2 * LANES) if i % lanes // (lanes // 2) == k] for k in (0, 1)
        )
        sums = [
            add(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high))
            for a, b in zip(sums[::2], sums[1::2], strict=True)
        ]
        lanes //= 2
    while len(sums) > 1:
        sums = [
            _shuffle(builder, a, b, range(2 * a.type.count))
            for a, b in zip(sums[::2], sums[1::2], strict=True)
        ]
    return sums[0]


def _keep_best(builder, sums, scales, indices, best):
    """best = max(best, the scaled sums of four rows), for four query vectors."""
    factors = ir.Constant(ir.VectorType(FLOAT, 4), None)
    stride = builder.extract_value(scales.strides, 0)  # bytes; 0 where all rows share a scale
    for k, index in enumerate(indices):
        scale = _at(builder, scales.data, BYTE, builder.mul(index, stride))
        scale = builder.load(builder.bitcast(scale, FLOAT.as_pointer()), typ=FLOAT)
        factors = builder.insert_element(factors, scale, INT(k))
    sums = builder.fmul(sums, _shuffle(builder, factors, factors, [i // 4 for i in range(16)]))
    rows = [_shuffle(builder, sums, sums, range(4 * k, 4 * k + 4)) for k in range(4)]
    highest = _load(builder, best, INT(0), FLOAT, 4)
    for row in rows:
        highest = builder.select(builder.fcmp_ordered(">", row, highest), row, highest)
    builder.store(highest, builder.bitcast(best, highest.type.as_pointer()), align=SIZES[FLOAT])


def _wide(builder, vector, stored):
    """Stored values, converted to the type of the products."""
    if stored == FLOAT:
        return vector
    if stored == HALF:
        return builder.fpext(vector, ir.VectorType(FLOAT, vector.type.count))
    return builder.sext(vector, ir.VectorType(SHORT, vector.type.count))


def _at(builder, data, element, index):
    """The address of an element."""
    return builder.gep(builder.bitcast(data, element.as_pointer()), [index])


def _load(builder, address, index, element, count):
    vector = ir.VectorType(element, count)
    address = builder.bitcast(builder.gep(address, [index]), vector.as_pointer())
    return builder.load(address, align=SIZES[element], typ=vector)


def _shuffle(builder, left, right, lanes):
    lanes = list(lanes)
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(INT, len(lanes)), lanes))


def _prefetch(builder, address):
    """For reading, with high temporal locality (3), into the data cache (1)."""
    signature = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), INT, INT, INT])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    builder.call(function, [address, INT(0), INT(3), INT(1)])
