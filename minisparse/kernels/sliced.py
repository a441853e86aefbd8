"""One sample times a matrix in slices of 16 rows, x looked up in registers: no gathers at any sparsity.

    y[i] = sum_p val[p] x[idx[p]],   p in row i                                             (1)

Lane k works on row k of a slice, or, with Q > 1, on one of its rows k, 16 + k, ... . A step multiplies at
most one entry per lane, all from a window of 32 columns that two registers hold; the column where the window
begins is stored with the step. A lane takes its entries in column order, so one that is ahead idles and one
that is behind catches up while the window slides. A slot's index byte:

    bits 0-4  column - begin of the window       bit 5 + q  the entry belongs to row 16 q + k of the slice

None of bits 5-7 set: the slot is empty, its value 0. Four steps are taken together; a lane has their four
bytes in one word, which the lookup takes as it is, shifted, since it minds the lowest five bits only.

What is absent adds nothing even to an infinite x: where x is finite, the 0 of an empty slot says so by
itself, and what is in none of the rows q > 0 may as well be added to row 0; otherwise each row takes its
own slots only.

The storage is that of M. Kreutzer et al., A unified sparse matrix data format for efficient general sparse
matrix-vector multiplication on modern processors with wide SIMD units, SIAM J. Sci. Comput. 36(5), 2014,
arXiv:1307.6209 (SELL-C-sigma with C = 16); windows and register lookups are ours.
"""

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import I64, INDEX, LANES, MASK, WIDE, Lanes, fast, padded, parts

WINDOW = 2 * LANES
MOST = 3  # rows a lane can serve: bits 5, 6, 7
STEPS = 4  # taken together, the bytes of one word; slices are padded to a multiple


