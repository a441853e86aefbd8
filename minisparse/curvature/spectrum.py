"""Extreme eigenvalues and spectral density of the Hessian, by Lanczos.

C. Lanczos. J. Res. Natl. Bur. Stand. 45, 1950. G. H. Golub, G. Meurant. Matrices, Moments and
Quadrature. Princeton, 2010. B. Ghorbani, S. Krishnan, Y. Xiao. ICML 2019. arXiv:1901.10159 (density).

    H q_k = beta_{k-1} q_{k-1} + alpha_k q_k + beta_k q_{k+1},     Q^T H Q = T tridiagonal        (1)
    phi(t) = E_v sum_k u_k^2 N(t; theta_k, sigma^2),   T u = theta u, u_k its first component     (2)

Rounding destroys the orthogonality of Q as eigenvalues converge and ghost copies appear; every new q is
therefore orthogonalised against all earlier ones, twice. Where a Krylov space is exhausted the iteration
starts anew, orthogonally to all it has seen, so that repeated eigenvalues are found as often as they occur.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy.linalg import eigh_tridiagonal

from minisparse.curvature.arguments import positive, positive_integer
from minisparse.curvature.hvp import hessian_operator
from minisparse.errors import NonFiniteError, UsageError
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array

Product = Callable[[Array], Array]
EXHAUSTED = 100 * float(np.finfo(np.float64).eps)  # beta below this share of |H q| is rounding error


def _orthogonal(v: Array, basis: Array) -> Array:
    for _ in range(2):
        v = v - basis.T @ (basis @ v)
    return v


def lanczos(
    product: Product, start: Array, steps: int, rng: Generator | None = None
) -> tuple[Array, Array, Array]:
    """(alpha (k), beta (k-1), Q (k, d)) of (1) with k <= steps, from start (d), not zero.

    rng draws a new direction where the Krylov space is exhausted (beta is 0 there); None stops instead.
    """
    size = len(start)
    steps = min(positive_integer("steps", steps), size)
    basis = np.zeros((steps, size))
    alpha, beta = np.zeros(steps), np.zeros(steps)
    basis[0] = start / np.linalg.norm(start)
    largest = 0.0
    for k in range(steps):
        w = product(basis[k]).astype(np.float64)
        if not np.isfinite(w).all():
            raise NonFiniteError("Lanczos: got a product that is NaN or infinite, expected finite numbers.")
        alpha[k] = basis[k] @ w
        largest = max(largest, float(np.linalg.norm(w)))
        if k + 1 == steps:
            break
        w = _orthogonal(w, basis[: k + 1])
        beta[k] = np.linalg.norm(w)
        if beta[k] <= EXHAUSTED * largest:
            if rng is None:
                return alpha[: k + 1], beta[:k], basis[: k + 1]
            beta[k] = 0
            w = _orthogonal(rng.standard_normal(size), basis[: k + 1])
        basis[k + 1] = w / np.linalg.norm(w)
    return alpha, beta[: steps - 1], basis


def top_eigenpairs(
    product: Product, size: int, k: int, rng: Generator, steps: int | None = None
) -> tuple[Array, Array]:
    """k eigenvalues of largest |value| (k), in that order, and vectors (k, d), by (1)."""
    if not 1 <= positive_integer("eigenvalues", k) <= size:
        raise UsageError(f"eigenvalues: got {k}, expected at most {size}.")
    rounds = max(k, steps or 4 * k + 40)
    alpha, beta, basis = lanczos(product, rng.standard_normal(size), rounds, rng)
    theta, u = eigh_tridiagonal(alpha, beta)
    best = np.argsort(-np.abs(theta), kind="stable")[:k]
    return theta[best], u[:, best].T @ basis


def hessian_eigenpairs(
    network: Network,
    loss: Loss,
    x: Array,
    target: Array,
    k: int,
    rng: Generator,
    steps: int | None = None,
) -> tuple[Array, Array]:
    """`top_eigenpairs` of the Hessian over flattened parameters."""
    operator = hessian_operator(network, loss, x, target)
    return top_eigenpairs(operator.matvec, operator.shape[0], k, rng, steps)


def density_nodes(
    product: Product, size: int, rng: Generator, probes: int, steps: int
) -> tuple[Array, Array]:
    """Nodes theta and weights u^2 / probes of the quadrature in (2); the weights sum to 1."""
    nodes, weights = [], []
    for _ in range(positive_integer("probes", probes)):
        alpha, beta, _ = lanczos(product, rng.standard_normal(size), steps)
        theta, u = eigh_tridiagonal(alpha, beta)
        nodes.append(theta)
        weights.append(u[0] ** 2 / probes)
    return np.concatenate(nodes), np.concatenate(weights)


def spectral_density(
    network: Network,
    loss: Loss,
    x: Array,
    target: Array,
    grid: Array,
    sigma: float,
    rng: Generator,
    probes: int = 10,
    steps: int = 80,
) -> Array:
    """Equation (2) at the points of grid (g): density of the Hessian's eigenvalues, sigma > 0."""
    sigma = positive("sigma", sigma)
    operator = hessian_operator(network, loss, x, target)
    theta, weight = density_nodes(operator.matvec, operator.shape[0], rng, probes, steps)
    z = (grid[:, None] - theta) / sigma
    return np.exp(-(z**2) / 2) @ weight / (sigma * np.sqrt(2 * np.pi))
