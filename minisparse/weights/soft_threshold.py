"""Soft threshold reparametrisation: W = sign(theta) max(|theta| - g(s), 0) with one learned s per layer.

A. Kusupati, V. Ramanujan, R. Somani, M. Wortsman, P. Jain, S. Kakade, A. Farhadi. Soft Threshold Weight
Reparameterization for Learnable Sparsity. ICML 2020. arXiv:2002.03231

    W = sign(theta) max(|theta| - g(s), 0),       g(s) = 1 / (1 + exp(-s))                  (1)
    dL/dtheta = dL/dW 1[W != 0]                                                            (2)
    dL/ds = -g'(s) sum dL/dW sign(theta) 1[W != 0],    g' = g (1 - g)                      (3)

Where the threshold passes an entry by, it is 0 and gets no gradient; weight decay still shrinks it, and a
threshold that falls again brings it back.
"""

from __future__ import annotations

import numpy as np

from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight
from minisparse.weights.reparametrised import Reparametrised, logistic


def soft_threshold(theta: Array, threshold: Array | float) -> Array:
    """sign(theta) max(|theta| - threshold, 0); complex arguments are continued from the real axis."""
    sign = np.sign(theta.real)
    rest = sign * theta - threshold
    return np.where(rest.real > 0, sign * rest, 0)


class SoftThresholdWeight(Reparametrised):
    """Equation (1)."""

    def __init__(self, weight: Weight, initial: float) -> None:
        """Starts with theta = the matrix of `weight` and s = initial."""
        super().__init__(weight)
        dense = weight.dense()
        self.theta = Param(dense.copy())
        self.s = Param(np.full(1, initial, dtype=dense.dtype), decay=False)

    def params(self) -> dict[str, Param]:
        return {"weight": self.theta, "threshold": self.s}

    def effective(self) -> Array:
        return soft_threshold(self.theta.value, logistic(self.s.value))

    def present(self) -> Array:
        return np.abs(self.theta.value) > logistic(self.s.value).real

    def chain(self, dw: Array) -> None:
        g = logistic(self.s.value)
        self.theta.grad[...] = dw * self.present()
        self.s.grad[...] = -g * (1 - g) * (self.theta.grad * np.sign(self.theta.value.real)).sum()

    def assign(self, dense: Array) -> None:
        above = dense + np.sign(dense.real) * logistic(self.s.value)
        self.theta.value[...] = np.where(self.mask, above, self.theta.value)