def _slice(q_rows, finite):
    """Intrinsic: the 16 q_rows outputs of a slice from steps begin <= t < end, a multiple of STEPS."""

    @intrinsic
    def one_slice(typingctx, window, idx, val, begin, end, x, y, y0):
        i = types.intp
        signature = types.void(window, idx, val, i, i, x, y, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            begin, end, y0 = args[3], args[4], args[7]
            window, idx, val = code.array(0), code.array(1), code.array(2)
            x, y = code.array(5), code.array(6, y0)

            def have(index, bits):
                there = builder.and_(index, ir.Constant(INDEX, [bits] * LANES))
                return builder.icmp_unsigned("!=", there, ir.Constant(INDEX, [0] * LANES))

            def owners(index):
                masks = [have(index, WINDOW << q) for q in range(q_rows)]
                if finite:
                    masks[0] = ir.Constant(MASK, [True] * LANES)
                    for mask in masks[1:]:
                        masks[0] = builder.and_(masks[0], builder.not_(mask))
                return masks

            def steps(t, acc):
                slots = builder.mul(t, I64(LANES))
                index = code.load(code.step(idx, slots), 0, INDEX)
                for u, column in enumerate(code.integers(window, t, STEPS)):
                    here = code.step(x, column)
                    inputs = code.lookup(code.load(here), index, code.load(here, LANES))
                    weights = code.load(val, builder.add(slots, I64(u * LANES)))
                    for q, mine in enumerate(owners(index)):
                        k = q * STEPS + u
                        acc[k] = code.fma_where(mine, weights, inputs, acc[k])
                    index = builder.lshr(index, ir.Constant(INDEX, [8] * LANES))
                return acc

            acc = code.loop(begin, end, STEPS, [code.zero] * (q_rows * STEPS), steps)
            for q in range(q_rows):
                code.store(code.total(acc[q * STEPS : (q + 1) * STEPS]), y, q * LANES)
            return code.nothing()

        return signature, codegen

    return one_slice


_any1, _any2, _any3 = (_slice(q, False) for q in (1, 2, 3))
_finite1, _finite2, _finite3 = (_slice(q, True) for q in (1, 2, 3))


@kernel
def _finite(x):
    """Whether no element is infinite or NaN."""
    wrong = False
    for i in range(x.size):
        wrong |= x[i] - x[i] != 0
    return not wrong


@kernel
def _matvec_part(starts, window, idx, val, rows, x, y, first, last):
    inputs = padded(x, x.size + WINDOW)
    finite = _finite(inputs)
    for g in range(first, last):
        steps = (window, idx, val, starts[g], starts[g + 1], inputs, y, g * rows * LANES)
        if rows == 1:
            if finite:
                _finite1(*steps)
            else:
                _any1(*steps)
        elif rows == 2:
            if finite:
                _finite2(*steps)
            else:
                _any2(*steps)
        elif finite:
            _finite3(*steps)
        else:
            _any3(*steps)


@kernel(parallel=True)
def _matvec(starts, window, idx, val, rows, x, y, shares):
    count = starts.size - 1
    for part in prange(shares):
        first, last = count * part // shares, count * (part + 1) // shares
        _matvec_part(starts, window, idx, val, rows, x, y, first, last)


@kernel
def place(step, lane):
    """Where the index byte of a slot lies: words of four steps, lane after lane."""
    return step // STEPS * (STEPS * LANES) + lane * STEPS + step % STEPS


@kernel
def matvec_plain(starts, window, idx, val, rows, x, y):
    """(1) for any dtype, one slot at a time."""
    y[:] = 0
    for g in range(starts.size - 1):
        for t in range(starts[g], starts[g + 1]):
            for k in range(LANES):
                code = idx[place(t, k)]
                for q in range(rows):
                    if code & (WINDOW << q):
                        column = np.int64(window[t]) + (code & (WINDOW - 1))
                        y[(g * rows + q) * LANES + k] += val[t * LANES + k] * x[column]


def matvec(starts, window, idx, val, rows, x, y):
    """Fill y (16 rows slices) with W x: equation (1); `rows` is Q.

    starts (slices + 1) steps, window (steps) columns, idx uint8 and val (16 steps), x (in).
    """
    if not (WIDE and fast(val, x, y)):
        matvec_plain(starts, window, idx, val, rows, x, y)
        return
    shares = parts(val.size)
    if shares > 1:
        _matvec(starts, window, idx, val, rows, x, y, shares)
    else:
        _matvec_part(starts, window, idx, val, rows, x, y, 0, starts.size - 1)


@kernel
def arrange(indptr, indices, rows, starts, window, idx, source):
    """Fill the structure from a pattern in row order; source (16 steps) gets each slot's entry or -1.

    starts must come first: called with window of length 0 it is filled and nothing else. Each step's
    window begins with the column that waits longest; of a lane's rows the one that waits longest goes.
    """
    out, step = indptr.size - 1, 0
    write = window.size > 0
    waits = np.empty((rows, LANES), np.int64)
    done = np.empty((rows, LANES), np.int64)
    for g in range(starts.size - 1):
        left = 0
        for q in range(rows):
            for k in range(LANES):
                i = (g * rows + q) * LANES + k
                waits[q, k] = indptr[i] if i < out else 0
                done[q, k] = indptr[i + 1] if i < out else 0
                left += done[q, k] - waits[q, k]
        while left > 0:
            lowest = -1
            for q in range(rows):
                for k in range(LANES):
                    if waits[q, k] < done[q, k]:
                        column = np.int64(indices[waits[q, k]])
                        if lowest < 0 or column < lowest:
                            lowest = column
            if write:
                window[step] = lowest
            for k in range(LANES):
                best, turn = -1, 0
                for q in range(rows):
                    if waits[q, k] < done[q, k]:
                        column = np.int64(indices[waits[q, k]])
                        if column < lowest + WINDOW and (best < 0 or column < best):
                            best, turn = column, q
                if best >= 0:
                    if write:
                        idx[place(step, k)] = (best - lowest) | (WINDOW << turn)
                        source[step * LANES + k] = waits[turn, k]
                    waits[turn, k] += 1
                    left -= 1
            step += 1
        step += -step % STEPS
        starts[g + 1] = step
