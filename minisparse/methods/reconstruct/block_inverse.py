"""The inverse of a damped matrix given by its factors, from which coordinates leave one set at a time.

M. A. Woodbury. Inverting Modified Matrices. Statistical Research Group Memo 42, Princeton 1950.

    H = alpha I + F F^T,     P = H^-1,     F (n, k): one column per factor                  (1)
    P = (I - F M F^T) / alpha,     M = (alpha I + F^T F)^-1 (k, k)                          (2)

Two forms of the same P: `DenseInverse` keeps P itself, n^2 numbers; `LowRankInverse` keeps F and M,
n k + k^2 numbers, and is what makes a whole network's inverse affordable: 50,200 weights and 1,280
factors are 0.5 GB where P would be 20 GB. Nothing is approximated by either.

When the coordinates S leave, the inverse of the matrix of the others is, with P_SS = C C^T,

    P <- P - T T^T,     T = P[:,S] C^-T     (rows and columns S become 0)                   (3)
    M <- M + Z^T Z,     Z = C^-1 F_S M / sqrt(alpha),     then F_S <- 0                     (4)

Derivation: docs/derivations/obs.md.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
from scipy.linalg import solve_triangular

from minisparse.curvature.inverse import cholesky_inverse, damped_cholesky
from minisparse.errors import MethodError
from minisparse.nn.param import Array

log = logging.getLogger("minisparse.methods.reconstruct")

ROWS = 4096  # rows of F at a time where a second array of its size would be needed


class BlockInverse(ABC):
    """P of equation (1) for one block of n coordinates; `diagonal` (n,) is always up to date."""

    diagonal: Array
    least: Array  # bounds that the diagonal keeps to in exact arithmetic, against cancellation

    @abstractmethod
    def submatrix(self, at: Array) -> Array:
        """P[at, at]; at holds indices."""

    @abstractmethod
    def times(self, v: Array) -> Array:
        """P v for v (n,)."""

    @abstractmethod
    def _downdate(self, at: Array, root: Array) -> Array:
        """Equation (3) or (4) for root = C; returns T (n, len(at))."""

    def leave(self, at: Array, values: Array) -> Array:
        """Remove the coordinates `at`; returns P[:,S] (P_SS)^-1 values (n,), P as it was before."""
        root, _ = damped_cholesky(self.submatrix(at))
        t = self._downdate(at, root)
        self.diagonal = np.maximum(self.diagonal - np.einsum("ns,ns->n", t, t), self.least)
        self.diagonal[at] = 0
        self.least[at] = 0
        return t @ solve_triangular(root, values, lower=True)


class DenseInverse(BlockInverse):
    """P itself."""

    def __init__(self, inverse: Array) -> None:
        """inverse (n, n), symmetric; it is changed in place as coordinates leave."""
        self.inverse = inverse
        self.diagonal = inverse.diagonal().copy()
        self.least = 1e-12 * self.diagonal

    def submatrix(self, at: Array) -> Array:
        return self.inverse[np.ix_(at, at)]

    def times(self, v: Array) -> Array:
        return self.inverse @ v

    def _downdate(self, at: Array, root: Array) -> Array:
        t = solve_triangular(root, self.inverse[at], lower=True).T
        self.inverse -= t @ t.T
        self.inverse[at, :] = 0
        self.inverse[:, at] = 0
        return t


class LowRankInverse(BlockInverse):
    """F and M of equation (2)."""

    def __init__(self, factors: Array, alpha: float) -> None:
        """factors F (n, k), changed in place as coordinates leave; alpha > 0."""
        self.factors, self.alpha = factors, alpha
        inner = factors.T @ factors
        inner[np.diag_indices_from(inner)] += alpha
        root, _ = damped_cholesky(inner)
        self.small = cholesky_inverse(root)
        # P_qq >= 1 / H_qq for every positive definite H
        self.least = 1 / (alpha + np.einsum("nk,nk->n", factors, factors))
        self.diagonal = np.maximum((1 - self._explained(root)) / alpha, self.least)

    def _explained(self, root: Array) -> Array:
        """diag F M F^T = column sums of (C^-1 F^T)^2, M = (C C^T)^-1, some rows of F at a time."""
        parts = [self.factors[k : k + ROWS].T for k in range(0, len(self.factors), ROWS)]
        halves = (solve_triangular(root, part, lower=True, check_finite=False) for part in parts)
        return np.concatenate([np.einsum("kn,kn->n", half, half) for half in halves])

    def submatrix(self, at: Array) -> Array:
        f = self.factors[at]
        p = f @ self.small @ f.T
        return (np.eye(len(at)) - (p + p.T) / 2) / self.alpha

    def times(self, v: Array) -> Array:
        return (v - self.factors @ (self.small @ (self.factors.T @ v))) / self.alpha

    def _downdate(self, at: Array, root: Array) -> Array:
        z = solve_triangular(root, self.factors[at] @ self.small, lower=True)
        t = self.factors @ (z.T / -self.alpha)
        t[at] += solve_triangular(root, np.eye(len(at)), lower=True).T / self.alpha
        self.small += z.T @ z / self.alpha
        self.factors[at] = 0
        return t


class BlockSum:
    """F F^T of one block while its factors arrive: kept as F if that is the smaller, else summed."""

    def __init__(self, size: int, factors: int) -> None:
        """size n, and the number k of factors to come."""
        self.low_rank = is_low_rank(size, factors)
        self.array = np.zeros((size, factors if self.low_rank else size))
        self.filled = 0
        self.trace = 0.0

    def add(self, part: Array) -> None:
        """Add the factors in the rows of part (m, n)."""
        self.trace += float(np.einsum("mn,mn->", part, part))
        if self.low_rank:
            self.array[:, self.filled : self.filled + len(part)] = part.T
        else:
            self.array += part.T @ part
        self.filled += len(part)

    def inverse(self, alpha: float) -> BlockInverse:
        """(alpha I + F F^T)^-1; this object's array goes into it."""
        if self.low_rank:
            return LowRankInverse(self.array, alpha)
        self.array[np.diag_indices_from(self.array)] += alpha
        return DenseInverse(cholesky_inverse(damped_cholesky(self.array)[0]))


