"""Row-by-row deletion with compensation: the loops of SparseGPT and of OBC.

Rows do not depend on each other, so they are shared among threads; within a row the order is fixed.
"""

import numpy as np
from numba import prange

from minisparse.kernels.jit import kernel


@kernel(parallel=True)
def sweep(w, factor, keep, error, start, stop):
    """Columns start <= j < start + keep.shape[1] of w (out, in) from left to right, changed up to stop.

    factor (in, in) upper triangular; error (out, in) receives e = w_j / factor_jj of entries that go and
    0 of entries that stay. An entry that goes ends as exactly 0.
    """
    out, width = keep.shape
    for r in prange(out):
        for i in range(width):
            j = start + i
            if keep[r, i]:
                error[r, j] = 0
            else:
                e = w[r, j] / factor[j, j]
                error[r, j] = e
                for k in range(j + 1, stop):
                    w[r, k] -= e * factor[j, k]
                w[r, j] = 0


@kernel
def leave(p, q):
    """P <- P - P[:,q] P[q,:] / P_qq in place; row and column q become 0."""
    row = p[q].copy()
    for i in range(len(row)):
        if row[i] != 0:
            c = row[i] / row[q]
            for j in range(len(row)):
                p[i, j] -= c * row[j]
    p[q, :] = 0
    p[:, q] = 0


@kernel(parallel=True)
def greedy_rows(w, inverse, live, width, quota, order, rise):
    """In each row delete weights one by one, each the one of lowest w_i^2 / (2 P_ii) at its turn.

    w (out, in), inverse (in, in) of all columns, live (out, in) bool. Of each `width` consecutive columns,
    group g, quota[g] entries may be absent in the end. order (out, in) receives the columns in the order
    they go, then -1; rise (out, in) what each costs. Of equal costs the higher column goes.
    """
    out, n = w.shape
    for r in prange(out):
        p = inverse.copy()
        x = w[r].copy()
        alive = live[r].copy()
        room = quota.copy()
        for i in range(n):
            if not alive[i]:
                leave(p, i)
                room[i // width] -= 1
        for t in range(n):
            best = -1
            least = np.inf
            for i in range(n):
                if alive[i] and room[i // width] > 0:
                    cost = x[i] * x[i] / (2 * p[i, i])
                    if cost <= least:
                        least = cost
                        best = i
            order[r, t] = best
            if best >= 0:
                rise[r, t] = least
                e = x[best] / p[best, best]
                for i in range(n):
                    x[i] -= e * p[best, i]
                leave(p, best)
                alive[best] = False
                room[best // width] -= 1
