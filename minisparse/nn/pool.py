"""Pooling and reshaping: MaxPool2d, AvgPool2d, GlobalAvgPool, Flatten, Dropout.

All are linear once the forward point is fixed, so R{y} is the layer applied to R{x} at that point and
R{dx} is its transpose applied to R{dy}.
"""

from __future__ import annotations

from abc import abstractmethod
from math import prod
from numbers import Real

import numpy as np

from minisparse.errors import UsageError
from minisparse.kernels.unfold import max_pool, scatter_pool
from minisparse.nn.conv import channels_first, channels_last
from minisparse.nn.layer import Flow, Layer, Shape, require
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array
from minisparse.nn.window import Window


class PointwiseLinear(Layer):
    """A layer without parameters whose Jacobian at the forward point is a fixed linear map."""

    @abstractmethod
    def push(self, rx: Array) -> Array:
        """Jacobian at the last forward point times rx (n, *in) -> (n, *out)."""

    def pull_squares(self, h: Array) -> Array:
        """The transpose itself where the Jacobian consists of zeros and ones."""
        return self.pull(h)

    def rforward(self, rx: Array) -> Array:
        return self.push(rx)

    def rbackward(self, dy: Array, rdy: Array) -> tuple[Array, Array]:
        return self.pull(dy), self.pull(rdy)


def _merge(dy: Array, features: int) -> Array:
    """Leading axes (..., n) of dy folded into one sample axis, channels-last."""
    return channels_last(dy.reshape(-1, *dy.shape[-features:]))