def is_low_rank(size: int, factors: int) -> bool:
    """Whether n k + k^2 < n^2."""
    return factors * (size + factors) < size * size


def gigabytes(sizes: Iterable[int], factors: int) -> float:
    """Memory of the inverses of blocks of these sizes, in GB."""
    numbers = (k * (n + k) if is_low_rank(n, k) else n * n for n, k in ((n, factors) for n in sizes))
    return 8e-9 * sum(numbers)


def check_memory(name: str, sizes: list[int], factors: int, budget: float) -> None:
    """Say what the inverses take before they are built; MethodError above `budget` GB."""
    need, full = gigabytes(sizes, factors), 8e-9 * sum(sizes) ** 2
    log.info(
        "%s: inverse of %s blocks over %s weights from %s factors: %.3g GB (as one matrix %.3g GB)",
        name, f"{len(sizes):,}", f"{sum(sizes):,}", f"{factors:,}", need, full,
    )  # fmt: skip
    if need > budget:
        raise MethodError(
            f"{name} inverse of {sum(sizes):,} weights: got {need:.3g} GB, expected at most {budget:g} GB. "
            "Use fewer samples, smaller blocks, or raise memory."
        )


def invert_blocks(
    parts: Iterable[Array], sizes: list[int], factors: int, damping: float, relative: bool
) -> list[BlockInverse]:
    """Inverses of consecutive diagonal blocks of these sizes; parts are factors by rows (m, sum of sizes).

    alpha is `damping`, if `relative` times the mean of the diagonal of F F^T over all blocks.
    """
    sums = [BlockSum(size, factors) for size in sizes]
    ends = np.cumsum(sizes)[:-1]
    for part in parts:
        for block, columns in zip(sums, np.split(part, ends, axis=1), strict=True):
            block.add(columns)
    mean = sum(block.trace for block in sums) / sum(sizes)
    alpha = damping * (mean or 1.0) if relative else damping
    return [block.inverse(alpha) for block in sums]
