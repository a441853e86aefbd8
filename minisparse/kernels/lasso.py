"""Coordinate descent for least squares with an L1 penalty, on the normal equations."""

import numpy as np

from minisparse.kernels.jit import kernel


@kernel
def update(gram, penalty, beta, residual, i):
    """Minimise over beta[i] alone and keep residual = target - gram beta; how far its slope moved."""
    curvature = gram[i, i]
    if curvature <= 0:
        beta[i] = 0
        return 0.0
    whole = residual[i] + curvature * beta[i]
    size = np.abs(whole) - penalty
    new = np.sign(whole) * size / curvature if size > 0 else 0.0
    step = new - beta[i]
    if step == 0:
        return 0.0
    beta[i] = new
    for j in range(beta.size):
        residual[j] -= step * gram[i, j]
    return np.abs(step) * curvature


@kernel
def descend(gram, target, penalty, beta, tolerance, sweeps):
    """Minimise beta' gram beta / 2 - target' beta + penalty |beta|_1 over beta (c,), in place.

    Sweeps over the coordinates that are not 0, until none moves its own slope by more than `tolerance`; then
    the zero coordinate that wants to leave 0 most, if any does, joins them. One at a time, so that of equal
    variables one joins and the others, which then want nothing more, stay 0. At most `sweeps` sweeps in all;
    returns their number. A coordinate without curvature stays 0.
    """
    residual = target - gram @ beta
    slack = tolerance * (beta.size + 1)
    for sweep in range(sweeps):
        largest = 0.0
        for i in range(beta.size):
            if beta[i] != 0:
                largest = max(largest, update(gram, penalty, beta, residual, i))
        if largest > tolerance:
            continue
        best, most = -1, penalty + slack
        for i in range(beta.size):
            if beta[i] == 0 and gram[i, i] > 0 and np.abs(residual[i]) > most:
                best, most = i, np.abs(residual[i])
        if best < 0:
            return sweep + 1
        update(gram, penalty, beta, residual, best)
    return sweeps
