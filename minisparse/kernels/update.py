"""Optimiser updates in one pass over memory; all arrays are flat and of one length."""

import numpy as np

from minisparse.kernels.jit import kernel


@kernel
def sgd_update(w, g, u, lr, momentum, decay, nesterov):
    """d = g + decay w; u <- momentum u + d; w <- w - lr u, or w - lr (d + momentum u)."""
    if nesterov:
        for i in range(w.size):
            d = g[i] + decay * w[i]
            u[i] = momentum * u[i] + d
            w[i] -= lr * (d + momentum * u[i])
    else:
        for i in range(w.size):
            u[i] = momentum * u[i] + (g[i] + decay * w[i])
            w[i] -= lr * u[i]


@kernel
def adam_update(w, g, m, v, constants, decoupled):
    """Adam with bias corrections c1, c2; constants = [lr, beta1, beta2, eps, decay, c1, c2].

    An entry whose weight, gradient and slots are all 0 stays 0 also when eps = 0.
    """
    lr, b1, b2, eps, decay, c1, c2 = constants
    for i in range(w.size):
        d = g[i]
        if decoupled:
            w[i] -= lr * decay * w[i]
        else:
            d = d + decay * w[i]
        m[i] = b1 * m[i] + (1 - b1) * d
        v[i] = b2 * v[i] + (1 - b2) * d * d
        if m[i] != 0:
            w[i] -= lr * (m[i] / c1) / (np.sqrt(v[i] / c2) + eps)
