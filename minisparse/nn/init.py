"""Initialisers: Kaiming, Xavier, orthogonal, and their sparsity-aware forms.

    kaiming     std = gain / sqrt(fan_in)                 K. He et al., ICCV 2015, arXiv:1502.01852   (1)
    xavier      std = gain sqrt(2 / (fan_in + fan_out))   X. Glorot, Y. Bengio, AISTATS 2010          (2)
    orthogonal  rows or columns of gain Q, Q^T Q = I      A. Saxe et al., ICLR 2014, arXiv:1312.6120  (3)
    sparse      std_i = gain / sqrt(fan_in_i), fan_in_i the number of present inputs of unit i        (4)
                U. Evci et al., Gradient Flow in Sparse Neural Networks, AAAI 2022, arXiv:2010.03533

Each is a function (geometry, rng) -> float64 array (out, in); geometry = (out, channels, kh, kw).
Gain sqrt(2) belongs to ReLU.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from minisparse.nn.param import Array

Geometry = tuple[int, int, int, int]
Initializer = Callable[[Geometry, Generator], Array]
RELU_GAIN = float(np.sqrt(2.0))


def fans(geometry: Geometry) -> tuple[int, int]:
    """(fan_in, fan_out): connections into one output position and out of one input position."""
    out, channels, kh, kw = geometry
    return channels * kh * kw, out * kh * kw


def _shape(geometry: Geometry) -> tuple[int, int]:
    return geometry[0], fans(geometry)[0]


def _uniform(std: float, geometry: Geometry, rng: Generator) -> Array:
    bound = np.sqrt(3.0) * std
    return rng.uniform(-bound, bound, _shape(geometry))


def kaiming_normal(geometry: Geometry, rng: Generator, gain: float = RELU_GAIN) -> Array:
    """Equation (1), Gaussian."""
    return gain / np.sqrt(fans(geometry)[0]) * rng.standard_normal(_shape(geometry))


def kaiming_uniform(geometry: Geometry, rng: Generator, gain: float = RELU_GAIN) -> Array:
    """Equation (1), uniform with the same standard deviation."""
    return _uniform(gain / np.sqrt(fans(geometry)[0]), geometry, rng)


def xavier_normal(geometry: Geometry, rng: Generator, gain: float = 1.0) -> Array:
    """Equation (2), Gaussian."""
    return gain * np.sqrt(2 / sum(fans(geometry))) * rng.standard_normal(_shape(geometry))


def xavier_uniform(geometry: Geometry, rng: Generator, gain: float = 1.0) -> Array:
    """Equation (2), uniform with the same standard deviation."""
    return _uniform(gain * np.sqrt(2 / sum(fans(geometry))), geometry, rng)


def orthogonal(geometry: Geometry, rng: Generator, gain: float = RELU_GAIN) -> Array:
    """Equation (3): Haar-distributed, the sign of R's diagonal fixed."""
    out, fan_in = _shape(geometry)
    q, r = np.linalg.qr(rng.standard_normal((max(out, fan_in), min(out, fan_in))))
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return gain * (q if out >= fan_in else q.T)


def sparse_kaiming(mask: Array, rng: Generator, gain: float = RELU_GAIN) -> Array:
    """Equation (4): Kaiming's variance for each unit's own fan-in; absent entries are 0."""
    fan_in = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return gain / np.sqrt(fan_in) * rng.standard_normal(mask.shape) * mask


INITIALIZERS: dict[str, Initializer] = {
    "kaiming-normal": kaiming_normal,
    "kaiming-uniform": kaiming_uniform,
    "xavier-normal": xavier_normal,
    "xavier-uniform": xavier_uniform,
    "orthogonal": orthogonal,
}
