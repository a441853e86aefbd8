"""Losses: value, gradient, R-gradient and a square root of the Hessian, all with respect to the outputs y.

With n samples, o outputs and mean over samples:

    mse    L = 1/(2n) sum_n |y_n - t_n|^2          grad = (y - t) / n          H_n = I / n              (1)
    ce     L = 1/n sum_n [logsumexp(y_n) - y_n,t]  grad = (p - e_t) / n        H_n = (diag p - p p^T)/n (2)
    bce    L = 1/n sum_n,o [softplus(y) - t y]     grad = (sigmoid(y) - t)/n   H_n = diag s(1 - s) / n  (3)

The square root is an array S (v, n, o) with sum_v S[v,n] S[v,n]^T = H_n; for cross-entropy
S[v,n,j] = sqrt(p_v) (delta_vj - p_j) / sqrt(n), as in F. Dangel et al., arXiv:1912.10985.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from minisparse.errors import UsageError
from minisparse.nn.param import Array


class Loss(ABC):
    """Call `value` first; the other methods speak of that call's outputs and targets."""

    name: str

    @abstractmethod
    def value(self, y: Array, target: Array) -> float:
        """Mean loss of outputs y (n, o); complex when y is."""

    @abstractmethod
    def grad(self) -> Array:
        """dL/dy (n, o)."""

    @abstractmethod
    def rgrad(self, ry: Array) -> Array:
        """R{dL/dy} = H R{y} (n, o)."""

    @abstractmethod
    def sqrt_hessian(self) -> Array:
        """S (v, n, o) with sum_v S S^T the Hessian of each sample."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Array:
        """Gradients (n, o) of each sample's own loss, targets drawn from the model's distribution."""

    def accuracy(self, y: Array, target: Array) -> float:
        """Share of samples predicted right, or NaN where the word has no meaning."""
        return float("nan")


def _check(y: Array, target: Array, shape: tuple[int, ...]) -> None:
    if y.ndim != 2 or target.shape != shape:
        raise UsageError(
            f"loss: got outputs {y.shape} and targets {target.shape}, "
            f"expected outputs (n, o) and targets {shape}."
        )
    if not len(y):
        raise UsageError("loss: got 0 samples, expected at least 1.")


class MSE(Loss):
    """Half the squared error, summed over outputs, averaged over samples; targets (n, o)."""

    name = "mse"

    def value(self, y: Array, target: Array) -> float:
        _check(y, target, y.shape)
        self.y = y
        self.residual = y - target.astype(y.real.dtype, copy=False)
        return (self.residual**2).sum() / (2 * len(y))

    def grad(self) -> Array:
        return self.residual / len(self.residual)

    def rgrad(self, ry: Array) -> Array:
        return ry / len(ry)

    def sqrt_hessian(self) -> Array:
        n, o = self.y.shape
        eye = np.eye(o, dtype=self.y.dtype) / np.sqrt(n)
        return np.broadcast_to(eye[:, None, :], (o, n, o)).astype(self.y.dtype)

    def sample(self, rng: np.random.Generator) -> Array:
        return -rng.standard_normal(self.y.shape).astype(self.y.dtype)


def softmax(y: Array) -> Array:
    """Rows of y (n, o) as probabilities, shifted by the largest real part against overflow."""
    e = np.exp(y - y.real.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class CrossEntropy(Loss):
    """Softmax cross-entropy from logits; targets are class numbers (n,)."""

    name = "cross-entropy"

    def value(self, y: Array, target: Array) -> float:
        _check(y, target, y.shape[:1])
        if not 0 <= target.min() <= target.max() < y.shape[1]:
            raise UsageError(
                f"class labels: got {target.min()} to {target.max()}, expected 0 to {y.shape[1] - 1}."
            )
        self.target = target
        self.rows = np.arange(len(y))
        shifted = y - y.real.max(axis=1, keepdims=True)
        e = np.exp(shifted)
        total = e.sum(axis=1, keepdims=True)
        self.p = e / total
        return (np.log(total[:, 0]) - shifted[self.rows, target]).sum() / len(y)

    def grad(self) -> Array:
        g = self.p.copy()
        g[self.rows, self.target] -= 1
        g /= len(g)
        return g

    def rgrad(self, ry: Array) -> Array:
        return self.p * (ry - (self.p * ry).sum(axis=1, keepdims=True)) / len(ry)

    def sqrt_hessian(self) -> Array:
        n, o = self.p.shape
        s = -self.p[None, :, :] * np.sqrt(self.p.T)[:, :, None]
        diagonal = np.arange(o)
        s[diagonal, :, diagonal] += np.sqrt(self.p.T)
        return s / np.sqrt(n).astype(s.real.dtype)

    def sample(self, rng: np.random.Generator) -> Array:
        uniform = rng.random((len(self.p), 1))
        drawn = (np.cumsum(self.p, axis=1) < uniform).sum(axis=1).clip(max=self.p.shape[1] - 1)
        g = self.p.copy()
        g[self.rows, drawn] -= 1
        return g

    def accuracy(self, y: Array, target: Array) -> float:
        return float((y.argmax(axis=1) == target).mean())


class BinaryCrossEntropy(Loss):
    """Sigmoid cross-entropy from logits, summed over outputs; targets (n, o) in [0, 1]."""

    name = "bce"

    def value(self, y: Array, target: Array) -> float:
        _check(y, target, y.shape)
        self.target = target = target.astype(y.real.dtype, copy=False)
        positive = y.real > 0
        small = np.exp(np.where(positive, -y, y))
        self.s = np.where(positive, 1, small) / (1 + small)
        return (np.where(positive, y, 0) + np.log1p(small) - target * y).sum() / len(y)

    def grad(self) -> Array:
        return (self.s - self.target) / len(self.s)

    def rgrad(self, ry: Array) -> Array:
        return self.s * (1 - self.s) * ry / len(ry)

    def sqrt_hessian(self) -> Array:
        n, o = self.s.shape
        root = np.sqrt(self.s * (1 - self.s) / n)
        s = np.zeros((o, n, o), dtype=self.s.dtype)
        diagonal = np.arange(o)
        s[diagonal, :, diagonal] = root.T
        return s

    def sample(self, rng: np.random.Generator) -> Array:
        return self.s - (rng.random(self.s.shape) < self.s)

    def accuracy(self, y: Array, target: Array) -> float:
        return float(((y > 0) == (target > 0.5)).mean())


LOSSES: dict[str, type[Loss]] = {c.name: c for c in (MSE, CrossEntropy, BinaryCrossEntropy)}
