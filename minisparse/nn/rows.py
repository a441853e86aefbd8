"""Contractions of input rows with cotangents: all that curvature needs of a linear layer.

With rows x[n,p,i] and cotangents s[v,n,p,o], the derivative of a layer y = W x + b along column v is,
for each sample, a sum over positions because the weights are shared between them:

    P[v,n,o,i] = sum_p s[v,n,p,o] x[n,p,i],     Pb[v,n,o] = sum_p s[v,n,p,o]               (1)
    squared    D[o,i] = sum_{v,n} sign[v,n] P[v,n,o,i]^2,  the same with Pb for the bias   (2)
    diagonal   D[o,i] = sum_{n,p} h[n,p,o] x[n,p,i]^2,     sum_{n,p} h[n,p,o]              (3)

(3) is (2) for a Hessian of the outputs that is diagonal: one column per output unit and position.
Each function returns the arrays for (W, b).
"""

from __future__ import annotations

import numpy as np

from minisparse.nn.param import Array

BLOCK_BYTES = 1 << 20  # of P at a time: squares are summed while P is still in the cache


def outer(rows: Array, s: Array) -> tuple[Array, Array]:
    """Equation (1): rows (n, p, i), s (..., n, p, o) -> (..., n, o, i) and (..., n, o)."""
    return np.matmul(s.swapaxes(-1, -2), rows), _sum_positions(s)


def _sum_positions(s: Array) -> Array:
    """(..., p, o) -> (..., o), as a product: summing over a middle axis of short rows is slow."""
    return np.matmul(np.ones((1, s.shape[-2]), dtype=s.dtype), s)[..., 0, :]


def squared(rows: Array, s: Array, sign: Array | None) -> tuple[Array, Array]:
    """Equation (2): rows (n, p, i), s (v, n, p, o), sign (v, n) or None -> (o, i) and (o)."""
    bias = _sum_squares(_sum_positions(s), sign)
    if rows.shape[1] == 1:  # P is an outer product, its square the product of squares
        flat = s[:, :, 0]
        weigh = flat * flat if sign is None else sign[..., None] * flat * flat
        return weigh.sum(axis=0).T @ rows[:, 0] ** 2, bias
    (v, n, _, o), i = s.shape, rows.shape[2]
    step = max(1, BLOCK_BYTES // (v * o * i * s.itemsize))
    total = np.zeros((o, i), dtype=s.dtype)
    for k in range(0, n, step):
        part = slice(k, k + step)
        p = np.matmul(s[:, part].swapaxes(-1, -2), rows[part])
        total += _sum_squares(p, None if sign is None else sign[:, part])
    return total, bias


def _sum_squares(p: Array, sign: Array | None) -> Array:
    """sum_{v,n} sign[v,n] p[v,n,...]^2 in one pass over p."""
    flat = p.reshape(p.shape[0] * p.shape[1], -1)
    if sign is None:
        total = np.einsum("kj,kj->j", flat, flat)
    else:
        total = np.einsum("k,kj,kj->j", sign.reshape(-1), flat, flat)
    return total.reshape(p.shape[2:])


def diagonal(rows: Array, h: Array) -> tuple[Array, Array]:
    """Equation (3): rows (n, p, i), h (n, p, o) -> (o, i) and (o)."""
    flat = h.reshape(-1, h.shape[-1])
    return flat.T @ rows.reshape(-1, rows.shape[-1]) ** 2, flat.sum(axis=0)
