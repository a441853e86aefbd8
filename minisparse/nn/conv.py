"""Conv2d: a Linear layer over the patches of an image.

With X = unfold(x) (n, p, kh*kw*c) and W (o, kh*kw*c), equations (1)-(4) of `linear.py` hold row by row;
fold, the transpose of unfold, brings cotangents of patches back to the image.
"""

from __future__ import annotations

import numpy as np

from minisparse.nn.layer import LinearLayer, Shape, require
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight
from minisparse.nn.window import Window


def channels_last(x: Array) -> Array:
    """(n, c, h, w) by index -> (n, h, w, c), contiguous; free if it already lies so in memory."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def channels_first(x: Array) -> Array:
    """(n, h, w, c) -> (n, c, h, w) by index, the memory left as it is."""
    return x.transpose(0, 3, 1, 2)


class Conv2d(LinearLayer):
    """x (n, c, h, w) -> (n, o, oh, ow), cross-correlation as everywhere in this field."""

    def __init__(self, weight: Weight, window: Window, bias: Array | None = None) -> None:
        """weight maps (kh * kw * c) to (o); bias (o,) or None. ShapeError if kernel sizes differ."""
        require(
            weight.geometry[2:] == window.kernel,
            f"Conv2d kernel: got window {window.kernel}, expected {weight.geometry[2:]} by the weight.",
        )
        self.weight = weight
        self.window = window
        self.bias = None if bias is None else Param(bias, decay=False)

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        self.x = channels_last(x)
        y = self.weight.correlate(self.x, self.window, mode)
        if self.bias is not None:
            y += self.bias.value
        return channels_first(y)

    def pull(self, dy: Array) -> Array:
        lead = dy.shape[:-3]
        dx = self._transposed(channels_last(dy.reshape(-1, *dy.shape[-3:])))
        return channels_first(dx).reshape(*lead, *channels_first(dx).shape[1:])

    def _transposed(self, dy: Array) -> Array:
        return self.weight.correlate_pull(dy, self.window, self.x.shape[1:3])

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        self.dy = channels_last(dy)
        self.weight.correlate_pullback(self.x, self.dy, self.window)
        if self.bias is not None:
            # samples first: a long contiguous sum, then a short one
            self.bias.grad[...] = self.dy.sum(axis=0).reshape(-1, self.dy.shape[-1]).sum(axis=0)
        return channels_first(self._transposed(self.dy)) if need_dx else None

    def rforward(self, rx: Array) -> Array:
        self.rx = channels_last(rx)
        ry = self.window.unfold(self.rx) @ self.weight.dense().T
        ry += self.rows @ self.weight.rdense().T
        if self.bias is not None:
            ry += self.bias.v()
        size = self.window.output_size(self.x.shape[1:3])
        return channels_first(ry.reshape(len(ry), *size, -1))

    def rbackward(self, dy: Array, rdy: Array) -> tuple[Array, Array]:
        self.dy = channels_last(dy)
        rows, rrows = self.rows, self.window.unfold(self.rx)
        g, rg = self.corows, self._positions_first(channels_last(rdy))
        flat = [a.reshape(-1, a.shape[-1]) for a in (rows, rrows, g, rg)]
        self.weight.rpullback(*flat)
        if self.bias is not None:
            self.bias.rgrad = flat[3].sum(axis=0)
        size = self.x.shape[1:3]
        dense = self.weight.dense()
        dx = self.window.fold(g @ dense, size)
        rdx = self.window.fold(rg @ dense + g @ self.weight.rdense(), size)
        return channels_first(dx), channels_first(rdx)

    def pull_squares(self, h: Array) -> Array:
        rows = self.as_rows(h) @ self.weight.dense() ** 2
        return channels_first(self.window.fold(rows, self.x.shape[1:3]))

    def output_shape(self, shape: Shape) -> Shape:
        channels = self.weight.geometry[1]
        require(
            len(shape) == 3 and shape[0] == channels,
            f"Conv2d input: got sample shape {shape}, expected ({channels}, h, w).",
        )
        return (self.weight.shape[0], *self.window.output_size((shape[1], shape[2])))

    def reach(self, signal: Array) -> Array:
        rows = self.window.unfold(np.sign(channels_last(signal)))
        size = self.window.output_size(signal.shape[2:])
        hits = np.sign(self.weight.connect(rows.reshape(-1, rows.shape[-1])))
        return channels_first(hits.reshape(len(rows), *size, -1))

    @property
    def by_blas(self) -> bool:
        return self.weight.convolves_by_blas

    def positions(self, shape: Shape) -> int:
        oh, ow = self.window.output_size((shape[1], shape[2]))
        return oh * ow

    def _positions_first(self, a: Array) -> Array:
        return a.reshape(len(a), a.shape[1] * a.shape[2], a.shape[3])

    def as_rows(self, dy: Array) -> Array:
        o, oh, ow = dy.shape[-3:]
        return np.moveaxis(dy, -3, -1).reshape(*dy.shape[:-3], oh * ow, o)

    @property
    def rows(self) -> Array:
        return self.window.unfold(self.x)

    @property
    def corows(self) -> Array:
        return self._positions_first(self.dy)
