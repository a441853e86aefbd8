"""SlicedWeight: slices of 16 or more rows that advance together, x looked up in registers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from minisparse.errors import UsageError
from minisparse.kernels import sliced
from minisparse.kernels.sliced import LANES, MOST, SHARES, STEPS, WINDOW
from minisparse.kernels.slicing import arrange
from minisparse.nn.param import Array
from minisparse.weights.pattern import CSRPattern, index_type
from minisparse.weights.stored import Geometry, StoredWeight

# Measured: entries of a row in a window from which it has a lane of its own, and (steps, entries of a lane in
# a window) from which so many share it.
ALONE, SHARED = 5, ((4, 8), (2, 1.5), (1, 0))
GAIN = 1.3  # less is lost to windows anyway
APART = 1.5  # times the deviation of chance


class SlicedWeight(StoredWeight):
    """Slices of 16 rows with sliding windows: a value and a byte per slot, some empty; for single samples."""

    few: ClassVar[int] = 4
    layout: ClassVar[int] = 4
    settings: ClassVar[tuple[dict[str, Any], ...]] = tuple({"rows_per_lane": q} for q in range(1, MOST + 1))

    def __init__(
        self,
        pattern: CSRPattern,
        values: Array,
        geometry: Geometry | None = None,
        rows_per_lane: int | None = None,
        steps_per_window: int | None = None,
    ) -> None:
        """More rows_per_lane, 1 to 3, leave fewer slots empty and cost more per slot.

        More steps_per_window, 1, 2 or 4, leave more slots empty and cost less per slot. None: what suits the
        number of entries that a row has in a window, on average.
        """
        if isinstance(rows_per_lane, bool) or rows_per_lane not in (None, *range(1, MOST + 1)):
            raise UsageError(f"sliced rows_per_lane: got {rows_per_lane!r}, expected 1, 2 or 3.")
        if isinstance(steps_per_window, bool) or steps_per_window not in (None, *SHARES):
            raise UsageError(f"sliced steps_per_window: got {steps_per_window!r}, expected 1, 2 or 4.")
        self.rows_per_lane, self.steps_per_window = rows_per_lane, steps_per_window
        super().__init__(pattern, values, geometry)

    def _arrange(self, pattern: CSRPattern) -> Array:
        counts = np.diff(pattern.indptr)
        full = max(1, int(np.count_nonzero(counts)))
        per_row = WINDOW * pattern.nnz / (self.shape[1] * full)  # entries in a window of a row that has any
        q = self._rows_of_lane = self.rows_per_lane or (1 if per_row >= ALONE else 2)
        self._share = self.steps_per_window or next(s for s, least in SHARED if q * per_row >= least)
        self._order = longest_first(counts, q)
        if not self._order.size and counts.size > LANES * q:
            self._order = side_by_side(pattern)
        order = self._order.astype(np.int64) if self._order.size else np.arange(counts.size)
        self._starts = np.zeros(-(-self.shape[0] // (LANES * q)) + 1, dtype=np.int64)
        most = pattern.nnz + STEPS * self._starts.size  # windows: with an entry each, and those of padding
        windows: Array = np.zeros((most, 2), dtype=index_type(self.shape[1]))
        slot, code = np.empty(pattern.nnz, dtype=np.int64), np.empty(pattern.nnz, dtype=np.uint8)
        given = (pattern.indptr, pattern.indices, self.shape[1], order, q, self._share)
        arrange(*given, self._starts, windows, slot, code)
        steps = int(self._starts[-1])
        self._window: Array = windows[: steps // self._share].copy()
        index = np.zeros(steps * LANES, dtype=np.uint8)
        index[slot] = code
        self._index = index.reshape(-1, STEPS, LANES).transpose(0, 2, 1).ravel()  # words of four steps
        source = np.full(steps * LANES, -1, dtype=np.int64)
        source[slot] = np.arange(pattern.nnz)
        return source

    def _slots(self) -> Array:
        window = np.repeat(self._window.astype(np.int64), self._share, axis=0)
        index = self._index.reshape(-1, LANES, STEPS).transpose(0, 2, 1).reshape(-1, LANES)
        group = np.repeat(np.arange(self._starts.size - 1), np.diff(self._starts))[:, None]
        column = np.take_along_axis(window, index // LANES % 2, axis=1) + index % LANES
        turn = np.array([0, 0, 1, 0, 2])[index // WINDOW]
        row = (group * self._rows_of_lane + turn) * LANES + np.arange(LANES)
        if self._order.size:
            row = self._order[np.minimum(row, self.shape[0] - 1)].astype(np.int64)
        return np.where(index >= WINDOW, row * self.shape[1] + column, -1)

    def _structure(self) -> tuple[Array, ...]:
        return self._starts, self._window, self._index, self._order

    def _one(self, x: Array, values: Array) -> Array:
        y = np.empty(self.shape[0], dtype=x.dtype)
        structure = (self._starts, self._window, self._index, values, self._order)
        sliced.matvec(*structure, self._rows_of_lane, self._share, x, y)
        return y


def longest_first(counts: Array, rows_per_lane: int) -> Array:
    """(out,) the rows by descending number of entries, if slices then have GAIN times fewer steps; else (0,).

    counts (out,) entries of each row. A slice has as many steps, at the least, as its busiest lane entries.
    """

    def steps(counts: Array) -> int:
        whole = np.zeros(-(-counts.size // (rows_per_lane * LANES)) * rows_per_lane * LANES, dtype=np.int64)
        whole[: counts.size] = counts
        return int(whole.reshape(-1, rows_per_lane, LANES).sum(axis=1).max(axis=1).sum())

    order = np.argsort(-counts, kind="stable")
    useful = steps(counts) > GAIN * steps(counts[order])
    return order[: counts.size if useful else 0].astype(index_type(counts.size))


def side_by_side(pattern: CSRPattern) -> Array:
    """(out,) the rows by their mean column, if these lie APART times as far apart as by chance; else (0,).

    Rows with their entries in the same part of the matrix go through it together. The mean of k different
    numbers of 0, ..., n - 1 that are drawn has variance (n + 1) (n - k) / (12 k).
    """
    columns, counts = pattern.shape[1], np.diff(pattern.indptr)
    before = np.concatenate([[0], np.cumsum(pattern.indices, dtype=np.int64)])
    mean = np.diff(before[pattern.indptr]) / np.maximum(counts, 1)
    there = counts > 0
    chance = ((columns + 1) * (columns - counts[there]) / (12 * counts[there])).sum()
    useful = ((mean[there] - mean[there].mean()) ** 2).sum() > APART**2 * chance if there.any() else False
    order = np.argsort(np.where(there, mean, columns), kind="stable")
    return order[: counts.size if useful else 0].astype(index_type(counts.size))
