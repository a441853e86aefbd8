"""The transposes of a sparse product with a batch, as training needs them: dX, and dW on the pattern.

    scatter    dX = W^T dY         dx[idx[p]] += val[p] dy[i]                p in row i       (2)
    sample     dW on the pattern   dval[p] = <dy[i], x[idx[p]]>                               (3)

X (in, r), dY (out, r); equation (1) is in `multiply.py`. A tile is 128 samples, 8 vectors wide (the last
one 1, 2, 4 or 8 vectors); a panel is `width` consecutive columns of W. The part of X or dX that a tile
and a panel share is a buffer, contiguous and on cache lines, and every row of W works on that buffer
only; a tile of dy[i] is held in registers. No transposed copy of W is needed. begin[c, i], end[c, i]
delimit the entries of row i whose columns lie in panel c, so the same kernels serve row order (with cuts)
and panel order; `local` says that columns count from their panel's first.

Parallel over tiles, rows and panels of the output: never over a sum, so that the number of threads does not
change a bit of it.
"""

from numba import prange

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import LANES, fast, parts, scratch
from minisparse.kernels.order import sample_plain, scatter_plain
from minisparse.kernels.packing import lanes_of, pack, strided
from minisparse.kernels.tiles import (
    AHEAD,
    ask,
    copy,
    dots1,
    dots2,
    dots4,
    dots8,
    spread1,
    spread2,
    spread4,
    spread8,
)


@kernel
def _scatter_part(w, dy, dx, number, first_panel, last_panel):
    """Panels first_panel <= c < last_panel of one tile of dX."""
    begin, end, idx, val, width, local, tile = w
    flat, step_i, step_s, rows, r = dy
    out, ld, columns = dx
    lanes, first = lanes_of(number, r, tile), number * tile
    valid = min(lanes, r - first)
    source, origin = scratch((rows + LANES) * lanes)
    pack(flat, step_i, step_s, first, valid, lanes, 0, rows, source, origin)
    buffer, at = scratch((width + LANES) * lanes)
    for c in range(first_panel, last_panel):
        lo, hi = c * width, min(c * width + width, columns)
        buffer[:] = 0
        start = at if local else at - lo * lanes
        b, e = begin[c], end[c]
        for i in range(rows):
            later = b[min(i + AHEAD, rows - 1)]
            ask(idx, later)
            ask(val, later)
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
        lanes, first = lanes_of(number, r, tile), number * tile
        valid = min(lanes, r - first)
        source, origin = scratch((last_row - first_row + LANES) * lanes)
        pack(cotangent, step_i, step_t, first, valid, lanes, first_row, last_row, source, origin)
        buffer, at = scratch((width + LANES) * lanes)
        for c in range(begin.shape[0]):
            lo, hi = c * width, min(c * width + width, columns)
            pack(flat, step_j, step_s, first, valid, lanes, lo, hi, buffer, at)
            start = at if local else at - lo * lanes
            b, e = begin[c], end[c]
            for i in range(first_row, last_row):
                later = b[min(i + AHEAD, last_row - 1)]
                ask(idx, later)
                ask(val, later)
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


def scatter(order, values, dy, dx):
    """Fill dx (in, >= r) from `packing.room` with W^T dy, dy (out, r): equation (2)."""
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
