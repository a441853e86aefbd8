"""Convolutions with sparse filters: neighbouring pixels of 16 samples are the vectors, a tap is a shift.

    correlate   y[o, t] = sum_p val[p] frame[off[p] + t]          p in filter o, t an output pixel   (1)
    pull        dframe[off[p] + t] += val[p] dy[o, t]                                                (2)
    gradient    dval[p] = sum over samples and t of dy[o, t] frame[off[p] + t]                       (3)

A block of 16 samples is copied once to a frame (phase, channel, row, column, sample): padded, its samples
side by side, so that every tap of every pixel is one aligned vector, and up to 8 neighbouring pixels are a
tile of `tiles.py`. A stride of s splits rows and columns into s phases each; within a phase the pixels that
one tap meets are neighbours again. off[p] is the place, in pixels, of entry p's tap for output pixel (0, 0).

Images are channels-last, float32. Parallel over blocks of samples, in (3) over filters: never over a sum.
"""

from numba import prange

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import LANES, scratch
from minisparse.kernels.tiles import (
    pixels_axpy1,
    pixels_axpy2,
    pixels_axpy4,
    pixels_axpy8,
    pixels_dots1,
    pixels_dots2,
    pixels_dots4,
    pixels_dots8,
    pixels_spread1,
    pixels_spread2,
    pixels_spread4,
    pixels_spread8,
    turn_only,
)

WIDEST = 8  # pixels of a tile


@kernel
def _pixels(rest):
    """Pixels of the tile that begins `rest` before the end of a row: 8, 4, 2 or 1; the last may overhang."""
    return 8 if rest > 4 else 4 if rest > 2 else rest


@kernel
def _load(x, where, plane, block, frame, at, size):
    """Samples of one block of x (n, pixels, c) into a frame; where[pixel] < 0 is not read by any tap."""
    n, pixels, c = x.shape
    flat, first = x.reshape(-1), block * LANES
    frame[at : at + size] = 0
    for p in range(pixels):
        if where[p] >= 0:
            for k in range(0, c, LANES):
                source, to = (first * pixels + p) * c + k, at + (where[p] + k * plane) * LANES
                turn_only(flat, source, pixels * c, n - first, c - k, frame, to, plane * LANES)


@kernel
def _unload(frame, at, where, plane, block, x):
    """The inverse of `_load`; pixels that no tap reads become 0."""
    n, pixels, c = x.shape
    flat, first = x.reshape(-1), block * LANES
    for p in range(pixels):
        if where[p] >= 0:
            for k in range(0, c, LANES):
                source, to = at + (where[p] + k * plane) * LANES, (first * pixels + p) * c + k
                turn_only(frame, source, plane * LANES, c - k, n - first, flat, to, pixels * c)
        else:
            x[first : first + LANES, p] = 0


@kernel
def _load_tile(dy, pixel, count, wide, block, buffer, at):
    """buffer (o, wide, 16) = `count` pixels of dy (n, pixels, o) from `pixel` on, of one block of samples."""
    n, pixels, o = dy.shape
    flat, first = dy.reshape(-1), block * LANES
    buffer[at : at + o * wide * LANES] = 0
    for q in range(count):
        for k in range(0, o, LANES):
            source, to = (first * pixels + pixel + q) * o + k, at + (k * wide + q) * LANES
            turn_only(flat, source, pixels * o, n - first, o - k, buffer, to, wide * LANES)


