"""Products of a sparse matrix with a batch: activation tiles by column panels that stay in the first-level cache.

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
in one or (in narrow tiles) a few interleaved chains, whatever the panels, the threads and the other rows.

The idea is that of blocked sparse products: T. Gale et al., Sparse GPU Kernels for Deep Learning, SC 2020,
arXiv:2006.10901, brought to the caches and registers of a processor.
"""

import numpy as np
from numba import prange

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import LANES, aligned, fast, shares
from minisparse.kernels.tiles import (
    axpy1, axpy2, axpy4, axpy8, dots1, dots2, dots4, dots8, spread1, spread2, spread4, spread8,
)  # fmt: skip

WIDEST = 8  # vectors of a tile: eight chains of multiply-adds hide their latency
TILE = WIDEST * LANES
LINE = 16  # floats of a cache line


@kernel
def _room(size):
    """Scratch array and the index in it where `size` floats start on a cache line."""
    room = np.empty(size + LINE, np.float32)
    return room, (-room.ctypes.data % (4 * LINE)) // 4


@kernel
def _pack(x, step_j, step_s, first, count, lanes, lo, hi, buffer, at):
    """buffer[at + (j - lo) lanes + s] = x[j, first + s] for lo <= j < hi; 0 from s = count on.

    x is flat; its entry (j, s) is at j step_j + s step_s.
    """
    for j in range(lo, hi):
        to = at + (j - lo) * lanes
        if step_s == 1:
            source = j * step_j + first
            for s in range(count):
                buffer[to + s] = x[source + s]
        for s in range(count, lanes):
            buffer[to + s] = 0
    if step_s != 1:
        for s in range(count):
            source = (first + s) * step_s
            for j in range(lo, hi):
                buffer[at + (j - lo) * lanes + s] = x[source + j * step_j]


@kernel
def _lanes(tile, r):
    """Samples that tile number `tile` of r samples is wide: 128, or for the last 16, 32, 64 or 128."""
    rest = r - tile * TILE
    lanes = LANES
    while lanes < rest and lanes < TILE:
        lanes *= 2
    return lanes


@kernel
def _multiply_part(begin, end, idx, val, width, local, x, step_j, step_s, columns, r, y, ld, tile, rows):
    """Rows rows[0] <= i < rows[1] of one tile of Y."""
    lanes = _lanes(tile, r)
    first = tile * TILE
    buffer, at = _room(width * lanes)
    for c in range(begin.shape[0]):
        lo = c * width
        hi = min(lo + width, columns)
        _pack(x, step_j, step_s, first, min(lanes, r - first), lanes, lo, hi, buffer, at)
        start = at if local else at - lo * lanes
        b, e = begin[c], end[c]
        for i in range(rows[0], rows[1]):
            to = i * ld + first
            if lanes == 8 * LANES:
                axpy8(buffer, start, idx, val, b[i], e[i], y, to, c)
            elif lanes == 4 * LANES:
                axpy4(buffer, start, idx, val, b[i], e[i], y, to, c)
            elif lanes == 2 * LANES:
                axpy2(buffer, start, idx, val, b[i], e[i], y, to, c)
            else:
                axpy1(buffer, start, idx, val, b[i], e[i], y, to, c)


@kernel(parallel=True)
def _multiply(begin, end, idx, val, width, local, x, step_j, step_s, columns, r, y, ld, bounds):
    parts = bounds.size - 1
    for task in prange(-(-r // TILE) * parts):
        tile, part = task // parts, task % parts
        rows = bounds[part : part + 2]
        _multiply_part(
            begin, end, idx, val, width, local, x, step_j, step_s, columns, r, y, ld, tile, rows
        )  # fmt: skip


@kernel
def _scatter_part(begin, end, idx, val, width, local, dy, step_j, step_s, columns, r, dx, ld, tile, panels):
    """Panels panels[0] <= c < panels[1] of one tile of dX."""
    out = begin.shape[1]
    lanes = _lanes(tile, r)
    first = tile * TILE
    valid = min(lanes, r - first)
    rows, from_ = _room(out * lanes)
    _pack(dy, step_j, step_s, first, valid, lanes, 0, out, rows, from_)
    buffer, at = _room(width * lanes)
    for c in range(panels[0], panels[1]):
        lo = c * width
        hi = min(lo + width, columns)
        buffer[:] = 0
        start = at if local else at - lo * lanes
        b, e = begin[c], end[c]
        for i in range(out):
            source = from_ + i * lanes
            if lanes == 8 * LANES:
                spread8(rows, source, idx, val, b[i], e[i], buffer, start)
            elif lanes == 4 * LANES:
                spread4(rows, source, idx, val, b[i], e[i], buffer, start)
            elif lanes == 2 * LANES:
                spread2(rows, source, idx, val, b[i], e[i], buffer, start)
            else:
                spread1(rows, source, idx, val, b[i], e[i], buffer, start)
        for j in range(lo, hi):
            for s in range(valid):
                dx[j * ld + first + s] = buffer[at + (j - lo) * lanes + s]


@kernel(parallel=True)
def _scatter(begin, end, idx, val, width, local, dy, step_j, step_s, columns, r, dx, ld, parts):
    count = begin.shape[0]
    for task in prange(-(-r // TILE) * parts):
        tile, part = task // parts, task % parts
        panels = (count * part // parts, count * (part + 1) // parts)
        _scatter_part(
            begin, end, idx, val, width, local, dy, step_j, step_s, columns, r, dx, ld, tile, panels
        )  # fmt: skip
