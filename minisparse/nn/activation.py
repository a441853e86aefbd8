"""Elementwise activations: one table, name -> (f, f', f''), and the layer that applies one.

    y = f(z),   dz = f'(z) dy,   Ry = f'(z) Rz,   R{dz} = f'(z) Rdy + f''(z) Rz dy        (1)

All functions accept complex arguments and are analytic where the real function is smooth, so that the
complex step differentiates them. At a kink the convention is f'(0) = 0 for ReLU and f'(0) = slope for
leaky ReLU, decided by the real part; f'' = 0 there. A NaN argument gives a NaN value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import erf

from minisparse.errors import check_name
from minisparse.kernels.gate import gate
from minisparse.kernels.jit import COMPILED, threads_for
from minisparse.nn.layer import Layer, Shape
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array

Function = Callable[[Array], Array]
Pull = Callable[[Array, Array], Array | None]  # None: not for these arrays
SLOPE = 0.01
FEW = 1 << 15


@dataclass(frozen=True)
class Elementwise:
    """f and its first two derivatives; `curved` says whether f'' is not identically zero.

    `homogeneous`: f(a z) = a f(z) for a > 0, and f is the identity on z >= 0, as path-sum methods need.
    """

    f: Function
    df: Function
    ddf: Function
    curved: bool = True
    homogeneous: bool = False
    fast_pull: Pull | None = None

    def pull(self, z: Array, dy: Array) -> Array:
        """f'(z) dy."""
        found = None if self.fast_pull is None else self.fast_pull(z, dy)
        return self.df(z) * dy if found is None else found


def _relu(z: Array) -> Array:
    return np.where(z.real <= 0, 0, z) if np.iscomplexobj(z) else np.maximum(z, 0)


def _step(z: Array) -> Array:
    return (z.real > 0).astype(z.dtype)


def _step_pull(z: Array, dy: Array) -> Array | None:
    """step(z) dy in one pass, where both are real, of one type, and lie alike and without gaps in memory.

    Not for few numbers: two passes over what stays in the cache take less time than to start the kernel.
    """
    if z.size < FEW:
        return None
    axes = sorted(range(z.ndim), key=lambda axis: -z.strides[axis])
    alike = z.shape == dy.shape and z.strides == dy.strides and z.dtype == dy.dtype
    dense = z.transpose(axes).flags.c_contiguous and z.dtype.kind == "f" and z.dtype.isnative
    if not (COMPILED and alike and dense):
        return None
    dz = np.empty_like(z)
    with threads_for(16 * 3 * z.size):
        gate(*(a.transpose(axes).reshape(-1) for a in (z, dy, dz)))
    return dz


def _leaky(z: Array) -> Array:
    return np.where(z.real <= 0, z.dtype.type(SLOPE) * z, z)


def _leaky_slope(z: Array) -> Array:
    return np.where(z.real <= 0, SLOPE, 1.0).astype(z.dtype)


def _sigmoid(z: Array) -> Array:
    half = z.dtype.type(0.5)
    return half * (np.tanh(half * z) + z.dtype.type(1))


def _softplus(z: Array) -> Array:
    positive = z.real > 0
    return np.where(positive, z, 0) + np.log1p(np.exp(np.where(positive, -z, z)))


def _dtanh(z: Array) -> Array:
    return 1 - np.tanh(z) ** 2


def _ddtanh(z: Array) -> Array:
    t = np.tanh(z)
    return -2 * t * (1 - t**2)


def _dsigmoid(z: Array) -> Array:
    s = _sigmoid(z)
    return s * (1 - s)


def _ddsigmoid(z: Array) -> Array:
    s = _sigmoid(z)
    return s * (1 - s) * (1 - 2 * s)


def _normal_cdf(z: Array) -> Array:
    return (0.5 * (1 + erf(z * np.sqrt(0.5).astype(z.dtype)))).astype(z.dtype)


def _normal_pdf(z: Array) -> Array:
    return np.exp(-0.5 * z * z) * z.dtype.type(1 / np.sqrt(2 * np.pi))


def _gelu(z: Array) -> Array:
    return z * _normal_cdf(z)


def _dgelu(z: Array) -> Array:
    return _normal_cdf(z) + z * _normal_pdf(z)


def _ddgelu(z: Array) -> Array:
    return (2 - z * z) * _normal_pdf(z)


TABLE: dict[str, Elementwise] = {
    "identity": Elementwise(np.copy, np.ones_like, np.zeros_like, curved=False, homogeneous=True),
    "relu": Elementwise(_relu, _step, np.zeros_like, False, True, _step_pull),
    "leaky-relu": Elementwise(_leaky, _leaky_slope, np.zeros_like, curved=False, homogeneous=True),
    "tanh": Elementwise(np.tanh, _dtanh, _ddtanh),
    "sigmoid": Elementwise(_sigmoid, _dsigmoid, _ddsigmoid),
    "gelu": Elementwise(_gelu, _dgelu, _ddgelu),
    "softplus": Elementwise(_softplus, _sigmoid, _dsigmoid),
}


class Activation(Layer):
    """y = f(x) with f from the table; any shape."""

    keeps_diagonal = True

    def __init__(self, name: str) -> None:
        """Raises UnknownNameError for a name that is not in the table."""
        self.name = check_name("activation", name, TABLE)
        self.function = TABLE[name]
        self.homogeneous = self.function.homogeneous
        self.curved = self.function.curved

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        self.x = x
        return self.function.f(x)

    def pull(self, dy: Array) -> Array:
        return self.function.pull(self.x, dy)

    def rforward(self, rx: Array) -> Array:
        self.rx = rx
        return self.function.df(self.x) * rx

    def rbackward(self, dy: Array, rdy: Array) -> tuple[Array, Array]:
        slope = self.function.df(self.x)
        return slope * dy, slope * rdy + self.function.ddf(self.x) * self.rx * dy

    def reach(self, signal: Array) -> Array:
        return signal

    def curve(self, dy: Array) -> Array:
        return self.function.ddf(self.x) * dy

    def pull_squares(self, h: Array) -> Array:
        return self.function.df(self.x) ** 2 * h

    def output_shape(self, shape: Shape) -> Shape:
        return shape
