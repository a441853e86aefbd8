"""SlicedWeight: slices of 16 or more rows that advance together, x looked up in registers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from minisparse.errors import UsageError
from minisparse.kernels import sliced
from minisparse.kernels.sliced import LANES, MOST, SHARES, STEPS, WINDOW
from minisparse.nn.param import Array
from minisparse.weights.pattern import CSRPattern, index_type
from minisparse.weights.stored import Geometry, StoredWeight

# Measured: entries of a row in a window from which it has a lane of its own, and (steps, entries of a lane in
# a window) from which so many share it.
ALONE, SHARED = 9, ((4, 6), (2, 1), (1, 0))
GAIN = 1.3  # less is lost to windows anyway


class SlicedWeight(StoredWeight):
    """Slices of 16 rows with sliding windows: a value and a byte per slot, some empty; for single samples."""

    few: ClassVar[int] = 4
    layout: ClassVar[int] = 3
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
        order = np.arange(counts.size) if self._order is None else self._order.astype(np.int64)
        self._starts = np.zeros(-(-self.shape[0] // (LANES * q)) + 1, dtype=np.int64)
        kind = index_type(self.shape[1])
        none = np.empty(0, dtype=np.int64)
        given = (pattern.indptr, pattern.indices, order, q, self._share, self._starts)
        sliced.arrange(*given, np.empty(0, dtype=kind), np.empty(0, dtype=np.uint8), none)
        steps = int(self._starts[-1])
        self._window: Array = np.zeros(steps // self._share, dtype=kind)
        self._index = np.zeros(steps * LANES, dtype=np.uint8)
        source = np.full(steps * LANES, -1, dtype=np.int64)
        sliced.arrange(*given, self._window, self._index, source)
        return source

    def _slots(self) -> Array:
        window = np.repeat(self._window.astype(np.int64), self._share)
        index = self._index.reshape(-1, LANES, STEPS).transpose(0, 2, 1).reshape(-1, LANES)
        group = np.repeat(np.arange(self._starts.size - 1), np.diff(self._starts))[:, None]
        column = window[:, None] + index % WINDOW
        turn = np.array([0, 0, 1, 0, 2])[index // WINDOW]
        row = (group * self._rows_of_lane + turn) * LANES + np.arange(LANES)
        if self._order is not None:
            row = self._order[np.minimum(row, self.shape[0] - 1)].astype(np.int64)
        return np.where(index >= WINDOW, row * self.shape[1] + column, -1)

    def _structure(self) -> tuple[Array, ...]:
        structure = self._starts, self._window, self._index
        return structure if self._order is None else (*structure, self._order)

    def _one(self, x: Array, values: Array) -> Array:
        y = np.empty((self._starts.size - 1) * self._rows_of_lane * LANES, dtype=x.dtype)
        structure = (self._starts, self._window, self._index)
        sliced.matvec(*structure, values, self._rows_of_lane, self._share, x, y)
        if self._order is None:
            return y
        placed = np.empty(self.shape[0], dtype=x.dtype)
        placed[self._order] = y[: self.shape[0]]
        return placed


def longest_first(counts: Array, rows_per_lane: int) -> Array | None:
    """(out,) the rows by descending number of entries, if slices then have GAIN times fewer steps; else None.

    counts (out,) entries of each row. A slice has as many steps, at the least, as its busiest lane entries.
    """

    def steps(counts: Array) -> int:
        whole = np.zeros(-(-counts.size // (rows_per_lane * LANES)) * rows_per_lane * LANES, dtype=np.int64)
        whole[: counts.size] = counts
        return int(whole.reshape(-1, rows_per_lane, LANES).sum(axis=1).max(axis=1).sum())

    order = np.argsort(-counts, kind="stable")
    useful = steps(counts) > GAIN * steps(counts[order])
    return order.astype(index_type(counts.size)) if useful else None
