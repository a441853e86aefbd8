"""Where the entries of a sparse matrix lie, as `multiply.py` and `adjoint.py` take it, and their plain loops.

multiply   y[i] = sum_p val[p] x[idx[p]]             p in row i                         (1)
scatter    dx[idx[p]] += val[p] dy[i]                                                   (2)
sample     dval[p] = <dy[i], x[idx[p]]>                                                 (3)
"""

from typing import NamedTuple

import numpy as np

from minisparse.kernels.jit import kernel
from minisparse.kernels.lanes import LANES, evenly
from minisparse.kernels.packing import TILE

LARGEST = 1 << 20  # floats of a buffer
SECOND = 1 << 18  # floats in a second-level cache
MOST_ROWS = 768  # of a block: their part of Y, 256 samples wide, stays in the second-level cache


@kernel
def cut(indptr, indices, width, cuts):
    """cuts[c, i] = place of row i's first entry in panel c or later; cuts (panels + 1, out)."""
    for i in range(cuts.shape[1]):
        p, end = indptr[i], indptr[i + 1]
        for c in range(cuts.shape[0]):
            while p < end and indices[p] < c * width:
                p += 1
            cuts[c, i] = p


@kernel
def arrange_visits(begin, end, block, visit):
    """visit[c] = the rows of each block in descending order of entries in panel c, equals ascending."""
    rows = begin.shape[1]
    for c in range(begin.shape[0]):
        for first in range(0, rows, block):
            last = min(first + block, rows)
            most = 0
            for i in range(first, last):
                most = max(most, end[c, i] - begin[c, i])
            place = np.zeros(most + 2, np.int64)  # of the next row with k entries fewer than the most
            for i in range(first, last):
                place[most - (end[c, i] - begin[c, i]) + 1] += 1
            for k in range(most + 1):
                place[k + 1] += place[k]
            for i in range(first, last):
                k = most - (end[c, i] - begin[c, i])
                visit[c, first + place[k]] = i
                place[k] += 1


class Order(NamedTuple):
    """Where the entries of a sparse matrix (out, in) lie: where (nnz), the column of each.

    begin, end (panels, out) delimit the entries of a row in a panel of `width` columns; `local`:
    columns count from the panel's first. starts (out + 1) counts the entries of the rows above. visit
    (panels, out) int32: in which order the rows of each block of `block` rows are taken in a panel; that of
    memory if it is `wide`.
    """

    begin: np.ndarray
    end: np.ndarray
    where: np.ndarray
    width: int
    local: bool
    starts: np.ndarray
    visit: np.ndarray
    block: int

    @classmethod
    def of(cls, begin, end, where, width, local, starts):
        """With one block or an even number of about equal size, at most MOST_ROWS each, and their visits."""
        rows = begin.shape[1]
        blocks = 1 if rows <= MOST_ROWS else -(-rows // (2 * MOST_ROWS)) * 2
        block = max(1, -(-rows // blocks))
        visit = np.empty(begin.shape, dtype=np.int32)
        order = cls(begin, end, where, width, local, starts, visit, block)
        if order.wide:
            visit[...] = np.arange(rows)
        else:
            arrange_visits(begin, end, block, visit)
        return order

    @property
    def wide(self):
        """Whether a panel's part of 64 samples is more than a second-level cache holds."""
        return self.width * 4 * LANES > SECOND

    @property
    def tile(self):
        """Samples of a tile: 128, or fewer where a panel is too wide for so many to stay in cache."""
        tile = TILE
        while tile > LANES and tile * self.width > LARGEST:
            tile //= 2
        return tile

    def bounds(self, parts):
        """Rows that cut the matrix into parts of about equally many entries."""
        return evenly(self.starts, parts)


@kernel
def multiply_plain(begin, end, idx, width, local, val, x, y):
    """(1) for any dtype, one number at a time; x (in, r), y (out, >= r)."""
    for i in range(begin.shape[1]):
        for s in range(x.shape[1]):
            y[i, s] = 0
        for c in range(begin.shape[0]):
            base = c * width if local else 0
            for p in range(begin[c, i], end[c, i]):
                for s in range(x.shape[1]):
                    y[i, s] += val[p] * x[base + idx[p], s]


@kernel
def scatter_plain(begin, end, idx, width, local, val, dy, dx):
    """(2) for any dtype, one number at a time; dy (out, r), dx (in, >= r)."""
    for j in range(dx.shape[0]):
        for s in range(dy.shape[1]):
            dx[j, s] = 0
    for c in range(begin.shape[0]):
        base = c * width if local else 0
        for i in range(begin.shape[1]):
            for p in range(begin[c, i], end[c, i]):
                for s in range(dy.shape[1]):
                    dx[base + idx[p], s] += val[p] * dy[i, s]


@kernel
def sample_plain(begin, end, idx, width, local, x, dy, val):
    """(3) for any dtype, one number at a time; x (in, r), dy (out, r)."""
    for c in range(begin.shape[0]):
        base = c * width if local else 0
        for i in range(begin.shape[1]):
            for p in range(begin[c, i], end[c, i]):
                val[p] = 0
                for s in range(x.shape[1]):
                    val[p] += x[base + idx[p], s] * dy[i, s]
