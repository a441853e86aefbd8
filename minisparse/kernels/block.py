"""Matrices whose consecutive rows share their columns, R by R: blocks of R x 1, and so of R x anything.

    y[R g + j] = sum_p val[p, j] x[idx[p]],   j < R, p in row group g                        (1)

One element of x, or one vector of samples, serves R outputs: a batch runs at the speed of a dense product
of the same number of multiply-adds. val (entries, R), idx (entries), starts (groups + 1).
"""

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import FLOAT, I32, I64, LANES, Lanes, aligned, evenly, fast, parts
from minisparse.kernels.packing import packed_tile, strided

HEIGHTS = (16, 8, 4, 2)
CHAINS, WIDEST = 16, 4  # accumulators of a tile: R rows of CHAINS / R vectors of samples, at most 4
APART = 4  # entries of a matrix-vector product that go to accumulators of their own


def _tile(height, vectors):
    """Intrinsic y[j ld + s] = sum_p val[p, j] x[idx[p], s], all R rows j of a group, one tile of x."""

    @intrinsic
    def one_group(typingctx, x, x0, idx, val, begin, end, y, y0, ld):
        i = types.intp
        signature = types.void(x, i, idx, val, i, i, y, i, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, x0, _, _, begin, end, _, y0, ld = args
            x, idx, val, y = code.array(0, x0), code.array(2), code.array(3), code.array(6, y0)

            def entry(p, acc):
                row = code.step(x, builder.mul(code.integer(idx, p), I64(vectors * LANES)))
                inputs = [code.load(row, v * LANES) for v in range(vectors)]
                weights = code.step(val, builder.mul(p, I64(height)))
                for j in range(height):
                    w = code.splat(code.scalar(weights, j))
                    for v in range(vectors):
                        acc[j * vectors + v] = code.fma(w, inputs[v], acc[j * vectors + v])
                return acc

            acc = code.loop(begin, end, 1, [code.zero] * (height * vectors), entry)
            for j in range(height):
                row = code.step(y, builder.mul(ld, I64(j)))
                for v in range(vectors):
                    code.store(acc[j * vectors + v], row, v * LANES)
            return code.nothing()

        return signature, codegen

    return one_group


def _column(height):
    """Intrinsic y[0:R] = sum_p val[p, 0:R] x[idx[p]], the R rows of a group side by side."""
    lanes = ir.VectorType(FLOAT, height)

    @intrinsic
    def one_group(typingctx, idx, val, begin, end, x, y, y0):
        i = types.intp
        signature = types.void(idx, val, i, i, x, y, i)

        def codegen(context, builder, sig, args):
            code = Lanes(context, builder, sig, args)
            _, _, begin, end, _, _, y0 = args
            idx, val, x, y = code.array(0), code.array(1), code.array(4), code.array(5, y0)

            def entry(p, acc):
                found = code.scalar(x, code.integer(idx, p))
                first = builder.insert_element(ir.Constant(lanes, ir.Undefined), found, I32(0))
                pick = ir.Constant(ir.VectorType(I32, height), [0] * height)
                inputs = builder.shuffle_vector(first, first, pick)
                return code.fma(code.load(val, builder.mul(p, I64(height)), lanes), inputs, acc)

            def several(p, acc):
                return [entry(builder.add(p, I64(u)), acc[u]) for u in range(APART)]

            last = builder.add(begin, builder.and_(builder.sub(end, begin), I64(-APART)))
            zero = ir.Constant(lanes, [0.0] * height)
            acc = code.loop(begin, last, APART, [zero] * APART, several)
            acc = code.loop(last, end, 1, [code.total(acc)], lambda p, a: [entry(p, a[0])])
            code.store(acc[0], y)
            return code.nothing()

        return signature, codegen

    return one_group


_tile16, _tile8, _tile4, _tile2 = _tile(16, 1), _tile(8, 2), _tile(4, 4), _tile(2, 4)
_column16, _column8, _column4, _column2 = _column(16), _column(8), _column(4), _column(2)


@kernel
def _matvec_part(starts, idx, val, x, y, first, last):
    height = val.shape[1]
    flat = val.reshape(-1)
    for g in range(first, last):
        b, e, to = starts[g], starts[g + 1], g * height
        if height == 16:
            _column16(idx, flat, b, e, x, y, to)
        elif height == 8:
            _column8(idx, flat, b, e, x, y, to)
        elif height == 4:
            _column4(idx, flat, b, e, x, y, to)
        else:
            _column2(idx, flat, b, e, x, y, to)


@kernel(parallel=True)
def _matvec(starts, idx, val, x, y, shares):
    bounds = evenly(starts, shares)
    for part in prange(shares):
        _matvec_part(starts, idx, val, x, y, bounds[part], bounds[part + 1])


@kernel
def _multiply_part(starts, idx, val, x, y, lanes, tile, first, last):
    """Row groups first <= g < last of tile number `tile`, `lanes` samples wide."""
    height = val.shape[1]
    flat = val.reshape(-1)
    out, ld = y
    buffer, at = packed_tile(x, tile * lanes, lanes)
    for g in range(first, last):
        b, e, to = starts[g], starts[g + 1], g * height * ld + tile * lanes
        if height == 16:
            _tile16(buffer, at, idx, flat, b, e, out, to, ld)
        elif height == 8:
            _tile8(buffer, at, idx, flat, b, e, out, to, ld)
        elif height == 4:
            _tile4(buffer, at, idx, flat, b, e, out, to, ld)
        else:
            _tile2(buffer, at, idx, flat, b, e, out, to, ld)


@kernel(parallel=True)
def _multiply(starts, idx, val, x, y, lanes, tiles, shares):
    bounds = evenly(starts, shares)
    for task in prange(tiles * shares):
        first, last = bounds[task % shares], bounds[task % shares + 1]
        _multiply_part(starts, idx, val, x, y, lanes, task // shares, first, last)


@kernel
def multiply_plain(starts, idx, val, x, y):
    """(1) for any dtype, one number at a time; x (in, r), y (R groups, >= r)."""
    height = val.shape[1]
    for g in range(starts.size - 1):
        for j in range(height):
            i = g * height + j
            for s in range(x.shape[1]):
                y[i, s] = 0
                for p in range(starts[g], starts[g + 1]):
                    y[i, s] += val[p, j] * x[idx[p], s]


def room(groups, height, samples, dtype):
    """Array (R groups, >= samples) for `multiply` to write to: whole tiles."""
    if not fast(np.empty(0, dtype)):
        return np.empty((groups * height, samples), dtype=dtype)
    width = -(-samples // tile_width(height)) * tile_width(height)
    return aligned(groups * height * width).reshape(groups * height, width)


def tile_width(height):
    """Samples of a tile for blocks of this height."""
    return min(WIDEST, CHAINS // height) * LANES


def matvec(starts, idx, val, x, y):
    """Fill y (R groups) with W x: equation (1)."""
    if not fast(val, x, y):
        multiply_plain(starts, idx, val, x.reshape(-1, 1), y.reshape(-1, 1))
        return
    shares = parts(val.size)
    if shares > 1:
        _matvec(starts, idx, val, x, y, shares)
    else:
        _matvec_part(starts, idx, val, x, y, 0, starts.size - 1)


def multiply(starts, idx, val, x, y):
    """Fill y (R groups, >= r) from `room` with W x, x (in, r): equation (1)."""
    columns, samples = x.shape
    if not fast(val, x, y) or columns == 0 or samples == 0:
        multiply_plain(starts, idx, val, x, y)
        return
    lanes = tile_width(val.shape[1])
    tiles, shares = -(-samples // lanes), parts(val.size * samples // 4)
    source, out = (*strided(x), columns, samples), (y.reshape(-1), y.shape[1])
    if shares > 1:
        _multiply(starts, idx, val, source, out, lanes, tiles, -(-shares // tiles))
    else:
        for tile in range(tiles):
            _multiply_part(starts, idx, val, source, out, lanes, tile, 0, starts.size - 1)
