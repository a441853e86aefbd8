"""Weights with a gate: W = M theta, where an entry whose gate is shut keeps its value and may return.

    W = M theta,    M (out, in) in {0, 1}, set from outside by `rewire`                     (1)

Y. Bengio, N. Leonard, A. Courville. Estimating or Propagating Gradients Through Stochastic Neurons for
Conditional Computation. 2013. arXiv:1308.3432 (straight-through: backward as if M were not there)

SR-STE, A. Zhou, Y. Ma, J. Zhu, J. Liu, Z. Zhang, K. Yuan, W. Sun, H. Li. Learning N:M Fine-grained Structured
Sparse Neural Networks From Scratch. ICLR 2021. arXiv:2102.04010, adds a pull to 0 where the gate is shut, so
that gates change less from step to step:

    grad theta = dL/dW + lambda (1 - M) theta                                              (2)
"""

from __future__ import annotations

import numpy as np

from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight
from minisparse.weights.reparametrised import Reparametrised


class GatedWeight(Reparametrised):
    """Equation (1); `chain` is the subclass's."""

    def __init__(self, weight: Weight) -> None:
        """Starts with theta = the matrix of `weight` and its mask as the gates."""
        super().__init__(weight)
        self.gate = weight.mask
        self.carrier.rewire(np.ones(self.shape, dtype=bool))  # gradients pass at every entry
        self.theta = Param(weight.dense().copy())

    def params(self) -> dict[str, Param]:
        return {"weight": self.theta}

    def effective(self) -> Array:
        return np.where(self.gate, self.theta.value, 0)

    def present(self) -> Array:
        return self.gate

    def assign(self, dense: Array) -> None:
        self.theta.value[...] = np.where(self.gate, dense, self.theta.value)

    def rewire(self, mask: Array) -> dict[str, Array]:
        """Set the gates. No parameter changes: what appears has the value it had when it left."""
        self.gate = mask.copy()
        return {}


class RefinedWeight(GatedWeight):
    """Equation (2), the sparse-refined straight-through estimator."""

    def __init__(self, weight: Weight, decay: float) -> None:
        """decay: lambda."""
        super().__init__(weight)
        self.decay = decay

    def chain(self, dw: Array) -> None:
        shut = np.where(self.gate, 0, self.theta.value)
        self.theta.grad[...] = dw + self.decay * shut
