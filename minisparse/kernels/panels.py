"""Products of a sparse matrix with a batch: activation tiles by column panels, which stay in cache.

    multiply   Y = W X             y[i] = sum_p val[p] x[idx[p]]             p in row i       (1)
    scatter    dX = W^T dY         dx[idx[p]] += val[p] dy[i]                                 (2)
    sample     dW on the pattern   dval[p] = <dy[i], x[idx[p]]>                               (3)

X (in, r), Y (out, r). A tile is 128 samples, 8 vectors wide (the last one 1, 2, 4 or 8 vectors); a panel is
`width` consecutive columns of W. The part of X that a tile and a panel share is copied to a buffer,
contiguous and on cache lines, and every row of W then works on that buffer only. In (1) a tile of y[i] is
held in registers, in (3) a tile of dy[i], in (2) the buffer is that part of dX, and no transposed copy of W
is needed. begin[c, i], end[c, i] delimit the entries of row i whose columns lie in panel c, so the same
kernels serve row order (with cuts) and panel order; `local` says that columns count from their panel's first.

Parallel over tiles, rows and panels of the output: never over a sum. Each output is summed in column order,
in one or (in narrow tiles) a few interleaved chains, so the number of threads does not change a bit of it.

The idea is that of blocked sparse products: T. Gale et al., Sparse GPU Kernels for Deep Learning, SC 2020,
arXiv:2006.10901, brought to the caches and registers of a processor.
"""

import numpy as np
from numba import prange

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import LANES, aligned, fast, parts, scratch
from minisparse.kernels.order import TILE, multiply_plain, sample_plain, scatter_plain
from minisparse.kernels.tiles import (
    axpy1,
    axpy2,
    axpy4,
    axpy8,
    copy,
    dots1,
    dots2,
    dots4,
    dots8,
    spread1,
    spread2,
    spread4,
    spread8,
    turn,
)


@kernel
def _pack(x, step_j, step_s, first, count, lanes, lo, hi, buffer, at):
    """buffer[at + (j - lo) lanes + s] = x[j, first + s] for lo <= j < hi; 0 from s = count on.

    x is flat; its entry (j, s) is at j step_j + s step_s, and one of the steps is 1. Up to 15 rows of
    zeros are written after the last.
    """
    if step_s == 1:
        for j in range(lo, hi):
            copy(x, j * step_j + first, count, buffer, at + (j - lo) * lanes, lanes)
    else:
        for j in range(lo, hi, LANES):
            for s in range(0, lanes, LANES):
                source, to = (first + s) * step_s + j, at + (j - lo) * lanes + s
                turn(x, source, step_s, count - s, hi - j, buffer, to, lanes)


@kernel
def packed_tile(x, first, lanes):
    """Samples first .. first + lanes of x = (flat, step_j, step_s, columns, samples), on a cache line."""
    flat, step_j, step_s, columns, r = x
    buffer, at = scratch((columns + LANES) * lanes)
    _pack(flat, step_j, step_s, first, min(lanes, r - first), lanes, 0, columns, buffer, at)
    return buffer, at


@kernel
def _lanes(number, r, tile):
    """Samples that tile `number` of r samples is wide: `tile`, or for the last perhaps 16, 32 or 64."""
    rest = r - number * tile
    lanes = LANES
    while lanes < rest and lanes < tile:
        lanes *= 2
    return lanes


@kernel
def _multiply_part(w, x, y, number, first_row, last_row):
    """Rows first_row <= i < last_row of one tile of Y; w, x, y as `multiply` makes them."""
    begin, end, idx, val, width, local, tile = w
    flat, step_j, step_s, columns, r = x
    out, ld = y
    lanes, first = _lanes(number, r, tile), number * tile
    buffer, at = scratch((width + LANES) * lanes)
    for c in range(begin.shape[0]):
        lo, hi = c * width, min(c * width + width, columns)
        _pack(flat, step_j, step_s, first, min(lanes, r - first), lanes, lo, hi, buffer, at)
        start = at if local else at - lo * lanes
        b, e = begin[c], end[c]
        for i in range(first_row, last_row):
            to = i * ld + first
            if lanes == 8 * LANES:
                axpy8(buffer, start, idx, val, b[i], e[i], out, to, c)
            elif lanes == 4 * LANES:
                axpy4(buffer, start, idx, val, b[i], e[i], out, to, c)
            elif lanes == 2 * LANES:
                axpy2(buffer, start, idx, val, b[i], e[i], out, to, c)
            else:
                axpy1(buffer, start, idx, val, b[i], e[i], out, to, c)


