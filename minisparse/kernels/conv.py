"""Direct convolution: forward, transposed and weight gradient, without im2col traffic.

Samples are copied into padded frames; each fits the second-level cache, and register tiles
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


@kernel
def _place_row(source, row, first):
    """row = source from element `first` on, 0 before and after it."""
    for k in range(first):
        row[k] = 0
    for k in range(source.size):
        row[first + k] = source[k]
    for k in range(first + source.size, row.size):
        row[k] = 0


@kernel
def _place_sample(x, frame, top, left, step_h, step_w):
    """One sample x (h, w, c) into its frame (hp, wp, c), as `place` says."""
    h, w, c = x.shape
    hp, wp = frame.shape[0], frame.shape[1]
    if step_w == 1 and left >= 0 and left + w <= wp:
        for a in range(hp):
            i, rest = divmod(a - top, step_h)
            if rest == 0 and 0 <= i < h:
                _place_row(x[i].reshape(-1), frame[a].reshape(-1), left * c)
            else:
                frame[a] = 0
        return
    frame[:] = 0
    for i in range(h):
        a = top + i * step_h
        if 0 <= a < hp:
            for j in range(w):
                b = left + j * step_w
                if 0 <= b < wp:
                    for k in range(c):
                        frame[a, b, k] = x[i, j, k]


@kernel(parallel=True)
def place(x, out, top, left, step_h, step_w):
    """Copy x (n, h, w, c) into frames out (n, hp, wp, c): pixel (i, j) goes to (top + i step_h, ...).

    x is contiguous. Pixels that fall outside the frame are dropped, places that receive none are 0.
    """
    for s in prange(x.shape[0]):
        _place_sample(x[s], out[s], top, left, step_h, step_w)


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
def correlate(x, size, corner, step, pixels, taps, w, y):
    """y (n, p, o) from x (n, h, w, c), contiguous, and w (k, o).

    size (hp, wp) of a frame; corner and step say where in it the pixels of x go, as for `place`. pixels (p,
    padded with its last entry to a multiple of 8) and taps (k) are offsets as above. A sample's frame is used
    as soon as it is filled, while it is in the cache.
    """
    n, p, o = y.shape
    out = np.minimum(np.arange(pixels.size), p - 1) * o
    for s in prange(n):
        frame = np.empty((size[0], size[1], x.shape[3]), x.dtype)
        _place_sample(x[s], frame, corner[0], corner[1], step[0], step[1])
        _product(frame.reshape(-1), pixels, taps, 0, taps.size, w, y[s].reshape(-1), out, 0)


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