class MaxPool2d(PointwiseLinear):
    """Largest value per window; at a tie the first place (row by row) takes the gradient."""

    def __init__(self, window: Window) -> None:
        half = [k // 2 for k in window.kernel]
        require(
            all(p <= h for p, h in zip(window.padding, half, strict=True)),
            f"MaxPool2d padding: got {window.padding}, expected at most half the kernel {tuple(half)}.",
        )
        self.window = window

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        last = channels_last(x)
        n, h, w, c = last.shape
        self.size = (h, w)
        out = np.empty((n, *self.output_shape(x.shape[1:])[1:], c), dtype=x.dtype)
        self.where = np.empty(out.shape, dtype=np.int32)
        max_pool(last, self.window.array, out, self.where)
        return channels_first(out)

    def pull(self, dy: Array) -> Array:
        lead, (h, w) = dy.shape[:-3], self.size
        last = _merge(dy, 3)
        m, oh, ow, c = last.shape
        where: Array = self.where
        if m != len(where):
            where = np.broadcast_to(where, (m // len(where), *where.shape)).reshape(m, oh, ow, c)
        out = np.empty((m, h * w, c), dtype=dy.dtype)
        scatter_pool(last.reshape(m, oh * ow, c), where.reshape(m, oh * ow, c), out)
        dx = channels_first(out.reshape(m, h, w, c))
        return dx.reshape(*lead, *dx.shape[1:])

    def push(self, rx: Array) -> Array:
        last = channels_last(rx)
        n, h, w, c = last.shape
        picked = np.take_along_axis(
            last.reshape(n, h * w, c), self.where.reshape(n, -1, c).astype(np.intp), axis=1
        )
        return channels_first(picked.reshape(self.where.shape))

    def output_shape(self, shape: Shape) -> Shape:
        require(len(shape) == 3, f"MaxPool2d input: got sample shape {shape}, expected (c, h, w).")
        size = (shape[1], shape[2])
        require(
            self.window.always_inside(size),
            f"MaxPool2d input: got an image of {size}, expected one that every place of {self.window} "
            "meets: a window that lies in the padding has no largest value.",
        )
        return (shape[0], *self.window.output_size(size))


class AvgPool2d(PointwiseLinear):
    """Mean over each window; padding counts as zeros in the mean (the count is always kh * kw)."""

    fixed_jacobian = True

    def __init__(self, window: Window) -> None:
        self.window = window
        self.area = window.kernel[0] * window.kernel[1]

    def pull_squares(self, h: Array) -> Array:
        return self.pull(h) / self.area

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        self.size = x.shape[-2:]
        return self.push(x)

    def push(self, rx: Array) -> Array:
        n, c, h, w = rx.shape
        rows = self.window.unfold(channels_last(rx))
        y = rows.reshape(n, rows.shape[1], self.area, c).sum(axis=2) / self.area
        return channels_first(y.reshape(n, *self.window.output_size((h, w)), c))

    def pull(self, dy: Array) -> Array:
        lead = dy.shape[:-3]
        last = _merge(dy, 3) / self.area
        m, oh, ow, c = last.shape
        rows = np.repeat(last.reshape(m, oh * ow, 1, c), self.area, axis=2)
        dx = channels_first(self.window.fold(rows.reshape(m, oh * ow, self.area * c), self.size))
        return dx.reshape(*lead, *dx.shape[1:])

    def output_shape(self, shape: Shape) -> Shape:
        require(len(shape) == 3, f"AvgPool2d input: got sample shape {shape}, expected (c, h, w).")
        return (shape[0], *self.window.output_size((shape[1], shape[2])))


class GlobalAvgPool(PointwiseLinear):
    """Mean over all positions: (n, c, h, w) -> (n, c)."""

    fixed_jacobian = True

    def pull_squares(self, h: Array) -> Array:
        return self.pull(h) / (self.size[0] * self.size[1])

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        self.size = x.shape[-2:]
        return self.push(x)

    def push(self, rx: Array) -> Array:
        return rx.mean(axis=(2, 3))

    def pull(self, dy: Array) -> Array:
        h, w = self.size
        return np.broadcast_to((dy / (h * w))[..., None, None], (*dy.shape, h, w))

    def output_shape(self, shape: Shape) -> Shape:
        require(len(shape) == 3, f"GlobalAvgPool input: got {shape}, expected (c, h, w).")
        return shape[:1]


class Flatten(PointwiseLinear):
    """(n, *any) -> (n, product), last index fastest: (channel, row, column) for images."""

    keeps_diagonal = True

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        self.shape = x.shape[1:]
        return self.push(x)

    def push(self, rx: Array) -> Array:
        return rx.reshape(len(rx), *self.output_shape(rx.shape[1:]))

    def pull(self, dy: Array) -> Array:
        return dy.reshape(*dy.shape[:-1], *self.shape)

    def route(self, units: Array, shape: Shape, flow: Flow) -> Array:
        return np.repeat(units, prod(shape[1:]))

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)


class Dropout(PointwiseLinear):
    """In training each value is kept with probability 1 - rate and scaled by 1 / (1 - rate)."""

    keeps_diagonal = True

    def __init__(self, rate: float) -> None:
        """Raises UsageError unless 0 <= rate < 1."""
        if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= rate < 1:
            raise UsageError(f"dropout rate: got {rate!r}, expected 0 <= rate < 1.")
        self.rate: float = rate
        self.scale: Array | None = None

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        if not mode.training or self.rate == 0:
            self.scale = None
            return x
        if mode.rng is None:
            raise UsageError("dropout: got a training pass without a generator, expected Mode(rng=...).")
        kept = mode.rng.random(x.shape, dtype=np.float32) >= self.rate
        self.scale = kept.astype(x.real.dtype) / (1 - self.rate)
        return x * self.scale

    def push(self, rx: Array) -> Array:
        return rx if self.scale is None else rx * self.scale

    def pull(self, dy: Array) -> Array:
        return dy if self.scale is None else dy * self.scale

    def release(self) -> None:
        self.scale = None

    def pull_squares(self, h: Array) -> Array:
        return self.pull(self.pull(h))

    def output_shape(self, shape: Shape) -> Shape:
        return shape
