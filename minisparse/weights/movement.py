"""A gated weight that learns what its gates are worth by the straight-through gradient.

V. Sanh, T. Wolf, A. M. Rush. Movement Pruning: Adaptive Sparsity by Fine-Tuning. NeurIPS 2020.
arXiv:2005.07683

    W = M theta,   M = M(S) chosen from the scores S, W the matrix of the layer             (1)
    dL/dS = dL/dW theta      as if M were S: entries shut off get it too                   (2)
    dL/dtheta = dL/dW M                                                                    (3)

Under descent S_T = -a sum_t dL/dW theta: a score rises while its weight moves away from 0.
"""

from __future__ import annotations

import numpy as np

from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight
from minisparse.weights.straight_through import GatedWeight


class MovementWeight(GatedWeight):
    """Equations (1) to (3); `rewire` sets M."""

    def __init__(self, weight: Weight, rate: float) -> None:
        """Scores start at 0 and move by `rate` times the learning rate."""
        super().__init__(weight)
        self.score = Param(np.zeros_like(self.theta.value), decay=False, rate=rate)

    def params(self) -> dict[str, Param]:
        return {"weight": self.theta, "score": self.score}

    def chain(self, dw: Array) -> None:
        self.score.grad[...] = dw * self.theta.value
        self.theta.grad[...] = np.where(self.gate, dw, 0)
