"""Powerpropagation: W = theta |theta|^(alpha - 1), with which large weights move more and small ones less.

J. Schwarz, S. M. Jayakumar, R. Pascanu, P. E. Latham, Y. W. Teh. Powerpropagation: A sparsity inducing weight
reparameterisation. NeurIPS 2021. arXiv:2110.00296

    W = theta |theta|^(alpha - 1),        alpha >= 1                                       (1)
    dL/dtheta = dL/dW alpha |theta|^(alpha - 1)                                            (2)
    theta = sign(W) |W|^(1/alpha)         the inverse, from which training starts          (3)
"""

from __future__ import annotations

import numpy as np

from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight
from minisparse.weights.reparametrised import Reparametrised


def power(theta: Array, alpha: float) -> Array:
    """Equation (1); complex theta is continued from the real axis."""
    return theta * (np.sign(theta.real) * theta) ** (alpha - 1)


def slope(theta: Array, alpha: float) -> Array:
    """dW/dtheta of equation (2)."""
    return alpha * (np.sign(theta.real) * theta) ** (alpha - 1)


def root(w: Array, alpha: float) -> Array:
    """Equation (3)."""
    return np.sign(w.real) * (np.sign(w.real) * w) ** (1 / alpha)


class PowerWeight(Reparametrised):
    """Equation (1)."""

    def __init__(self, weight: Weight, alpha: float) -> None:
        """Starts from the matrix and the mask of `weight`."""
        super().__init__(weight)
        self.alpha = alpha
        self.theta = Param(root(weight.dense(), alpha))

    def params(self) -> dict[str, Param]:
        return {"weight": self.theta}

    def effective(self) -> Array:
        return power(self.theta.value, self.alpha)

    def chain(self, dw: Array) -> None:
        self.theta.grad[...] = dw * slope(self.theta.value, self.alpha)

    def assign(self, dense: Array) -> None:
        self.theta.value[...] = np.where(self.carrier.mask, root(dense, self.alpha), 0)
