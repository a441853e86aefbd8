"""The entries of largest magnitude of a matrix that is never whole: blocks of rows go past, the best stay.

    S_b = the k largest |a| of S_(b-1) and block b,   S_0 empty                            (1)

is after the last block the k largest of all. Ties go to the lower flat index: positions ascend from block to
block, so whoever is in S was there first, and only what is strictly larger than the least of a full S can
displace it. Memory: k entries and one block.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minisparse.errors import NonFiniteError, ShapeError, UsageError
from minisparse.kernels.rank import smallest
from minisparse.nn.param import Array

BLOCK_BYTES = 1 << 19  # of the matrix at a time: a block stays in the cache while it is ranked

Blocks = Iterable[Array]  # the rows of a matrix in order, a few (b, in) at a time


def block_rows(columns: int, itemsize: int) -> int:
    """Rows of `columns` numbers that one block takes: BLOCK_BYTES of them, at least one row."""
    return max(1, BLOCK_BYTES // max(1, columns * itemsize))


def first_largest(scores: Array, k: int) -> Array:
    """Ascending indices of the k largest of scores (n,), ties to the lower index; all of them if n <= k."""
    if k >= scores.size:
        return np.arange(scores.size)
    if k == 0:
        return np.empty(0, dtype=np.int64)
    threshold = smallest(scores, scores.size - k)
    chosen = scores > threshold
    tied = np.flatnonzero(scores == threshold)
    chosen[tied[: k - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def largest(blocks: Blocks, k: int, excluded: Array) -> Array:
    """Equation (1): ascending flat positions of the k entries of largest magnitude, (k,) int64.

    excluded: ascending flat positions that are passed over. NonFiniteError where a block has NaN or infinite
    entries, UsageError if fewer than k entries are not excluded.
    """
    best, places, start = np.empty(0), np.empty(0, dtype=np.int64), 0
    for block in blocks:
        score = _magnitudes(block, excluded, start).reshape(-1)
        least = best.min() if best.size == k > 0 else -1.0
        new = np.flatnonzero(score > least)
        pool = np.concatenate([best.astype(score.dtype, copy=False), score[new]])
        stay = first_largest(pool, k)
        best, places = pool[stay], np.concatenate([places, start + new])[stay]
        start += score.size
    if places.size < k:
        raise UsageError(
            f"largest entries: got k={k}, expected at most {places.size}, the number of those not excluded."
        )
    return places


def largest_by_row(blocks: Blocks, counts: Array, excluded: Array) -> Array:
    """The same row by row: the counts[i] largest of row i, ascending flat positions.

    counts (out,) whole numbers; ShapeError unless there are as many rows, UsageError where a row has fewer
    entries that are not excluded.
    """
    found, row = [np.empty(0, dtype=np.int64)], 0
    for block in blocks:
        rows, columns = block.shape
        score = _magnitudes(block, excluded, row * columns)
        wanted = counts[row : row + rows]
        if wanted.size == rows:
            found.append(row * columns + _of_rows(score, wanted))
        row += rows
    if row != len(counts):
        raise ShapeError(f"largest entries by row: got {len(counts)} counts, expected {row}, one for a row.")
    return np.concatenate(found)


def _of_rows(score: Array, counts: Array) -> Array:
    """Ascending flat positions of the counts[i] largest scores of each row; negative ones do not count."""
    rows, columns = score.shape
    most = int(counts.max(initial=0))
    if (counts > np.count_nonzero(score >= 0, axis=1)).any():
        raise UsageError(f"largest entries of a row: got k={most}, expected at most those not excluded.")
    order = np.argsort(-score, axis=1, kind="stable")[:, :most]
    flat = np.arange(rows)[:, None] * columns + order
    return np.sort(flat[np.arange(most) < counts[:, None]])


def _magnitudes(block: Array, excluded: Array, start: int) -> Array:
    """|block| (b, in), and -1 at the excluded positions; `start` is the flat position of its first entry."""
    score = np.abs(block)
    bad = score.size - int(np.count_nonzero(np.isfinite(score)))
    if bad:
        raise NonFiniteError(
            f"scores that grow weights are not finite: got {bad} NaN or infinite among those from flat "
            f"position {start} to {start + score.size - 1}, expected none."
        )
    lo, hi = np.searchsorted(excluded, [start, start + score.size])
    score.reshape(-1)[excluded[lo:hi] - start] = -1
    return score
