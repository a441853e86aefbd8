"""Sliding windows as plain loops, one output number at a time: slow, and plainly what the words say.

Images are (n, c, h, w), filters (out, c, kh, kw). `window` has fields kernel, stride, padding and
dilation, each (height, width). Nothing here uses the package under test.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray
Place = tuple[int, int]


def out_size(length: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Number of places along one axis, counted and not computed."""
    places = 0
    start = -padding
    while start + dilation * (kernel - 1) <= length - 1 + padding:
        places += 1
        start += stride
    return places


def sizes(shape: Place, window: Any) -> Place:
    """(oh, ow) for an image of shape (h, w)."""
    parts = (window.kernel, window.stride, window.padding, window.dilation)
    first = [out_size(shape[k], *(p[k] for p in parts)) for k in (0, 1)]
    return first[0], first[1]


def taps(window: Any, place: Place) -> Iterator[tuple[Place, Place]]:
    """((a, b), (y, x)) of every tap of the window at output place (i, j), padding included."""
    for a in range(window.kernel[0]):
        for b in range(window.kernel[1]):
            y = place[0] * window.stride[0] - window.padding[0] + a * window.dilation[0]
            x = place[1] * window.stride[1] - window.padding[1] + b * window.dilation[1]
            yield (a, b), (y, x)


def places(shape: tuple[int, ...], window: Any) -> Iterator[tuple[int, Place, Place]]:
    """(flat place, (i, j), (oh, ow)) over all output places of an image batch of this shape."""
    oh, ow = sizes((shape[-2], shape[-1]), window)
    for i in range(oh):
        for j in range(ow):
            yield i * ow + j, (i, j), (oh, ow)


def inside(shape: tuple[int, ...], place: Place) -> bool:
    """Whether (y, x) is a pixel of an image batch of this shape."""
    return 0 <= place[0] < shape[-2] and 0 <= place[1] < shape[-1]


def unfold(x: Array, window: Any) -> Array:
    """Patches as rows (n, p, kh * kw * c), the channel fastest; zeros outside the image."""
    n, c = x.shape[:2]
    oh, ow = sizes(x.shape[2:], window)
    rows = np.zeros((n, oh * ow, window.kernel[0] * window.kernel[1] * c), dtype=x.dtype)
    for p, place, _ in places(x.shape, window):
        for (a, b), (y, z) in taps(window, place):
            for k in range(c):
                if inside(x.shape, (y, z)):
                    rows[:, p, (a * window.kernel[1] + b) * c + k] = x[:, k, y, z]
    return rows


def fold(rows: Array, shape: tuple[int, ...], window: Any) -> Array:
    """Add each entry of rows (n, p, kh * kw * c) to the pixel it was read from; shape (n, c, h, w)."""
    out = np.zeros(shape, dtype=rows.dtype)
    for p, place, _ in places(shape, window):
        for (a, b), (y, z) in taps(window, place):
            for k in range(shape[1]):
                if inside(shape, (y, z)):
                    out[:, k, y, z] += rows[:, p, (a * window.kernel[1] + b) * shape[1] + k]
    return out


def conv(x: Array, filters: Array, bias: Array, window: Any) -> Array:
    """y[o,i,j] = b[o] + sum over c and taps of filters[o,c,a,b] x[c,y,x]."""
    y = np.zeros((len(x), len(filters), *sizes(x.shape[2:], window)), dtype=np.result_type(x, filters))
    y += bias[:, None, None]
    for _, (i, j), _ in places(x.shape, window):
        for (a, b), (u, v) in taps(window, (i, j)):
            if inside(x.shape, (u, v)):
                for o in range(len(filters)):
                    for k in range(x.shape[1]):
                        y[:, o, i, j] += filters[o, k, a, b] * x[:, k, u, v]
    return y


def conv_backward(x: Array, filters: Array, dy: Array, window: Any) -> tuple[Array, Array, Array]:
    """(dx, dfilters, dbias): each product of `conv` seen from its two factors."""
    dx, df = np.zeros_like(x), np.zeros_like(filters)
    for _, (i, j), _ in places(x.shape, window):
        for (a, b), (u, v) in taps(window, (i, j)):
            if inside(x.shape, (u, v)):
                for o in range(len(filters)):
                    for k in range(x.shape[1]):
                        dx[:, k, u, v] += filters[o, k, a, b] * dy[:, o, i, j]
                        df[o, k, a, b] += (dy[:, o, i, j] * x[:, k, u, v]).sum()
    return dx, df, dy.sum(axis=(0, 2, 3))


def max_pool(x: Array, window: Any) -> tuple[Array, Array]:
    """(y, where): largest value of each window and its flat place; the first of equal ones."""
    n, c, _, w = x.shape
    y = np.full((n, c, *sizes(x.shape[2:], window)), -np.inf, dtype=x.dtype)
    where = np.full(y.shape, -1)
    for _, (i, j), _ in places(x.shape, window):
        for _, (u, v) in taps(window, (i, j)):
            if inside(x.shape, (u, v)):
                for at in np.ndindex(n, c):
                    value, spot = x[(*at, u, v)], (*at, i, j)
                    better = value > y[spot] or (np.isnan(value) and not np.isnan(y[spot]))
                    if where[spot] < 0 or better:
                        y[spot], where[spot] = value, u * w + v
    return y, where


def max_pool_backward(dy: Array, where: Array, shape: tuple[int, ...]) -> Array:
    """dy brought back to the pixels that won; shape (n, c, h, w)."""
    dx = np.zeros((shape[0], shape[1], shape[2] * shape[3]), dtype=dy.dtype)
    for n, c, i, j in np.ndindex(*dy.shape):
        dx[n, c, where[n, c, i, j]] += dy[n, c, i, j]
    return dx.reshape(shape)


def avg_pool(x: Array, window: Any) -> Array:
    """Sum over the pixels of each window, divided by kh * kw."""
    y = np.zeros((*x.shape[:2], *sizes(x.shape[2:], window)), dtype=x.dtype)
    for _, (i, j), _ in places(x.shape, window):
        for _, (u, v) in taps(window, (i, j)):
            if inside(x.shape, (u, v)):
                y[:, :, i, j] += x[:, :, u, v]
    return y / (window.kernel[0] * window.kernel[1])


def avg_pool_backward(dy: Array, shape: tuple[int, ...], window: Any) -> Array:
    """Each window's dy shared out equally; shape (n, c, h, w)."""
    dx = np.zeros(shape, dtype=dy.dtype)
    for _, (i, j), _ in places(shape, window):
        for _, (u, v) in taps(window, (i, j)):
            if inside(shape, (u, v)):
                dx[:, :, u, v] += dy[:, :, i, j] / (window.kernel[0] * window.kernel[1])
    return dx
