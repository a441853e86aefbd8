"""One sample times a matrix in slices of 16 rows, x looked up in registers: no gathers at any sparsity.

    y[i] = sum_p val[p] x[idx[p]],   p in row i                                             (1)

Lane k works on row k of a slice, or, with Q > 1, on one of its rows k, 16 + k, ... . A step multiplies at
most one entry per lane, all from a window of two registers, each of 16 columns from any on. S steps share a
window, for loading one, each half from two lines of the cache, costs as much as multiplying a step; the two
columns where it begins are stored with them. `kernels/slicing.py` places the entries. A slot's index byte:

    bits 0-3  column - begin of the register     bit 5 + q  the entry belongs to row 16 q + k of the slice
    bit 4     which register

None of bits 5-7 set: the slot is empty, its value 0. Four steps are taken together; a lane has their four
bytes in one word, which the lookup takes as it is, shifted, since it minds the lowest five bits only.

What is absent adds nothing even to an infinite x: where x is finite, the 0 of an empty slot says so by
itself, and what is in none of the rows q > 0 may as well be added to row 0; otherwise each row takes its
own slots only.

The storage is that of M. Kreutzer et al., A unified sparse matrix data format for efficient general sparse
matrix-vector multiplication on modern processors with wide SIMD units, SIAM J. Sci. Comput. 36(5), 2014,
arXiv:1307.6209 (SELL-C-sigma with C = 16 and, where rows are unevenly full, sigma = all of them); windows and
register lookups are ours.
"""

from functools import reduce
from itertools import product

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import I64, INDEX, LANES, MASK, WIDE, Lanes, at_least, evenly, fast, parts

WINDOW = 2 * LANES
MOST = 3  # rows a lane can serve: bits 5, 6, 7
STEPS = 4  # taken together, the bytes of one word; slices are padded to a multiple
SHARES = (1, 2, 4)  # steps that may share a window


def _one_slice(code, q_rows, share, finite):
    """Emit the loop over the steps begin <= t < end of a slice, a multiple of STEPS, for its outputs."""
    builder = code.builder
    _, _, _, begin, end, _, _, y0 = code.arguments[:8]
    window, idx, val, x = (code.array(k) for k in (0, 1, 2, 5))
    y = code.array(6, y0)

    def have(index, bits, relation):
        there = builder.and_(index, ir.Constant(INDEX, [bits] * LANES))
        return code.settled(builder.icmp_unsigned(relation, there, ir.Constant(INDEX, [0] * LANES)))

    def owners(index):
        others = [have(index, WINDOW << q, "!=") for q in range(1, q_rows)]
        if not finite:
            return [have(index, WINDOW, "!="), *others]
        # what belongs to none of the other rows is row 0's
        everywhere = ir.Constant(MASK, [True] * LANES)
        if not others:
            return [everywhere]
        return [code.settled(builder.xor(reduce(builder.or_, others), everywhere)), *others]

    def steps(t, acc):
        slots = builder.mul(t, I64(LANES))
        index = code.load(code.step(idx, slots), 0, INDEX)
        pairs = builder.mul(builder.udiv(t, I64(share)), I64(2))
        columns = code.integers(window, pairs, 2 * STEPS // share)
        for u in range(STEPS):
            if u % share == 0:
                low, high = (code.load(code.step(x, columns[2 * (u // share) + r])) for r in range(2))
            inputs = code.lookup(low, index, high)
            weights = code.load(val, builder.add(slots, I64(u * LANES)))
            for q, mine in enumerate(owners(index)):
                k = q * STEPS + u
                acc[k] = code.fma_where(mine, weights, inputs, acc[k])
            index = builder.lshr(index, ir.Constant(INDEX, [8] * LANES))
        return acc

    acc = code.loop(begin, end, STEPS, [code.zero] * (q_rows * STEPS), steps)
    for q in range(q_rows):
        code.store(code.total(acc[q * STEPS : (q + 1) * STEPS]), y, q * LANES)


@intrinsic
def _slice(typingctx, window, idx, val, begin, end, x, y, y0, rows, share, finite):
    """The outputs of a slice from y[y0] on; of all loops the one for so many rows per lane, and so on."""
    i = types.intp
    signature = types.void(window, idx, val, i, i, x, y, i, i, i, types.boolean)

    def codegen(context, builder, sig, args):
        code = Lanes(context, builder, sig, args)
        for variant in product(range(1, MOST + 1), SHARES, (False, True)):
            is_it = [builder.icmp_signed("==", a, a.type(v)) for a, v in zip(args[8:], variant, strict=True)]
            with builder.if_then(reduce(builder.and_, is_it)):
                _one_slice(code, *variant)
        return code.nothing()

    return signature, codegen


@kernel
def _finite(x):
    """Whether no element is infinite or NaN."""
    wrong = False
    for i in range(x.size):
        wrong |= x[i] - x[i] != 0
    return not wrong


@kernel
def _matvec_part(starts, window, idx, val, order, rows, share, x, y, first, last):
    inputs, own = at_least(x, LANES), np.empty(rows * LANES, np.float32)
    finite = _finite(inputs)
    for g in range(first, last):
        y0 = g * rows * LANES
        there = order.size == 0 and y0 + own.size <= y.size  # else by way of `own`
        out, at = (y, y0) if there else (own, 0)
        _slice(window, idx, val, starts[g], starts[g + 1], inputs, out, at, rows, share, finite)
        if not there:
            for i in range(min(own.size, y.size - y0)):
                y[order[y0 + i] if order.size else y0 + i] = own[i]


@kernel(parallel=True)
def _matvec(starts, window, idx, val, order, rows, share, x, y, threads):
    bounds = evenly(starts, threads)
    for part in prange(threads):
        first, last = bounds[part], bounds[part + 1]
        _matvec_part(starts, window, idx, val, order, rows, share, x, y, first, last)


@kernel
def place(step, lane):
    """Where the index byte of a slot lies: words of four steps, lane after lane."""
    return step // STEPS * (STEPS * LANES) + lane * STEPS + step % STEPS


@kernel
def matvec_plain(starts, window, idx, val, order, rows, share, x, y):
    """(1) for any dtype, one slot at a time."""
    y[:] = 0
    for g in range(starts.size - 1):
        for t in range(starts[g], starts[g + 1]):
            for k in range(LANES):
                code = idx[place(t, k)]
                for q in range(rows):
                    if code & (WINDOW << q):
                        column = np.int64(window[t // share, code // LANES % 2]) + code % LANES
                        row = (g * rows + q) * LANES + k
                        y[order[row] if order.size else row] += val[t * LANES + k] * x[column]


def matvec(starts, window, idx, val, order, rows, share, x, y):
    """Fill y (out) with W x: equation (1); `rows` is Q, `share` is S, one of SHARES.

    starts (slices + 1) steps, window (steps / S, 2) columns, idx uint8 and val (16 steps), x (in); order: the
    rows as slices take them, or nothing if in their own order.
    """
    if not (WIDE and fast(val, x, y)):
        matvec_plain(starts, window, idx, val, order, rows, share, x, y)
        return
    threads = parts(val.size)
    if threads > 1:
        _matvec(starts, window, idx, val, order, rows, share, x, y, threads)
    else:
        _matvec_part(starts, window, idx, val, order, rows, share, x, y, 0, starts.size - 1)
