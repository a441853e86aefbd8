"""Inverses of damped second-moment matrices, and how they change.

B. Hassibi, D. G. Stork. Second Order Derivatives for Network Pruning: Optimal Brain Surgeon. NIPS 1992.
S. P. Singh, D. Alistarh. WoodFisher. NeurIPS 2020. arXiv:2004.14340

    P = (alpha I + 1/N sum_m q_m q_m^T)^-1                                                      (1)
    one factor     P <- P - (P q)(P q)^T / (N + q^T P q),     P_0 = I / alpha                   (2)
    k factors      P <- P - P Q^T (N I + Q P Q^T)^-1 Q P,     Q (k, d)                          (3)
    remove q       P <- P - P[:,q] P[q,:] / P[q,q]                                              (4)

(2) is Sherman-Morrison, (3) Woodbury: k matrix-vector passes over P become one product. After (4) row
and column q are 0 and the rest is the inverse of the matrix without row and column q (one step of
Gaussian elimination). Derivations: docs/derivations/woodbury.md.

Everything is float64 whatever it is given: with a small alpha, P_0 is huge and float32 loses all digits.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas, cholesky, lapack, solve_triangular

from minisparse.curvature.arguments import positive, positive_integer
from minisparse.errors import NonFiniteError, ShapeError, UsageError
from minisparse.nn.param import Array

TRIES = 8  # times the damping is raised by 10
BLOCK = 96


def _start(q: Array, damping: float, count: int | None) -> tuple[Array, Array, int]:
    """q in float64, P_0 and N; UsageError where alpha is lost beside the factors in float64."""
    if q.ndim != 2:
        raise ShapeError(f"factors: got shape {q.shape}, expected (number, size).")
    if not np.isfinite(q).all():
        raise NonFiniteError("factors: got NaN or infinite entries, expected finite ones.")
    q, alpha = np.ascontiguousarray(q, dtype=np.float64), positive("damping", damping)
    total = max(len(q), 1) if count is None else positive_integer("count", count)
    least = np.finfo(np.float64).eps * float(np.einsum("md,md->", q, q)) / total
    if not (alpha > least and np.isfinite(1 / alpha)):
        raise UsageError(
            f"damping: got {alpha:.3g}, expected more than {least:.3g}, below which float64 loses it beside "
            "the factors. Raise the damping."
        )
    p = np.zeros((q.shape[1], q.shape[1]))
    p[np.diag_indices_from(p)] = 1 / alpha
    return q, p, total


def inverse_by_vectors(q: Array, damping: float, count: int | None = None) -> Array:
    """Equation (2) one factor at a time: q (m, d), damping alpha > 0, N = count or m -> P (d, d)."""
    q, p, total = _start(q, damping, count)
    for row in q:
        pq = p @ row
        p -= np.outer(pq, pq / (total + row @ pq))
    return p


def inverse_by_blocks(q: Array, damping: float, count: int | None = None, block: int = BLOCK) -> Array:
    """Equation (3), `block` factors at a time; the same P as `inverse_by_vectors` up to rounding.

    P_0 times Q^T is Q^T / alpha, so that the first step costs no product with P and takes twice as many
    factors. Only the lower triangle of P is worked on, in place.
    """
    q, p, total = _start(q, damping, count)
    block = positive_integer("block", block)
    p = p.T  # the same matrix, column by column in memory as BLAS wants it
    for k, rows in enumerate(np.split(q, range(2 * block, len(q), block)) if q.size else []):
        part = rows.T
        pq = blas.dsymm(1.0, p, part, lower=1) if k else part * p[0, 0]
        inner = blas.dgemm(1.0, part, pq, trans_a=1)
        inner[np.diag_indices_from(inner)] += total
        root = cholesky(inner, lower=True, overwrite_a=True, check_finite=False)
        zt = blas.dtrsm(1.0, root, pq, side=1, lower=1, trans_a=1, overwrite_b=1)
        p = blas.dsyrk(-1.0, zt, beta=1.0, c=p, lower=1, overwrite_c=1)
    whole = p + p.T  # above the diagonal p is still 0
    whole[np.diag_indices_from(whole)] = np.diag(p)
    return whole


def remove(p: Array, index: int) -> Array:
    """Equation (4): a new P with row and column `index` exactly 0; UsageError unless P[q,q] > 0."""
    pivot = p[index, index]
    if not pivot > 0:
        raise UsageError(f"inverse: got pivot {pivot} at {index}, expected > 0. Is it removed already?")
    column = p[:, index]
    out = p - np.outer(column, column / pivot)
    out[index, :] = 0
    out[:, index] = 0
    return out


def _try_cholesky(matrix: Array, amount: float) -> Array | None:
    """Lower factor of matrix + amount I, or None where it has lost its digits.

    A pivot that is a rounding error of its diagonal entry means a singular matrix; the test does not
    change when rows and columns are rescaled, so that badly scaled matrices are not taken for singular.
    """
    damped = matrix.copy(order="C")
    damped[np.diag_indices_from(damped)] += amount
    diagonal = np.diag(damped).copy()
    # the transpose has the order of memory LAPACK wants, and the lower triangle is the upper one of it
    upper, stopped = lapack.dpotrf(damped.T, lower=0, overwrite_a=1)
    if stopped:
        return None
    lost = len(matrix) * np.finfo(np.float64).eps
    sound = np.isfinite(upper).all() and (np.diag(upper) ** 2 > lost * diagonal).all()
    return upper.T if sound else None


def damped_cholesky(matrix: Array, damping: float = 0.0) -> tuple[Array, float]:
    """(lower factor of matrix + amount I, amount), float64; matrix (d, d) symmetric.

    The amount starts at damping times the mean of the diagonal (times 1 if that is 0; damping 0 is tried
    as it is and then starts at 1e-10) and is raised tenfold up to 8 times until the factor is sound.
    Raises ShapeError; NonFiniteError for NaN or infinite entries; UsageError for a damping that is
    negative or not finite, and for a matrix too far from positive semidefinite.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or 0 in matrix.shape:
        raise ShapeError(f"matrix: got shape {matrix.shape}, expected (d, d) with d >= 1.")
    if not np.isfinite(matrix).all():
        bad = int(np.count_nonzero(~np.isfinite(matrix)))
        raise NonFiniteError(f"matrix: got {bad} NaN or infinite entries, expected finite ones.")
    damping = positive("damping", damping, zero=True)
    matrix = matrix.astype(np.float64)
    scale = float(np.mean(np.abs(np.diag(matrix)) / len(matrix)) * len(matrix)) or 1.0
    start = (damping or 1e-10) * scale
    amounts = [0.0] * (damping == 0) + [start * 10.0**k for k in range(TRIES + 1)]
    for amount in amounts:
        root = _try_cholesky(matrix, amount)
        if root is not None:
            return root, amount
    raise UsageError(
        f"matrix: got no Cholesky factor with {amounts[-1]:.3g} on the diagonal, expected a positive "
        "semidefinite matrix. Raise the damping."
    )


def cholesky_inverse(root: Array) -> Array:
    """(L L^T)^-1 from the lower factor L (d, d), exactly symmetric."""
    half = solve_triangular(root, np.eye(len(root)), lower=True, check_finite=False)
    return half.T @ half