@kernel
def _correlate_block(ptr, off, val, x, where, sizes, y, block):
    """Equation (1) for one block; sizes = (plane, frame width, frame size in floats, rows, columns of y)."""
    plane, width, size, oh, ow = sizes
    n, pixels, o = y.shape
    frame, at = scratch(size)
    _load(x, where, plane, block, frame, at, size)
    tile, to = scratch(o * WIDEST * LANES)
    flat, first = y.reshape(-1), block * LANES
    for i in range(oh):
        for j in range(0, ow, WIDEST):
            wide, start = _pixels(ow - j), at + (i * width + j) * LANES
            for f in range(o):
                b, e, here = ptr[f], ptr[f + 1], to + f * wide * LANES
                if wide == 8:
                    pixels_axpy8(frame, start, off, val, b, e, tile, here, 0)
                elif wide == 4:
                    pixels_axpy4(frame, start, off, val, b, e, tile, here, 0)
                elif wide == 2:
                    pixels_axpy2(frame, start, off, val, b, e, tile, here, 0)
                else:
                    pixels_axpy1(frame, start, off, val, b, e, tile, here, 0)
            for q in range(min(wide, ow - j)):
                for k in range(0, o, LANES):
                    source = to + (k * wide + q) * LANES
                    place = (first * pixels + i * ow + j + q) * o + k
                    turn_only(tile, source, wide * LANES, o - k, n - first, flat, place, pixels * o)


@kernel
def _pull_block(ptr, off, val, dy, where, sizes, dx, block):
    """Equation (2) for one block."""
    plane, width, size, oh, ow = sizes
    o = dy.shape[2]
    frame, at = scratch(size)
    frame[at : at + size] = 0
    tile, source = scratch(o * WIDEST * LANES)
    for i in range(oh):
        for j in range(0, ow, WIDEST):
            wide, start = _pixels(ow - j), at + (i * width + j) * LANES
            _load_tile(dy, i * ow + j, min(wide, ow - j), wide, block, tile, source)
            for f in range(o):
                b, e, here = ptr[f], ptr[f + 1], source + f * wide * LANES
                if wide == 8:
                    pixels_spread8(tile, here, off, val, b, e, frame, start)
                elif wide == 4:
                    pixels_spread4(tile, here, off, val, b, e, frame, start)
                elif wide == 2:
                    pixels_spread2(tile, here, off, val, b, e, frame, start)
                else:
                    pixels_spread1(tile, here, off, val, b, e, frame, start)
    _unload(frame, at, where, plane, block, dx)


@kernel
def _gradient_part(ptr, off, x, dy, where, sizes, dval, first, last):
    """Equation (3) for filters first <= f < last, block after block."""
    plane, width, size, oh, ow = sizes
    o = dy.shape[2]
    frame, at = scratch(size)
    tile, source = scratch(o * WIDEST * LANES)
    for block in range(-(-x.shape[0] // LANES)):
        _load(x, where, plane, block, frame, at, size)
        for i in range(oh):
            for j in range(0, ow, WIDEST):
                wide, start = _pixels(ow - j), at + (i * width + j) * LANES
                _load_tile(dy, i * ow + j, min(wide, ow - j), wide, block, tile, source)
                add = block + i + j
                for f in range(first, last):
                    b, e, here = ptr[f], ptr[f + 1], source + f * wide * LANES
                    if wide == 8:
                        pixels_dots8(tile, here, off, frame, start, b, e, dval, add)
                    elif wide == 4:
                        pixels_dots4(tile, here, off, frame, start, b, e, dval, add)
                    elif wide == 2:
                        pixels_dots2(tile, here, off, frame, start, b, e, dval, add)
                    else:
                        pixels_dots1(tile, here, off, frame, start, b, e, dval, add)


@kernel(parallel=True)
def correlate(ptr, off, val, x, where, sizes, y):
    """Fill y (n, pixels, o) from x (n, pixels, c): equation (1)."""
    for block in prange(-(-x.shape[0] // LANES)):
        _correlate_block(ptr, off, val, x, where, sizes, y, block)


@kernel(parallel=True)
def pull(ptr, off, val, dy, where, sizes, dx):
    """Fill dx (n, pixels, c) from dy (n, pixels, o): equation (2)."""
    for block in prange(-(-dy.shape[0] // LANES)):
        _pull_block(ptr, off, val, dy, where, sizes, dx, block)


@kernel(parallel=True)
def gradient(ptr, off, x, dy, where, sizes, dval, bounds):
    """Fill dval (nnz) from x (n, pixels, c) and dy (n, pixels, o): equation (3); bounds as `Order.bounds`."""
    for part in prange(bounds.size - 1):
        _gradient_part(ptr, off, x, dy, where, sizes, dval, bounds[part], bounds[part + 1])
