"""One sample times an N:M matrix: x looked up in registers by indices of 2 or 4 bits.

    y[i] = sum_p val[p] x[group of p + idx[p]],   p in row i                                (1)

Of every B = 4 or 16 columns a row keeps C, so 16 consecutive values belong to 16 B / C consecutive columns
whatever the pattern inside the groups: lane k's group is k // C, and all the lookup needs is the place inside
the group, 2 or 4 bits. 2:4 and 1:2 are (B, C) = (4, 2), 1:4 is (4, 1); 4:8, 2:8, ... are read as 8:16, 4:16,
... . The indices of 16 values are one word, spread over the lanes by a shift of its own for each lane:

    B =  4   lane k has bits 2k, 2k + 1 of 32
    B = 16   lane k has bits 4 (k // 2) .. + 3 of 32-bit half k % 2 of 64

Four rows are interleaved, so that a block of x is loaded once for four of them. The compressed storage is
that of A. Mishra et al., Accelerating Sparse Deep Neural Networks, 2021, arXiv:2104.08378.
"""

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import I64, INDEX, LANES, MASK, WIDE, Lanes, at_least, fast, parts

ROWS = 4
PAIR = 2 * LANES  # columns of one lookup
AHEAD = 512  # floats: how far ahead of their use the values are asked for
KINDS = ((4, 2), (4, 1), (16, 8), (16, 4), (16, 2))  # (B, C) with a kernel


def shifts(group):
    """Place of each lane's index within the word of 16 indices."""
    lanes = np.arange(LANES)
    return 2 * lanes if group == 4 else 32 * (lanes % 2) + 4 * (lanes // 2)


def _four_rows(group, keep):
    """Intrinsic: y[y0 : y0 + 4] of four interleaved rows of so many words each."""
    span = LANES * group // keep
    home = [lane // keep * group for lane in range(LANES)]  # first column of each lane's group

    @intrinsic
    def rows(typingctx, words, w0, count, val, x, y, y0):
        i = types.intp
        signature = types.void(words, i, i, val, x, y, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, w0, count, _, _, _, y0 = args
            words, val = code.array(0, w0), code.array(3, builder.mul(w0, I64(LANES)))
            x, y = code.array(4), code.array(5, y0)
            places = [int(s) % 32 for s in shifts(group)]
            base = ir.Constant(INDEX, [h % PAIR for h in home])
            low_bits = ir.Constant(INDEX, [group - 1] * LANES)

            def step(k, acc):
                here = code.step(x, builder.mul(k, I64(span)))
                inputs = [code.load(here, b) for b in range(0, span, LANES)]
                for r in range(ROWS):
                    at = builder.add(builder.mul(k, I64(ROWS)), I64(r))
                    index = code.repeated(code.scalar(words, at))
                    index = builder.and_(builder.lshr(index, ir.Constant(INDEX, places)), low_bits)
                    index = builder.or_(index, base)
                    found = code.zero
                    for pair in range(0, span, PAIR):
                        low, high = inputs[pair // LANES : pair // LANES + 2]
                        own = ir.Constant(MASK, [h // PAIR == pair // PAIR for h in home])
                        found = builder.select(own, code.lookup(low, index, high), found)
                    values = code.step(val, builder.mul(at, I64(LANES)))
                    code.ask_for_stream(values, AHEAD)
                    weights = code.load(values)
                    acc[r] = code.fma(weights, found, acc[r])
                return acc

            acc = code.loop(I64(0), count, 1, [code.zero] * ROWS, step)
            for r, a in enumerate(acc):
                builder.store(code.sum(a), code.step(y, r))
            return code.nothing()

        return signature, codegen

    return rows


_rows4_2, _rows4_1 = _four_rows(4, 2), _four_rows(4, 1)
_rows16_8, _rows16_4, _rows16_2 = _four_rows(16, 8), _four_rows(16, 4), _four_rows(16, 2)


@kernel
def _part4(words, val, keep, x, y, first, last):
    count = words.shape[1]
    flat, inputs = words.reshape(-1), at_least(x, count * LANES * 4 // keep)
    for g in range(first, last):
        if keep == 2:
            _rows4_2(flat, g * count * ROWS, count, val, inputs, y, g * ROWS)
        else:
            _rows4_1(flat, g * count * ROWS, count, val, inputs, y, g * ROWS)


@kernel
def _part16(words, val, keep, x, y, first, last):
    count = words.shape[1]
    flat, inputs = words.reshape(-1), at_least(x, count * LANES * 16 // keep)
    for g in range(first, last):
        if keep == 8:
            _rows16_8(flat, g * count * ROWS, count, val, inputs, y, g * ROWS)
        elif keep == 4:
            _rows16_4(flat, g * count * ROWS, count, val, inputs, y, g * ROWS)
        else:
            _rows16_2(flat, g * count * ROWS, count, val, inputs, y, g * ROWS)


@kernel(parallel=True)
def _all4(words, val, keep, x, y, shares):
    groups = words.shape[0]
    for part in prange(shares):
        _part4(words, val, keep, x, y, groups * part // shares, groups * (part + 1) // shares)


@kernel(parallel=True)
def _all16(words, val, keep, x, y, shares):
    groups = words.shape[0]
    for part in prange(shares):
        _part16(words, val, keep, x, y, groups * part // shares, groups * (part + 1) // shares)


@kernel
def matvec_plain(words, val, group, keep, places, low, x, y):
    """(1) for any dtype, one number at a time; shifts(group) and group - 1 in the words' type."""
    groups, count, rows = words.shape
    for g in range(groups):
        for r in range(rows):
            y[g * rows + r] = 0
            for k in range(count):
                for lane in range(LANES):
                    place = (words[g, k, r] >> places[lane]) & low
                    column = (k * LANES + lane) // keep * group + np.int64(place)
                    if column < x.size:  # padding has weight 0 and lies outside the matrix
                        y[g * rows + r] += val[((g * count + k) * rows + r) * LANES + lane] * x[column]


def matvec(words, val, group, keep, x, y):
    """Fill y (4 row groups) with W x: equation (1), (group, keep) = (B, C) one of KINDS.

    words (row groups, words of a row, 4), uint32 for B = 4 and uint64 for B = 16; val the values in the same
    order, 16 for each word; x (in).
    """
    if not (WIDE and fast(val, x, y)):
        kind = words.dtype.type
        matvec_plain(words, val, group, keep, shifts(group).astype(kind), kind(group - 1), x, y)
        return
    shares = parts(val.size)
    alone, together = (_part4, _all4) if group == 4 else (_part16, _all16)
    if shares > 1:
        together(words, val, keep, x, y, shares)
    else:
        alone(words, val, keep, x, y, 0, len(words))


@kernel
def matvec_any(places, val, group, x, y):
    """y = W x for any N:M; places, val (out, groups, N): each entry's place in its group of M columns."""
    out, groups, keep = places.shape
    for i in range(out):
        y[i] = 0
        for g in range(groups):
            for k in range(keep):
                y[i] += val[i, g, k] * x[g * group + places[i, g, k]]
