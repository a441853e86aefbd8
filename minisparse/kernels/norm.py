"""Batch normalisation in one pass over memory per quantity; rows (r, c) with the channel fastest.

Sums over rows are taken in blocks of a fixed number of rows, in parallel, and the blocks are added in
their order: the number of threads does not change a bit of the result.
"""

import numpy as np
from numba import prange

from minisparse.kernels.jit import kernel

BLOCK = 2048


@kernel(parallel=True)
def moments(x, mean, m2):
    """Per-block mean and sum of squared deviations; x (r, c), mean and m2 (ceil(r / BLOCK), c)."""
    r, c = x.shape
    for b in prange(mean.shape[0]):
        first, last = b * BLOCK, min(b * BLOCK + BLOCK, r)
        for k in range(c):
            mean[b, k] = 0
            m2[b, k] = 0
        for i in range(first, last):
            for k in range(c):
                mean[b, k] += x[i, k]
        for k in range(c):
            mean[b, k] /= last - first
        for i in range(first, last):
            for k in range(c):
                d = x[i, k] - mean[b, k]
                m2[b, k] += d * d


@kernel
def merge(mean, m2, rows):
    """Fold all blocks into block 0 (T. F. Chan et al., 1979); afterwards mean[0], m2[0] are the whole's."""
    n = min(BLOCK, rows)
    for b in range(1, mean.shape[0]):
        add = min(BLOCK, rows - b * BLOCK)
        for k in range(mean.shape[1]):
            d = mean[b, k] - mean[0, k]
            mean[0, k] += d * add / (n + add)
            m2[0, k] += m2[b, k] + d * d * n * add / (n + add)
        n += add


@kernel(parallel=True)
def affine(x, scale, shift, y):
    """y = scale x + shift per channel; x, y (r, c)."""
    for i in prange(x.shape[0]):
        for k in range(x.shape[1]):
            y[i, k] = scale[k] * x[i, k] + shift[k]


@kernel(parallel=True)
def pair_sums(x, dy, mean, inv, sums):
    """sums[b] = (sum dy, sum dy xhat) of block b, xhat = (x - mean) inv; sums (blocks, 2, c)."""
    r, c = x.shape
    for b in prange(sums.shape[0]):
        for k in range(c):
            sums[b, 0, k] = 0
            sums[b, 1, k] = 0
        for i in range(b * BLOCK, min(b * BLOCK + BLOCK, r)):
            for k in range(c):
                g = dy[i, k]
                sums[b, 0, k] += g
                sums[b, 1, k] += g * ((x[i, k] - mean[k]) * inv[k])


@kernel(parallel=True)
def pull_batch(x, dy, mean, inv, scale, mean_dy, mean_dyx, dx):
    """dx = scale (dy - mean_dy - xhat mean_dyx), equation (2) of nn/norm.py; all (r, c) or (c)."""
    for i in prange(x.shape[0]):
        for k in range(x.shape[1]):
            xhat = (x[i, k] - mean[k]) * inv[k]
            dx[i, k] = scale[k] * (dy[i, k] - mean_dy[k] - xhat * mean_dyx[k])


def blocks(rows):
    """Number of blocks of a sum over so many rows."""
    return -(-rows // BLOCK)


def batch_moments(x):
    """Mean and biased variance (c) of the rows of x (r, c)."""
    rows, c = x.shape
    mean = np.empty((blocks(rows), c), dtype=x.dtype)
    m2 = np.empty_like(mean)
    moments(x, mean, m2)
    merge(mean, m2, rows)
    return mean[0], m2[0] / x.dtype.type(rows)
