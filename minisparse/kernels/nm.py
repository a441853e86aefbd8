"""One sample times an N:M matrix: x looked up in a register by indices of 2 or 4 bits.

    y[i] = sum_p val[p] x[group of p + idx[p]],   p in row i                                (1)

Of every B = 4 or 16 columns a row keeps C. Lane k works on row k of a slice of 16, and all lanes take their
C entries of a group at the same time, so one register holds what they all need: B numbers of x, four times if
there are four of them. 2:4 and 1:2 are (B, C) = (4, 2), 1:4 is (4, 1); 4:8, 2:8, ... are read as 8:16, 4:16,
... . A lane's places in its groups are one word for T steps, which the lookup takes as it is, shifted:

    B =  4   bits 2t, 2t + 1 of step t       T = 16
    B = 16   bits 4t .. 4t + 3               T = 8

Sixteen rows use a number of x while it is in the cache: with long rows, values stream through the first-level
cache and push x out. The compressed storage is that of A. Mishra et al., Accelerating Sparse Deep Neural
Networks, 2021, arXiv:2104.08378, in slices as `sliced.py` has them.
"""

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import I64, INDEX, LANES, WIDE, Lanes, at_least, fast, parts

AHEAD = 512  # floats: how far ahead of their use the values are asked for
CHAINS = 4  # sums a row is added up in
STEPS = {4: 16, 16: 8}  # B -> T
KINDS = ((4, 2), (4, 1), (16, 8), (16, 4), (16, 2))  # (B, C) with a kernel


def _slice(group, keep):
    """Intrinsic: y[y0 : y0 + 16] of a slice of so many words in each lane."""
    together, bits = STEPS[group], 32 // STEPS[group]

    @intrinsic
    def rows(typingctx, words, w0, count, val, x, y, y0):
        i = types.intp
        signature = types.void(words, i, i, val, x, y, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, w0, count, _, _, _, y0 = args
            words, val = code.array(0, w0), code.array(3, builder.mul(w0, I64(together)))
            x, y = code.array(4), code.array(5, y0)

            def step(k, acc):
                index = code.load(code.step(words, builder.mul(k, I64(LANES))), 0, INDEX)
                here = code.step(x, builder.mul(k, I64(together // keep * group)))
                values = code.step(val, builder.mul(k, I64(together * LANES)))
                for t in range(together):
                    if t % keep == 0:
                        inputs = code.load_repeated(here, t // keep * group, group)
                    place = builder.lshr(index, ir.Constant(INDEX, [bits * t] * LANES)) if t else index
                    code.ask_for_stream(values, AHEAD + t * LANES)
                    weights, found = code.load(values, t * LANES), code.lookup_in(inputs, place, group)
                    acc[t % CHAINS] = code.fma(weights, found, acc[t % CHAINS])
                return acc

            acc = code.loop(I64(0), count, 1, [code.zero] * CHAINS, step)
            code.store(code.total(acc), y)
            return code.nothing()

        return signature, codegen

    return rows


_slice4_2, _slice4_1 = _slice(4, 2), _slice(4, 1)
_slice16_8, _slice16_4, _slice16_2 = _slice(16, 8), _slice(16, 4), _slice(16, 2)


@kernel
def _part(words, val, group, keep, x, y, first, last):
    count = words.shape[1]
    steps = 16 if group == 4 else 8  # T
    flat, inputs = words.reshape(-1), at_least(x, count * steps * group // keep)
    for g in range(first, last):
        w0, y0 = g * count * LANES, g * LANES
        if group == 4 and keep == 2:
            _slice4_2(flat, w0, count, val, inputs, y, y0)
        elif group == 4:
            _slice4_1(flat, w0, count, val, inputs, y, y0)
        elif keep == 8:
            _slice16_8(flat, w0, count, val, inputs, y, y0)
        elif keep == 4:
            _slice16_4(flat, w0, count, val, inputs, y, y0)
        else:
            _slice16_2(flat, w0, count, val, inputs, y, y0)


@kernel(parallel=True)
def _all(words, val, group, keep, x, y, shares):
    slices = len(words)
    for part in prange(shares):
        _part(words, val, group, keep, x, y, slices * part // shares, slices * (part + 1) // shares)


@kernel
def matvec_plain(words, val, steps, group, keep, x, y):
    """(1) for any dtype, one number at a time; steps is T of this group."""
    y[:] = 0
    slices, count, _ = words.shape
    for g in range(slices):
        for k in range(count):
            for t in range(steps):
                for lane in range(LANES):
                    place = (np.int64(words[g, k, lane]) >> (32 // steps * t)) % group
                    column = (k * steps + t) // keep * group + place
                    if column < x.size:  # padding has weight 0 and lies outside the matrix
                        y[g * LANES + lane] += val[((g * count + k) * steps + t) * LANES + lane] * x[column]


def matvec(words, val, group, keep, x, y):
    """Fill y (16 slices) with W x: equation (1), (group, keep) = (B, C) one of KINDS.

    words (slices, words of a row, 16) uint32; val the values, step by step, 16 of them in each; x (in).
    """
    if not (WIDE and fast(val, x, y)):
        matvec_plain(words, val, STEPS[group], group, keep, x, y)
        return
    shares = parts(val.size)
    if shares > 1:
        _all(words, val, group, keep, x, y, shares)
    else:
        _part(words, val, group, keep, x, y, 0, len(words))


@kernel
def matvec_any(places, val, group, x, y):
    """y = W x for any N:M; places, val (out, groups, N): each entry's place in its group of M columns."""
    out, groups, keep = places.shape
    for i in range(out):
        y[i] = 0
        for g in range(groups):
            for k in range(keep):
                y[i] += val[i, g, k] * x[g * group + places[i, g, k]]
