"""Direct convolution of a dense matrix: offsets for the kernels of `kernels/conv.py`.

The same three products as unfold, multiply, fold (`Weight.correlate`, the readable path they are tested
against), without ever writing the patches down. float32 only.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minisparse.kernels.conv import correlate, place, weight_gradient
from minisparse.kernels.jit import COMPILED, threads_for
from minisparse.kernels.vector import ROWS
from minisparse.nn.param import Array
from minisparse.nn.window import Window


def available(*arrays: Array) -> bool:
    """Whether the kernels serve these arrays: all float32, the compiler on, nothing empty."""
    return COMPILED and all(a.dtype == np.float32 and a.size > 0 for a in arrays)


def _offsets(rows: int, cols: int, step: tuple[int, int], width: int, c: int) -> Array:
    """(rows, cols) grid of offsets into a frame `width` pixels wide with c channels."""
    return (np.arange(rows)[:, None] * step[0] * width + np.arange(cols) * step[1]) * c


def _eights(offsets: Array) -> Array:
    """Padded with the last entry to a multiple of a tile's rows."""
    return np.concatenate([offsets, np.repeat(offsets[-1:], -offsets.size % ROWS)])


@lru_cache(maxsize=256)
def _plan(window: Window, h: int, w: int, c: int) -> tuple[tuple[int, int], Array, Array]:
    """Frame size, offsets of output pixels and of taps for samples (h, w, c)."""
    oh, ow = window.output_size((h, w))
    wide = w + 2 * window.padding[1]
    pixels = _offsets(oh, ow, window.stride, wide, c).ravel()
    taps = _offsets(*window.kernel, window.dilation, wide, c)[..., None] + np.arange(c)
    return (h + 2 * window.padding[0], wide), pixels, taps.ravel()


@lru_cache(maxsize=256)
def _transposed_plan(window: Window, h: int, w: int, o: int) -> tuple[tuple[int, ...], Array, Array]:
    """Frame size and shift, pixel and tap offsets of the transposed product; frames hold dy (.., o).

    dx[y] = sum_a dy_up[y + padding - a dilation], dy_up being dy with stride - 1 zeros between pixels;
    the frame starts at index -shift, shift = dilation (kernel - 1) - padding.
    """
    reach = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
    shift = [r - p for r, p in zip(reach, window.padding, strict=True)]
    wide = w + reach[1]
    pixels = _offsets(h, w, (1, 1), wide, o).ravel()
    ky, kx = window.kernel
    back = _offsets(ky, kx, window.dilation, wide, o)[::-1, ::-1]
    taps = back[..., None] + np.arange(o)
    return (h + reach[0], wide, *shift), pixels, taps.ravel()


def forward(x: Array, weight: Array, window: Window) -> Array:
    """y (n, oh, ow, o) from x (n, h, w, c) and weight (o, kh*kw*c)."""
    n, h, w, c = x.shape
    size, pixels, taps = _plan(window, h, w, c)
    y = np.empty((n, pixels.size, len(weight)), dtype=np.float32)
    x = np.ascontiguousarray(x)
    with threads_for(y.size * taps.size):
        correlate(x, size, window.padding, (1, 1), _eights(pixels), taps, np.ascontiguousarray(weight.T), y)
    return y.reshape(n, *window.output_size((h, w)), -1)


def transposed(dy: Array, weight: Array, window: Window, size: tuple[int, int]) -> Array:
    """dx (n, h, w, c) from dy (n, oh, ow, o), (h, w) = size."""
    n, _, _, o = dy.shape
    kh, kw = window.kernel
    (hp, wp, top, left), pixels, taps = _transposed_plan(window, *size, o)
    flipped = weight.reshape(o, kh * kw, -1).transpose(1, 0, 2)
    c = flipped.shape[2]
    dx = np.empty((n, pixels.size, c), dtype=np.float32)
    dy = np.ascontiguousarray(dy)
    with threads_for(dx.size * taps.size):
        frame = ((hp, wp), (top, left), window.stride)
        correlate(dy, *frame, _eights(pixels), taps, np.ascontiguousarray(flipped).reshape(-1, c), dx)
    return dx.reshape(n, *size, c)


def gradient(x: Array, dy: Array, window: Window) -> Array:
    """dW (o, kh*kw*c) from x (n, h, w, c) and dy (n, oh, ow, o)."""
    n, h, w, c = x.shape
    o = dy.shape[3]
    size, pixels, taps = _plan(window, h, w, c)
    dw = np.empty((taps.size, o), dtype=np.float32)
    cotangent = np.ascontiguousarray(dy).reshape(n, -1, o)
    frames = np.empty((n, *size, c), dtype=np.float32)
    with threads_for(16 * frames.size):
        place(np.ascontiguousarray(x), frames, *window.padding, 1, 1)
    with threads_for(dy.size * taps.size):
        weight_gradient(frames.reshape(n, -1), pixels, _eights(taps), cotangent, dw)
    return dw.T