@kernel(parallel=True)
def _multiply(w, x, y, tiles, bounds):
    shares = bounds.size - 1
    for task in prange(tiles * shares):
        share = task % shares
        _multiply_part(w, x, y, task // shares, bounds[share], bounds[share + 1])


@kernel
def _scatter_part(w, dy, dx, number, first_panel, last_panel):
    """Panels first_panel <= c < last_panel of one tile of dX."""
    begin, end, idx, val, width, local, tile = w
    flat, step_i, step_s, rows, r = dy
    out, ld, columns = dx
    lanes, first = _lanes(number, r, tile), number * tile
    valid = min(lanes, r - first)
    source, origin = scratch((rows + LANES) * lanes)
    _pack(flat, step_i, step_s, first, valid, lanes, 0, rows, source, origin)
    buffer, at = scratch((width + LANES) * lanes)
    for c in range(first_panel, last_panel):
        lo, hi = c * width, min(c * width + width, columns)
        buffer[:] = 0
        start = at if local else at - lo * lanes
        b, e = begin[c], end[c]
        for i in range(rows):
            row = origin + i * lanes
            if lanes == 8 * LANES:
                spread8(source, row, idx, val, b[i], e[i], buffer, start)
            elif lanes == 4 * LANES:
                spread4(source, row, idx, val, b[i], e[i], buffer, start)
            elif lanes == 2 * LANES:
                spread2(source, row, idx, val, b[i], e[i], buffer, start)
            else:
                spread1(source, row, idx, val, b[i], e[i], buffer, start)
        for j in range(lo, hi):
            copy(buffer, at + (j - lo) * lanes, lanes, out, j * ld + first, lanes)


@kernel(parallel=True)
def _scatter(w, dy, dx, tiles, shares):
    panels = w[0].shape[0]
    for task in prange(tiles * shares):
        share = task % shares
        first, last = panels * share // shares, panels * (share + 1) // shares
        _scatter_part(w, dy, dx, task // shares, first, last)


@kernel
def _sample_part(w, x, dy, first_row, last_row):
    """Entries of rows first_row <= i < last_row; the tiles are added in their order."""
    begin, end, idx, val, width, local, tile = w
    flat, step_j, step_s, columns, r = x
    cotangent, step_i, step_t = dy
    for number in range(-(-r // tile)):
        lanes, first = _lanes(number, r, tile), number * tile
        valid = min(lanes, r - first)
        source, origin = scratch((last_row - first_row + LANES) * lanes)
        _pack(cotangent, step_i, step_t, first, valid, lanes, first_row, last_row, source, origin)
        buffer, at = scratch((width + LANES) * lanes)
        for c in range(begin.shape[0]):
            lo, hi = c * width, min(c * width + width, columns)
            _pack(flat, step_j, step_s, first, valid, lanes, lo, hi, buffer, at)
            start = at if local else at - lo * lanes
            b, e = begin[c], end[c]
            for i in range(first_row, last_row):
                row = origin + (i - first_row) * lanes
                if lanes == 8 * LANES:
                    dots8(source, row, idx, buffer, start, b[i], e[i], val, number)
                elif lanes == 4 * LANES:
                    dots4(source, row, idx, buffer, start, b[i], e[i], val, number)
                elif lanes == 2 * LANES:
                    dots2(source, row, idx, buffer, start, b[i], e[i], val, number)
                else:
                    dots1(source, row, idx, buffer, start, b[i], e[i], val, number)


@kernel(parallel=True)
def _sample(w, x, dy, bounds):
    for share in prange(bounds.size - 1):
        _sample_part(w, x, dy, bounds[share], bounds[share + 1])


def strided(x):
    """(flat, step_j, step_s) of x (features, samples); no copy if either axis lies contiguously."""
    x = np.require(x, requirements=["ALIGNED", "WRITEABLE"])
    if x.T.flags.c_contiguous:
        return x.T.reshape(-1), 1, x.shape[0]
    x = np.ascontiguousarray(x)
    return x.reshape(-1), x.shape[1], 1


def room(features, samples, dtype):
    """Array (features, >= samples) for a product to be written to; the first `samples` columns count."""
    if not fast(np.empty(0, dtype)):
        return np.empty((features, samples), dtype=dtype)
    rest = samples % TILE
    width = samples - rest + (_lanes(0, rest, TILE) if rest else 0)
    return aligned(features * width).reshape(features, width)


def multiply(order, values, x, y):
    """Fill y (out, >= r) from `room` with W x, x (in, r): equation (1)."""
    columns, samples = x.shape
    if not fast(values, x, y):
        multiply_plain(*order[:5], values, x, y)
    elif columns == 0 or samples == 0:
        y[...] = 0
    else:
        w, tiles, shares = _task(order, values, samples)
        source, out = (*strided(x), columns, samples), (y.reshape(-1), y.shape[1])
        if shares > 1:
            _multiply(w, source, out, tiles, order.bounds(-(-shares // tiles)))
        else:
            for number in range(tiles):
                _multiply_part(w, source, out, number, 0, y.shape[0])


def scatter(order, values, dy, dx):
    """Fill dx (in, >= r) from `room` with W^T dy, dy (out, r): equation (2)."""
    rows, samples = dy.shape
    if not fast(values, dy, dx):
        scatter_plain(*order[:5], values, dy, dx)
    elif rows == 0 or samples == 0:
        dx[...] = 0
    else:
        w, tiles, shares = _task(order, values, samples)
        source, out = (*strided(dy), rows, samples), (dx.reshape(-1), dx.shape[1], dx.shape[0])
        if shares > 1:
            _scatter(w, source, out, tiles, -(-shares // tiles))
        else:
            for number in range(tiles):
                _scatter_part(w, source, out, number, 0, order.begin.shape[0])


def sample(order, x, dy, values):
    """Fill values (nnz) with the entries of dy x^T on the pattern, x (in, r), dy (out, r): equation (3)."""
    columns, samples = x.shape
    if not fast(x, dy, values):
        sample_plain(*order[:5], x, dy, values)
    elif samples == 0:
        values[...] = 0
    elif values.size:
        w, _, shares = _task(order, values, samples)
        source, cotangent = (*strided(x), columns, samples), strided(dy)
        if shares > 1:
            _sample(w, source, cotangent, order.bounds(shares))
        else:
            _sample_part(w, source, cotangent, 0, dy.shape[0])


def _task(order, values, samples):
    """The matrix as the kernels take it, the number of tiles, and of parts."""
    tile = order.tile
    w = (order.begin, order.end, order.where, values, order.width, order.local, tile)
    return w, -(-samples // tile), parts(values.size * samples // 4)
