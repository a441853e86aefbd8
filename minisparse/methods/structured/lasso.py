"""LASSO by coordinate descent, and as many variables as asked for.

R. Tibshirani. Regression Shrinkage and Selection via the Lasso. J. R. Stat. Soc. B 58(1), 1996;
J. Friedman, T. Hastie, H. Hoefling, R. Tibshirani. Pathwise Coordinate Optimization. Ann. Appl. Stat. 1(2),
2007.

For a design Z (n, c) and a response y (n,) all that is needed is G = Z^T Z / n and g = Z^T y / n:

    beta = argmin |y - Z beta|^2 / (2 n) + lambda |beta|_1                                  (1)
    beta_i <- S(g_i - sum_j G_ij beta_j + G_ii beta_i, lambda) / G_ii                       (2)
    S(a, lambda) = sign(a) max(|a| - lambda, 0)                                             (3)
    optimal iff, with r = g - G beta:  r_i = lambda sign(beta_i) where beta_i != 0,
                                       |r_i| <= lambda elsewhere                            (4)
    beta = 0 iff lambda >= max_i |g_i|                                                      (5)

The number of non-zero coefficients falls from c to 0 as lambda rises to (5), though not at every step, and
where variables are alike several may leave at once.
"""

from __future__ import annotations

import numpy as np

from minisparse.errors import NonFiniteError, ShapeError, UsageError
from minisparse.kernels.lasso import descend
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_real
from minisparse.sparsity.select import top_k

SWEEPS = 2000
TOLERANCE = 1e-9  # of the largest |g_i|, when only the support is wanted
HALVINGS = 50


def soft_threshold(a: Array, penalty: float) -> Array:
    """Equation (3), entry by entry."""
    return np.sign(a) * np.maximum(np.abs(a) - penalty, 0)


def violation(beta: Array, gram: Array, target: Array, penalty: float) -> float:
    """By how much the worst coordinate of beta (c,) fails equation (4); 0 at the optimum."""
    slope = target - gram @ beta
    active = np.abs(slope - penalty * np.sign(beta))
    idle = np.maximum(np.abs(slope) - penalty, 0)
    return float(np.where(beta != 0, active, idle).max(initial=0.0))


def largest_penalty(target: Array) -> float:
    """Equation (5): the smallest lambda for which all coefficients are 0."""
    return float(np.abs(target).max(initial=0.0))


def lasso(
    gram: Array,
    target: Array,
    penalty: float,
    start: Array | None = None,
    tolerance: float = 1e-14,
    sweeps: int = SWEEPS,
) -> Array:
    """beta (c,) of equation (1) for G = gram (c, c) and g = target (c,), float64.

    Equation (2) from `start` (zeros if None) until no coordinate moves its slope by more than `tolerance`
    times the largest |g_i|, or for so many sweeps. A variable that is 0 on all samples has coefficient 0.
    Raises ShapeError, NonFiniteError or UsageError for arguments that are no such problem.
    """
    gram, target = np.ascontiguousarray(gram, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if target.ndim != 1 or gram.shape != (target.size, target.size):
        raise ShapeError(
            f"lasso: got Gram matrix {gram.shape} and g {target.shape}, expected (c, c) and (c,)."
        )
    if not (np.isfinite(gram).all() and np.isfinite(target).all()):
        raise NonFiniteError("lasso: got NaN or infinite moments, expected finite ones.")
    penalty = check_real(penalty, "lasso penalty", 0.0)
    beta = np.zeros(target.size) if start is None else np.array(start, dtype=np.float64)
    descend(gram, target.copy(), penalty, beta, tolerance * largest_penalty(target), sweeps)
    return beta


def choose(gram: Array, target: Array, keep: int, live: Array | None = None) -> Array:
    """Mask (c,) of exactly `keep` variables that lambda leaves non-zero, of those in `live` (c,) bool.

    Bisection on lambda between 0 and (5), each solution the start of the next. Where the count jumps over
    `keep`, those of largest |beta_i| sqrt(G_ii) at the last lambda below the jump stay, then those of
    largest G_ii; ties to the lower index. UsageError unless 0 <= keep <= the number of live variables.
    """
    live = np.ones(len(target), dtype=bool) if live is None else live
    count = int(np.count_nonzero(live))
    if not 0 <= keep <= count:
        raise UsageError(f"lasso cannot keep {keep}: expected a whole number from 0 to {count}.")
    if keep in (0, count):
        return live & (keep > 0)
    inner = np.ascontiguousarray(gram[np.ix_(live, live)])
    beta = _support(inner, target[live], keep)
    energy = np.maximum(np.diag(inner), 0)
    share = np.abs(beta) * np.sqrt(energy)
    # lexicographic by share, then energy: ranks of both in one integer score
    rank = np.unique(share, return_inverse=True)[1] * count + np.unique(energy, return_inverse=True)[1]
    chosen = np.zeros(len(target), dtype=bool)
    chosen[np.flatnonzero(live)[top_k(rank, keep)]] = True
    return chosen


def _support(gram: Array, target: Array, keep: int) -> Array:
    """Coefficients of which `keep` are not 0, or more where no lambda tried gives so many."""
    low, high = 0.0, largest_penalty(target)
    beta, above = np.zeros(len(target)), None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        beta = lasso(gram, target, middle, beta, TOLERANCE)
        count = np.count_nonzero(beta)
        if count == keep:
            return beta
        if count > keep:
            low, above = middle, beta
        else:
            high = middle
    return beta if above is None else above
