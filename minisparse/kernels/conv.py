"""Direct convolution: forward, transposed and weight gradient, without im2col traffic.

Samples are copied into padded frames once; each fits the second-level cache, and register tiles
(`vector.py`) sweep it. All images are channels-last float32. Parallel over samples, or over rows of the
gradient: never over a sum, so the number of threads does not change a bit of the result.

Offsets into a padded sample (hp, wp, c), flattened:
    pixels[t] = (i * stride_h * wp + j * stride_w) * c     for output pixel t = i * ow + j
    taps[k]   = (ky * dilation_h * wp + kx * dilation_w) * c + channel
"""

import numpy as np
from numba import prange

from minisparse.kernels.jit import kernel
from minisparse.kernels.vector import ROWS, tile1, tile2

WIDE = 32
NARROW = 16
SPAN = 128  # pixels of a weight gradient taken at a time, so that they stay in the first-level cache


@kernel(parallel=True)
def place(x, out, top, left, step_h, step_w):
    """Copy x (n, h, w, c) into frames out (n, hp, wp, c): pixel (i, j) goes to (top + i step_h, ...).

    Pixels that fall outside the frame are dropped, places that receive none are 0.
    """
    n, h, w, c = x.shape
    hp, wp = out.shape[1], out.shape[2]
    for s in prange(n):
        out[s] = 0
        for i in range(h):
            a = top + i * step_h
            if 0 <= a < hp:
                for j in range(w):
                    b = left + j * step_w
                    if 0 <= b < wp:
                        for k in range(c):
                            out[s, a, b, k] = x[s, i, j, k]


@kernel
def _product(x, rows, cols, begin, end, w, y, out, add):
    """y[out[r] + o] (+)= sum_k x[rows[r] + cols[k]] w[k, o] over begin <= k < end; 8 divides len(rows)."""
    width = w.shape[1]
    flat = w.reshape(-1)
    for o in range(0, width, WIDE):
        valid = min(width - o, WIDE)
        part = y[o:]
        if valid > NARROW:
            for r in range(0, rows.size, ROWS):
                tile2(x, rows, r, cols, begin, end, flat, o, width, part, out, valid, add)
        else:
            for r in range(0, rows.size, ROWS):
                tile1(x, rows, r, cols, begin, end, flat, o, width, part, out, valid, add)


@kernel(parallel=True)
def correlate(frames, pixels, taps, w, y):
    """y (n, p, o) from frames (n, hp*wp*c) and w (k, o).

    pixels (p, padded with its last entry to a multiple of 8) and taps (k) are offsets as above.
    """
    n, p, o = y.shape
    out = np.minimum(np.arange(pixels.size), p - 1) * o
    for s in prange(n):
        _product(frames[s], pixels, taps, 0, taps.size, w, y[s].reshape(-1), out, 0)


@kernel(parallel=True)
def weight_gradient(frames, pixels, taps, dy, dw):
    """dw (k, o) = sum over samples and pixels of frame[taps + pixels] dy; dy (n, p, o).

    taps is padded with its last entry to a multiple of 8, pixels is not. Each thread owns whole rows of
    dw and adds the samples in their order.
    """
    n, _, o = dy.shape
    k = dw.shape[0]
    groups = taps.size // ROWS
    parts = min(groups, 8)
    out = np.minimum(np.arange(taps.size), k - 1) * o
    flat = dw.reshape(-1)
    for part in prange(parts):
        first, last = groups * part // parts * ROWS, groups * (part + 1) // parts * ROWS
        own, to = taps[first:last], out[first:last]
        for s in range(n):
            for p in range(0, pixels.size, SPAN):
                end = min(p + SPAN, pixels.size)
                add = 1 if s > 0 or p > 0 else 0
                _product(frames[s], own, pixels, p, end, dy[s], flat, to, add)
