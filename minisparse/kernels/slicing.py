"""Slots for the entries of a sliced matrix: which step and lane takes which, and the windows of columns.

A slice is 16 Q rows, a lane serves Q of them. While entries wait, a window is opened for S steps, two
registers of 16 columns:

    [a, a + 16)    a the first column that waits                                            (1)
    [b, b + 16)    b the waiting column, a + 16 <= b < a + REACH, that gives the most       (2)
                   entries to lanes which the first register leaves with less than S

Each lane takes up to S of its entries in it, in column order. So a lane with few entries near a goes ahead to
b, and the others catch up while it has nothing to do there: with one register of 32 columns (b = a + 16) a
fifth of the slots at 10 % density stay empty, with two a ninth (Q = S = 2). No register ends beyond the last
column, as long as there are 16.
"""

import numpy as np

from minisparse.kernels.jit import kernel
from minisparse.kernels.sliced import LANES, STEPS, WINDOW

REACH = 80  # columns; looking further ahead takes longer and saves a slot in a hundred


@kernel
def _in_column_order(indptr, indices, rows, entry, spot):
    """Fill entry with the entries of these rows by column, spot with their rows; return the columns."""
    n = 0
    column = np.empty(entry.size, np.int64)
    for i in range(rows.size):
        for p in range(indptr[rows[i]], indptr[rows[i] + 1]):
            entry[n], spot[n], column[n] = p, i, indices[p]
            n += 1
    by = np.argsort(column, kind="mergesort")
    entry[:], spot[:] = entry[by], spot[by]
    return column[by]


@kernel
def _second(column, lane, taken, head, a, last, share):
    """(2) for entries sorted by column, those from `head` on wait unless taken; a if none gives any."""
    end = column.size
    lacks = np.full(LANES, share)
    middle = head
    while middle < end and column[middle] < a + LANES:
        lacks[lane[middle]] -= not taken[middle]
        middle += 1
    wanted = 0
    for k in range(LANES):
        wanted += max(0, lacks[k])
    best, most = a, 0
    here, given = np.zeros(LANES, np.int64), 0  # what a register from column[left] on holds, and gives
    left = right = middle
    while left < end and column[left] < a + REACH and most < wanted:
        b = min(column[left], last)
        while right < end and column[right] < b + LANES:
            if not taken[right]:
                here[lane[right]] += 1
                given += here[lane[right]] <= lacks[lane[right]]
            right += 1
        if not taken[left]:
            if given > most:
                best, most = b, given
            given -= here[lane[left]] <= lacks[lane[left]]
            here[lane[left]] -= 1
        left += 1
    return best


@kernel
def arrange(indptr, indices, columns, order, rows, share, starts, window, slot, code):
    """Fill the structure of a matrix in row order, whose rows slices take in `order`; `rows` is Q, `share` S.

    starts (slices + 1) in steps, of which a slice has a multiple of four; window (nnz + 4 slices, 2) of
    zeros, of which starts[-1] / S pairs are used; of each entry slot = 16 step + lane and code = 16 r + k +
    32 2^q: it is column k of register r, of the lane's row q.
    """
    step, last = 0, max(0, columns - LANES)
    for g in range(starts.size - 1):
        members = order[g * rows * LANES : (g + 1) * rows * LANES]
        size = (indptr[members + 1] - indptr[members]).sum()
        entry, spot = np.empty(size, np.int64), np.empty(size, np.int64)
        column = _in_column_order(indptr, indices, members, entry, spot)
        lane, taken = spot & (LANES - 1), np.zeros(size, np.bool_)
        head = 0
        while head < size:
            a = min(column[head], last)
            b = _second(column, lane, taken, head, a, last, share)
            window[step // share, 0], window[step // share, 1] = a, b
            used = np.zeros(LANES, np.int64)
            j = head
            while j < size and column[j] < b + LANES:
                k, near = lane[j], column[j] < a + LANES
                if not taken[j] and used[k] < share and (near or column[j] >= b):
                    taken[j] = True
                    slot[entry[j]] = (step + used[k]) * LANES + k
                    at = column[j] - a if near else LANES + column[j] - b
                    code[entry[j]] = at + (WINDOW << spot[j] // LANES)
                    used[k] += 1
                j += 1
            step += share
            while head < size and taken[head]:
                head += 1
        step += -step % STEPS
        starts[g + 1] = step
