"""BatchNorm1d and BatchNorm2d.

S. Ioffe, C. Szegedy. Batch Normalization. ICML 2015. arXiv:1502.03167

    training    xhat = (x - mean) / sqrt(var + eps),   y = gamma xhat + beta               (1)
                dx = gamma / sqrt(var + eps) (dy - mean(dy) - xhat mean(dy xhat))          (2)
    evaluation  the same with the running mean and variance, which do not depend on x:
                dx = gamma / sqrt(running_var + eps) dy                                    (3)

Means run over samples and positions of a channel; var divides by their number. The running variance is
updated with the unbiased estimate, running <- (1 - m) running + m batch, as frameworks do.
Second-order passes are defined in evaluation mode, where samples stay independent of each other.
"""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.random import Generator

from minisparse.errors import UsageError
from minisparse.kernels.jit import threads_for
from minisparse.kernels.norm import affine, batch_moments, blocks, pair_sums, pull_batch
from minisparse.nn.init import Initializer
from minisparse.nn.layer import Flow, Layer, Shape, require
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array, Param


class BatchNorm(Layer):
    """Normalise each channel (axis 1) of (n, c) or (n, c, h, w)."""

    keeps_diagonal = True  # in evaluation mode

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        if isinstance(channels, bool) or not isinstance(channels, int | np.integer) or channels < 1:
            raise UsageError(f"BatchNorm channels: got {channels!r}, expected a whole number >= 1.")
        for what, value, most in (("momentum", momentum, 1.0), ("eps", eps, 1.0)):
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= most:
                raise UsageError(f"BatchNorm {what}: got {value!r}, expected 0 <= {what} <= {most}.")
        self.gamma = Param(np.ones(channels, dtype=np.float32), decay=False)
        self.beta = Param(np.zeros(channels, dtype=np.float32), decay=False)
        self.running_mean = np.zeros(channels, dtype=np.float32)
        self.running_var = np.ones(channels, dtype=np.float32)
        self.momentum, self.eps = momentum, eps

    def params(self) -> dict[str, Param]:
        return {"weight": self.gamma, "bias": self.beta}

    def buffers(self) -> dict[str, Array]:
        return {"running_mean": self.running_mean, "running_var": self.running_var}

    def reset(self, init: Initializer, rng: Generator) -> None:
        self.gamma.value[...] = self.running_var[...] = 1
        self.beta.value[...] = self.running_mean[...] = 0

    def _last(self, a: Array) -> Array:
        """Channel axis moved last; positions stay where they are in memory."""
        return np.moveaxis(a, 1, -1)

    def _first(self, a: Array) -> Array:
        return np.moveaxis(a, -1, 1)

    def _rows(self, a: Array) -> Array:
        """(n, c, ...) as contiguous rows (r, c)."""
        return np.ascontiguousarray(self._last(a)).reshape(-1, a.shape[1])

    def _shaped(self, rows: Array) -> Array:
        """Rows (r, c) back in the shape of the last input."""
        return self._first(rows.reshape(self.shape))

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        self.shape = (x.shape[0], *x.shape[2:], x.shape[1])
        self.x = self._rows(x)
        self.training = mode.training
        if mode.training:
            self.mean, var = self._batch_statistics(self.x)
        else:
            self.mean, var = self.running_mean.astype(x.dtype), self.running_var.astype(x.dtype)
        self.inv = 1 / np.sqrt(var + self.eps)
        scale = self.gamma.value * self.inv
        y = np.empty_like(self.x)
        with threads_for(16 * y.size):
            affine(self.x, scale, self.beta.value - self.mean * scale, y)
        return self._shaped(y)

    def _batch_statistics(self, rows: Array) -> tuple[Array, Array]:
        count = len(rows)
        if count < 2:
            raise UsageError(
                "BatchNorm in training: got 1 value per channel, expected at least 2. "
                "Use a larger batch or evaluation mode."
            )
        with threads_for(16 * rows.size):
            mean, var = batch_moments(rows)
        m = self.momentum
        self.running_mean[...] = (1 - m) * self.running_mean + m * mean.real
        self.running_var[...] = (1 - m) * self.running_var + m * var.real * count / (count - 1)
        return mean, var

    @property
    def xhat(self) -> Array:
        """Normalised input of the last forward pass, channel last."""
        return ((self.x - self.mean) * self.inv).reshape(self.shape)

    def pull(self, dy: Array) -> Array:
        scale = self.gamma.value * self.inv
        features = len(self.shape) - 1
        g = np.moveaxis(dy, -features, -1)
        if self.training:
            axes = tuple(range(g.ndim - 1 - features, g.ndim - 1))
            xhat = self.xhat
            along = (g * xhat).mean(axis=axes, keepdims=True)
            g = g - g.mean(axis=axes, keepdims=True) - xhat * along
        return np.moveaxis(scale * g, -1, -features)

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        g = self._rows(dy)
        rows = len(g)
        sums = np.empty((blocks(rows), 2, g.shape[1]), dtype=g.dtype)
        with threads_for(16 * g.size):
            pair_sums(self.x, g, self.mean, self.inv, sums)
        self.beta.grad[...], self.gamma.grad[...] = sums.sum(axis=0)
        if not need_dx:
            return None
        # in evaluation mode mean and variance are constants: their terms of equation (2) vanish
        share = g.dtype.type(1 / rows if self.training else 0)
        dx = np.empty_like(g)
        scale = self.gamma.value * self.inv
        along = (self.beta.grad * share, self.gamma.grad * share)
        with threads_for(16 * g.size):
            pull_batch(self.x, g, self.mean, self.inv, scale, *along, dx)
        return self._shaped(dx)

    def rforward(self, rx: Array) -> Array:
        if self.training:
            raise UsageError(
                "BatchNorm second-order pass: got training mode, expected evaluation mode, "
                "where samples do not depend on each other."
            )
        self.rxhat = self._last(rx) * self.inv
        ry = self.gamma.value * self.rxhat + self.gamma.v() * self.xhat + self.beta.v()
        return self._first(ry)

    def rbackward(self, dy: Array, rdy: Array) -> tuple[Array, Array]:
        g, rg = self._last(dy), self._last(rdy)
        axes = tuple(range(g.ndim - 1))
        self.gamma.rgrad = (rg * self.xhat + g * self.rxhat).sum(axis=axes)
        self.beta.rgrad = rg.sum(axis=axes)
        rdx = (self.gamma.value * rg + self.gamma.v() * g) * self.inv
        return self.pull(dy), self._first(rdx)

    def route(self, units: Array, shape: Shape, flow: Flow) -> Array:
        flow.note("norms", self, units)
        return units

    def cut(self, inputs: Array, outputs: Array) -> None:
        for p in (self.gamma, self.beta):
            p.set(np.delete(p.value, outputs))
        self.running_mean = np.delete(self.running_mean, outputs)
        self.running_var = np.delete(self.running_var, outputs)
        self.release()

    def reach(self, signal: Array) -> Array:
        return self._first(self._last(signal) * (self.gamma.value != 0))

    def pull_squares(self, h: Array) -> Array:
        scale = (self.gamma.value * self.inv) ** 2
        return self._first(scale * self._last(h))

    def _sum_positions(self, g: Array) -> Array:
        """(..., n, [h, w,] c) -> (..., n, c)."""
        return g.sum(axis=tuple(range(g.ndim - len(self.shape) + 1, g.ndim - 1)))

    def param_pull(self, dy: Array) -> dict[str, Array]:
        g = np.moveaxis(dy, 1 - len(self.shape), -1)
        return {"weight": self._sum_positions(g * self.xhat), "bias": self._sum_positions(g)}

    def param_squares(self, s: Array, sign: Array | None = None) -> dict[str, Array]:
        weigh = np.ones((1, 1, 1), dtype=s.dtype) if sign is None else sign[..., None]
        return {k: (weigh * p**2).sum(axis=(0, 1)) for k, p in self.param_pull(s).items()}

    def param_diagonal(self, h: Array) -> dict[str, Array]:
        g = self._last(h)
        axes = tuple(range(g.ndim - 1))
        return {"weight": (g * self.xhat**2).sum(axis=axes), "bias": g.sum(axis=axes)}

    def release(self) -> None:
        for name in ("x", "rxhat"):
            self.__dict__.pop(name, None)

    def _check(self, shape: Shape, axes: int) -> Shape:
        channels = len(self.gamma.value)
        require(
            len(shape) == axes and shape[0] == channels,
            f"BatchNorm input: got sample shape {shape}, expected {channels} channels and {axes} axes.",
        )
        return shape


class BatchNorm1d(BatchNorm):
    """Over samples of (n, c)."""

    def output_shape(self, shape: Shape) -> Shape:
        return self._check(shape, 1)


class BatchNorm2d(BatchNorm):
    """Over samples and positions of (n, c, h, w)."""

    def output_shape(self, shape: Shape) -> Shape:
        return self._check(shape, 3)
