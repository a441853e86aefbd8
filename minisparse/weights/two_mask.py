"""A weight with two masks: one for the forward pass, a wider one for the gradient.

S. Jayakumar, R. Pascanu, J. Rae, S. Osindero, E. Elsen. Top-KAST: Top-K Always Sparse Training. NeurIPS 2020.
arXiv:2106.03517

    W = theta on A, 0 elsewhere                                                            (1)
    grad theta = dL/dW on B, 0 elsewhere,   B containing A                                 (2)

dL/dW is that of the sparse network, at entries it does not use too: so theta changes on B where it has no
effect yet, and outside B it is frozen.
"""

from __future__ import annotations

import numpy as np

from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.weights.straight_through import GatedWeight


class TwoMaskWeight(GatedWeight):
    """Equations (1) and (2); `rewire` sets A, `backward` is B."""

    def __init__(self, weight: Weight) -> None:
        """B starts as A, the mask of `weight`."""
        super().__init__(weight)
        self.backward = self.gate

    def chain(self, dw: Array) -> None:
        self.theta.grad[...] = np.where(self.backward, dw, 0)
