"""Convolution of sparse filters without unfolding: the plan of frames and taps for `kernels/sparse_conv.py`.

Equal to unfold, multiply, fold (`Weight.correlate`, the readable path that serves all other types and small
batches) up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from minisparse.kernels import sparse_conv
from minisparse.kernels.jit import COMPILED
from minisparse.kernels.lanes import LANES, parts
from minisparse.nn.param import Array
from minisparse.nn.window import Window
from minisparse.weights.pattern import CSRPattern

LEAST = LANES // 2  # samples: a block of 16 costs the same however few of them there are


@dataclass(frozen=True)
class Plan:
    """where (h w) place of each pixel in a frame, -1 if no tap reads it; taps (kh kw c) place of each tap.

    sizes: pixels of one channel's plane and of one of its rows, floats of a frame, rows and columns of y.
    """

    where: Array
    taps: Array
    sizes: tuple[int, int, int, int, int]
    output: tuple[int, int]


def available(values: Array, *images: Array) -> bool:
    """Whether the kernels serve these arrays: all float32, the compiler on, and enough samples."""
    ours = COMPILED and values.dtype == np.float32
    return ours and all(x.dtype == np.float32 and len(x) >= LEAST and x.size > 0 for x in images)


@lru_cache(maxsize=256)
def plan(window: Window, h: int, w: int, c: int) -> Plan:
    """Frames for images (h, w, c) and taps with the channel fastest."""
    output = window.output_size((h, w))
    ends, positions, phases, taps = [], [], [], []
    for axis, (length, out) in enumerate(zip((h, w), output, strict=True)):
        stride, padding = window.stride[axis], window.padding[axis]
        reach = np.arange(window.kernel[axis]) * window.dilation[axis]
        out = out if axis == 0 else -(-out // sparse_conv.WIDEST) * sparse_conv.WIDEST
        ends.append(out + int(reach[-1]) // stride)
        place = np.arange(length) + padding
        positions.append(place // stride)
        phases.append(place % stride)
        taps.append((reach % stride, reach // stride))
    plane = ends[0] * ends[1]

    def places(phase_y: Array, phase_x: Array, y: Array, x: Array) -> Array:
        phase = phase_y[:, None] * window.stride[1] + phase_x
        return phase * c * plane + y[:, None] * ends[1] + x

    where = places(phases[0], phases[1], positions[0], positions[1])
    read = (positions[0] < ends[0])[:, None] & (positions[1] < ends[1])
    tap = places(taps[0][0], taps[1][0], taps[0][1], taps[1][1])[..., None] + np.arange(c) * plane
    floats = window.stride[0] * window.stride[1] * c * plane * LANES
    sizes = (plane, ends[1], floats, *output)
    return Plan(np.where(read, where, -1).ravel(), tap.ravel(), sizes, output)


def forward(pattern: CSRPattern, values: Array, x: Array, window: Window) -> Array:
    """y (n, oh, ow, o) from x (n, h, w, c); values (nnz) in row order."""
    n, h, w, c = x.shape
    p = plan(window, h, w, c)
    y = np.empty((n, p.output[0] * p.output[1], pattern.shape[0]), dtype=np.float32)
    images = _flat(x)
    sparse_conv.correlate(pattern.indptr, p.taps[pattern.indices], values, images, p.where, p.sizes, y)
    return y.reshape(n, *p.output, -1)


def transposed(pattern: CSRPattern, values: Array, dy: Array, window: Window, size: tuple[int, int]) -> Array:
    """dx (n, h, w, c) from dy (n, oh, ow, o), (h, w) = size."""
    n = len(dy)
    c = pattern.shape[1] // (window.kernel[0] * window.kernel[1])
    p = plan(window, *size, c)
    dx = np.empty((n, size[0] * size[1], c), dtype=np.float32)
    sparse_conv.pull(pattern.indptr, p.taps[pattern.indices], values, _flat(dy), p.where, p.sizes, dx)
    return dx.reshape(n, *size, c)


def gradient(pattern: CSRPattern, x: Array, dy: Array, window: Window) -> Array:
    """(nnz) dW at the entries of the pattern, in row order, from x (n, h, w, c) and dy (n, oh, ow, o)."""
    _, h, w, c = x.shape
    p = plan(window, h, w, c)
    values = np.empty(pattern.nnz, dtype=np.float32)
    bounds = pattern.order().bounds(parts(pattern.nnz * dy.size // dy.shape[3]))
    taps = p.taps[pattern.indices]
    sparse_conv.gradient(pattern.indptr, taps, _flat(x), _flat(dy), p.where, p.sizes, values, bounds)
    return values


def _flat(x: Array) -> Array:
    """Images (n, h, w, c) as (n, h w, c), contiguous and writable."""
    x = np.require(x, requirements=["C", "ALIGNED", "WRITEABLE"])
    return x.reshape(len(x), x.shape[1] * x.shape[2], x.shape[3])
