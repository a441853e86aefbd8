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

import numpy as np

from minisparse.errors import UsageError
from minisparse.nn.layer import Layer, Shape, require
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array, Param


class BatchNorm(Layer):
    """Normalise each channel (axis 1) of (n, c) or (n, c, h, w)."""

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        self.gamma = Param(np.ones(channels, dtype=np.float32), decay=False)
        self.beta = Param(np.zeros(channels, dtype=np.float32), decay=False)
        self.running_mean = np.zeros(channels, dtype=np.float32)
        self.running_var = np.ones(channels, dtype=np.float32)
        self.momentum, self.eps = momentum, eps

    def params(self) -> dict[str, Param]:
        return {"weight": self.gamma, "bias": self.beta}

    def buffers(self) -> dict[str, Array]:
        return {"running_mean": self.running_mean, "running_var": self.running_var}

    def _last(self, a: Array) -> Array:
        """Channel axis moved last; positions stay where they are in memory."""
        return np.moveaxis(a, 1, -1)

    def _first(self, a: Array) -> Array:
        return np.moveaxis(a, -1, 1)

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        last = self._last(x)
        self.training = mode.training
        if mode.training:
            mean, var = self._batch_statistics(last)
        else:
            mean, var = self.running_mean, self.running_var
        self.inv = 1 / np.sqrt(var + self.eps)
        self.xhat = (last - mean) * self.inv
        return self._first(self.gamma.value * self.xhat + self.beta.value)

    def _batch_statistics(self, last: Array) -> tuple[Array, Array]:
        axes = tuple(range(last.ndim - 1))
        count = last.size // last.shape[-1]
        if count < 2:
            raise UsageError(
                "BatchNorm in training: got 1 value per channel, expected at least 2. "
                "Use a larger batch or evaluation mode."
            )
        mean = last.mean(axis=axes)
        var = ((last - mean) ** 2).mean(axis=axes)
        m = self.momentum
        self.running_mean[...] = (1 - m) * self.running_mean + m * mean.real
        self.running_var[...] = (1 - m) * self.running_var + m * var.real * count / (count - 1)
        return mean, var

    def pull(self, dy: Array) -> Array:
        scale = self.gamma.value * self.inv
        features = self.xhat.ndim - 1
        g = np.moveaxis(dy, -features, -1)
        if self.training:
            axes = tuple(range(g.ndim - 1 - features, g.ndim - 1))
            g = g - g.mean(axis=axes, keepdims=True)
            g = g - self.xhat * (g * self.xhat).mean(axis=axes, keepdims=True)
        return np.moveaxis(scale * g, -1, -features)

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        g = self._last(dy)
        axes = tuple(range(g.ndim - 1))
        self.gamma.grad[...] = (g * self.xhat).sum(axis=axes)
        self.beta.grad[...] = g.sum(axis=axes)
        return self.pull(dy) if need_dx else None

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

    def reach(self, signal: Array) -> Array:
        return self._first(self._last(signal) * (self.gamma.value != 0))

    def release(self) -> None:
        for name in ("xhat", "rxhat"):
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
