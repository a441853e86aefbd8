"""A weight with random gates that are exactly 0 or exactly 1 with positive probability.

C. Louizos, M. Welling, D. P. Kingma. Learning Sparse Neural Networks through L0 Regularization. ICLR 2018.
arXiv:1712.01312

Each gate has one parameter, log a. With u uniform on (0, 1) and beta, gamma, zeta = 2/3, -0.1, 1.1,

    s = sig((log u - log(1 - u) + log a) / beta),   z = min(1, max(0, s (zeta - gamma) + gamma))   (1)
    W = theta z            in training, one draw for each mini-batch                       (2)
    W = theta zhat,        zhat = min(1, max(0, sig(log a) (zeta - gamma) + gamma))   in evaluation (3)
    P(z = 0) = sig(beta log(-gamma / zeta) - log a),   P(z > 0) = sig(log a - beta log(-gamma / zeta)) (4)
    dz/dlog a = (zeta - gamma) s (1 - s) / beta  where 0 < z < 1, else 0                   (5)

zhat is a plug-in value, not the mean of z; it is 0 only from log a <= log(-gamma / zeta) = -log 11 down. They
belong to single weights or to sets of them, as the two functions `spread` and `total` say, which carry values
from sets to weights and sum over sets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minisparse.nn.mode import Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight
from minisparse.weights.reparametrised import Reparametrised, logistic

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
WIDTH = ZETA - GAMMA
SAFE = 1e-6  # u stays this far from 0 and 1


def stretched(s: Array) -> Array:
    """min(1, max(0, s (zeta - gamma) + gamma))."""
    z = s * WIDTH + GAMMA
    return np.where(z.real <= 0, 0, np.where(z.real >= 1, 1, z))


def gate(u: Array, log_a: Array) -> Array:
    """z of equation (1)."""
    return stretched(logistic((np.log(u) - np.log1p(-u) + log_a) / BETA))


def gate_slope(u: Array, log_a: Array) -> Array:
    """Equation (5)."""
    s = logistic((np.log(u) - np.log1p(-u) + log_a) / BETA)
    z = (s * WIDTH + GAMMA).real
    return np.where((z > 0) & (z < 1), WIDTH * s * (1 - s) / BETA, 0)


def closed(log_a: Array) -> Array:
    """P(z = 0), equation (4)."""
    return logistic(BETA * np.log(-GAMMA / ZETA) - log_a)


def opened(log_a: Array) -> Array:
    """P(z > 0), equation (4)."""
    return logistic(log_a - BETA * np.log(-GAMMA / ZETA))


class HardConcreteWeight(Reparametrised):
    """Equations (1) to (3)."""

    def __init__(
        self,
        weight: Weight,
        log_a: Array,
        spread: Callable[[Array], Array],
        total: Callable[[Array], Array],
        rate: float,
    ) -> None:
        """theta = the matrix of `weight` / zhat, so that evaluation starts with that matrix.

        log_a: one for each set; it moves by `rate` times the learning rate.
        """
        super().__init__(weight)
        self.spread, self.total = spread, total
        self.theta = Param(weight.dense().copy(), decay=False)
        self.log_a = Param(log_a.astype(self.theta.value.dtype), decay=False, rate=rate)
        self.assign(weight.dense())

    def params(self) -> dict[str, Param]:
        return {"weight": self.theta, "log_a": self.log_a}

    def effective(self) -> Array:
        return self.theta.value * self.spread(stretched(logistic(self.log_a.value)))

    def present(self) -> Array:
        return self.spread(stretched(logistic(self.log_a.value)).real > 0)

    def draw(self, mode: Mode) -> Array:
        log_a = self.log_a.value
        if mode.training and mode.rng is not None:
            u = mode.rng.uniform(SAFE, 1 - SAFE, log_a.shape).astype(log_a.real.dtype)
            z, self.slope = gate(u, log_a), gate_slope(u, log_a)
        else:
            s = logistic(log_a)
            z, inside = stretched(s), np.abs(s.real * WIDTH + GAMMA - 0.5) < 0.5
            self.slope = np.where(inside, WIDTH * s * (1 - s), 0)
        self.z = self.spread(z)
        return self.theta.value * self.z

    def chain(self, dw: Array) -> None:
        self.theta.grad[...] = dw * self.z
        self.log_a.grad[...] = self.total(dw * self.theta.value) * self.slope

    def assign(self, dense: Array) -> None:
        z = self.spread(stretched(logistic(self.log_a.value)))
        self.theta.value[...] = np.where(self.mask, dense / np.where(z == 0, 1, z), self.theta.value)
