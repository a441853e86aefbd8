"""Ascending lists of positions: two side by side, one row by row, and entries taken from where they say."""

import numpy as np

from minisparse.kernels.jit import kernel


@kernel
def _places(new, old, at):
    k = 0
    for i in range(new.size):
        while k < old.size and old[k] < new[i]:
            k += 1
        at[i] = k if k < old.size and old[k] == new[i] else -1


def places(new, old):
    """(new,) int64: where each entry of `new` stands in `old`, -1 if it does not; both ascending int64."""
    at = np.empty(new.size, dtype=np.int64)
    _places(new, old, at)
    return at


@kernel
def _skip(ranks, excluded, found):
    k = 0
    for i in range(ranks.size):
        while k < excluded.size and excluded[k] - k <= ranks[i]:
            k += 1
        found[i] = ranks[i] + k


def skip(ranks, excluded):
    """(ranks,) int64: the numbers of these ranks among those not `excluded`; both ascending int64."""
    found = np.empty(ranks.size, dtype=np.int64)
    _skip(ranks, excluded, found)
    return found


@kernel
def _union(a, b, both):
    k = m = 0
    for i in range(both.size):
        if m == b.size or (k < a.size and a[k] <= b[m]):
            both[i] = a[k]
            k += 1
        else:
            both[i] = b[m]
            m += 1


def union(a, b):
    """(a + b,) int64: two ascending lists as one; both int64."""
    both = np.empty(a.size + b.size, dtype=np.int64)
    _union(a, b, both)
    return both


@kernel
def rows(flat, columns, indptr, indices):
    """From ascending positions in a matrix of so many columns: where its rows start, and each one's column.

    indptr (rows + 1); indices (flat.size), of a type that holds a column.
    """
    p = 0
    for i in range(indptr.size - 1):
        indptr[i] = p
        while p < flat.size and flat[p] < (i + 1) * columns:
            indices[p] = flat[p] - i * columns
            p += 1
    indptr[-1] = p


@kernel
def _gather(values, order, empty, taken):
    for i in range(order.size):
        value = values[max(order[i], 0)]  # always read: a branch would be taken at random
        taken[i] = value if order[i] >= 0 else empty


BITS = {4: np.int32, 8: np.int64}  # by bytes: numbers are moved as what they are made of, whatever they mean


def gather(values, order, empty, taken):
    """Into `taken`: values[order] where order is not -1, `empty` (0, or -1 of whole numbers) where it is.

    values and taken: one-dimensional, contiguous, of one type; order (taken.size,) int64.
    """
    bits = BITS.get(values.itemsize)
    if not values.size:
        taken[...] = empty
    elif bits is None:
        values.take(order, mode="clip", out=taken)  # entry 0 where order is -1
        taken[order < 0] = empty
    else:
        _gather(values.view(bits), order, empty, taken.view(bits))
