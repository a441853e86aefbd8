"""A weight with Gaussian noise of learned size on every entry: w ~ N(theta, sigma^2).

D. Molchanov, A. Ashukha, D. Vetrov. Variational Dropout Sparsifies Deep Neural Networks. ICML 2017.
arXiv:1701.05369
D. P. Kingma, T. Salimans, M. Welling. Variational Dropout and the Local Reparameterization Trick. NeurIPS
2015. arXiv:1506.02557

With log sigma^2 as the second parameter (additive noise) and e = 1e-8,

    log alpha = clip(log sigma^2 - log(theta^2 + e), -8, 8)                                (1)
    sigma^2   = alpha (theta^2 + e)            (that of the parameter, where nothing is clipped)
    y = x theta + eps sqrt(V),   V = x^2 sigma^2 + e,   eps ~ N(0, 1)   in training        (2)
    y = x (theta 1[log alpha < threshold])                              in evaluation      (3)

eps is independent for every row and output, so for every position of a convolution: sampling outputs instead
of weights has far less variance. With G = dL/dy and E = G eps / (2 sqrt(V)),

    dtheta = G^T x,   dsigma^2 = E^T x^2,   dx = G theta + 2 x (E sigma^2)                 (4)
    dlog sigma^2 = sigma^2 dsigma^2        not clipped;   dtheta += 2 theta e^(+-8) dsigma^2  clipped

The divergence from the log-uniform prior, for every entry, is approximated to 0.01 by

    KL = k1 (1 - t) + log(1 + 1/alpha) / 2,   t = 1 / (1 + exp(-(k2 + k3 log alpha)))      (5)
    dKL/dlog alpha = -k1 k3 t (1 - t) - 1 / (2 (1 + alpha))                                (6)

with k1, k2, k3 = 0.63576, 1.87320, 1.48695. It falls in alpha: without data all weights become noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minisparse.nn.mode import Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window
from minisparse.weights.reparametrised import Reparametrised, logistic

K1, K2, K3 = 0.63576, 1.87320, 1.48695
LIMIT, TINY = 8.0, 1e-8
NEARLY = LIMIT - 1e-3


def log_alpha(theta: Array, log_sigma2: Array) -> tuple[Array, Array]:
    """Equation (1), and where it is not clipped."""
    raw = log_sigma2 - np.log(theta**2 + TINY)
    free = np.abs(raw.real) < LIMIT
    return np.where(free, raw, LIMIT * np.sign(raw.real)), free


def projected(theta: Array, log_sigma2: Array) -> Array:
    """log sigma^2 brought to where (1) does not clip, if only just."""
    centre = np.log(theta**2 + TINY)
    return np.clip(log_sigma2, centre - NEARLY, centre + NEARLY)


def divergence(la: Array) -> Array:
    """Equation (5) for log alpha of any shape."""
    return K1 * logistic(-(K2 + K3 * la)) + np.log1p(np.exp(-la)) / 2


def divergence_slope(la: Array) -> Array:
    """Equation (6)."""
    t = logistic(K2 + K3 * la)
    return -K1 * K3 * t * (1 - t) - logistic(-la) / 2


class VariationalWeight(Reparametrised):
    """Equations (1) to (4); the variances go the same ways as the means, as a matrix of their own."""

    def __init__(self, weight: Weight, log_sigma2: float, threshold: float, rate: float) -> None:
        """theta starts as the matrix of `weight`; log sigma^2 moves by `rate` times the learning rate."""
        super().__init__(weight)
        self.threshold = threshold
        self.theta = Param(weight.dense().copy(), decay=False)
        self.half: Array | None = None
        self.noise = Param(np.full_like(self.theta.value, log_sigma2), decay=False, rate=rate)

    def params(self) -> dict[str, Param]:
        return {"weight": self.theta, "log_sigma2": self.noise}

    def effective(self) -> Array:
        return np.where(self.present(), self.theta.value, 0)

    def present(self) -> Array:
        return log_alpha(self.theta.value, self.noise.value)[0].real < self.threshold

    def variance(self) -> Array:
        """sigma^2 (out, in)."""
        la, self.free = log_alpha(self.theta.value, self.noise.value)
        return np.where(self.carrier.mask, np.exp(la) * (self.theta.value**2 + TINY), 0)

    def draw(self, mode: Mode) -> Array:
        # evaluation leaves out what is past the threshold, training needs it to be able to return
        self.used = np.array(True) if mode.training else self.present()
        return np.where(self.used, self.theta.value, 0)

    def apply(self, x: Array, mode: Mode) -> Array:
        y = super().apply(x, mode)
        return self._noisy(y, x, mode, lambda sigma2: sigma2.apply(x**2, mode))

    def correlate(self, x: Array, window: Window, mode: Mode) -> Array:
        y = super().correlate(x, window, mode)
        return self._noisy(y, x, mode, lambda sigma2: sigma2.correlate(x**2, window, mode))

    def _noisy(self, y: Array, x: Array, mode: Mode, carried: Callable[[Weight], Array]) -> Array:
        """Equation (2) from the means y; carried(sigma^2) is x^2 sigma^2."""
        self.half = None
        if not mode.training or mode.rng is None:
            return y
        self.x, self.sigma2 = x, MaskedWeight(self.variance(), self.geometry)
        spread = np.sqrt(carried(self.sigma2) + TINY)
        eps = mode.rng.standard_normal(spread.shape).astype(y.real.dtype, copy=False)
        self.half = eps / (2 * spread)
        return y + eps * spread

    def pull(self, dy: Array) -> Array:
        dx = super().pull(dy)
        return dx if self.half is None else dx + 2 * self.x * self.sigma2.pull(dy * self.half)

    def correlate_pull(self, dy: Array, window: Window, size: tuple[int, int]) -> Array:
        dx = super().correlate_pull(dy, window, size)
        if self.half is None:
            return dx
        return dx + 2 * self.x * self.sigma2.correlate_pull(dy * self.half, window, size)

    def pullback(self, x: Array, dy: Array) -> None:
        super().pullback(x, dy)
        if self.half is not None:
            self.sigma2.pullback(x**2, dy * self.half)
            self._chain_variance()

    def correlate_pullback(self, x: Array, dy: Array, window: Window) -> None:
        super().correlate_pullback(x, dy, window)
        if self.half is not None:
            self.sigma2.correlate_pullback(x**2, dy * self.half, window)
            self._chain_variance()

    def chain(self, dw: Array) -> None:
        self.theta.grad[...] = np.where(self.used, dw, 0)
        self.noise.grad[...] = 0

    def _chain_variance(self) -> None:
        """Second line of (4)."""
        held = self.sigma2.param
        theta, along = self.theta.value, held.value * np.where(self.carrier.mask, held.grad, 0)
        self.noise.grad += np.where(self.free, along, 0)
        if not self.free.all():
            self.theta.grad += np.where(self.free, 0, 2 * theta / (theta**2 + TINY) * along)

    def assign(self, dense: Array) -> None:
        self.theta.value[...] = np.where(self.mask, dense, self.theta.value)
