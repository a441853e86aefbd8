"""SlicedWeight: slices of 16 or more rows that advance together, x looked up in registers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from minisparse.errors import UsageError
from minisparse.kernels import sliced
from minisparse.kernels.sliced import LANES, MOST, STEPS, WINDOW
from minisparse.nn.param import Array
from minisparse.weights.pattern import CSRPattern, index_type
from minisparse.weights.stored import Geometry, StoredWeight


class SlicedWeight(StoredWeight):
    """Slices of 16 rows with sliding windows: a value and a byte per slot, some empty; for single samples."""

    few: ClassVar[int] = 4
    layout: ClassVar[int] = 2
    settings: ClassVar[tuple[dict[str, Any], ...]] = ({"rows_per_lane": 2}, {"rows_per_lane": 3})

    def __init__(
        self, pattern: CSRPattern, values: Array, geometry: Geometry | None = None, rows_per_lane: int = 2
    ) -> None:
        """rows_per_lane: 1, 2 or 3; more of them leave fewer slots empty and cost more per slot."""
        if isinstance(rows_per_lane, bool) or rows_per_lane not in range(1, MOST + 1):
            raise UsageError(f"sliced rows_per_lane: got {rows_per_lane!r}, expected 1, 2 or 3.")
        self.rows_per_lane = rows_per_lane
        super().__init__(pattern, values, geometry)

    def _arrange(self, pattern: CSRPattern) -> Array:
        q = self.rows_per_lane
        self._starts = np.zeros(-(-self.shape[0] // (LANES * q)) + 1, dtype=np.int64)
        kind = index_type(self.shape[1])
        none = np.empty(0, dtype=np.int64)
        structure: tuple[Array, ...] = (np.empty(0, dtype=kind), np.empty(0, dtype=np.uint8), none)
        sliced.arrange(pattern.indptr, pattern.indices, q, self._starts, *structure)
        steps = int(self._starts[-1])
        self._window: Array = np.zeros(steps, dtype=kind)
        self._index = np.zeros(steps * LANES, dtype=np.uint8)
        source = np.full(steps * LANES, -1, dtype=np.int64)
        structure = (self._window, self._index, source)
        sliced.arrange(pattern.indptr, pattern.indices, q, self._starts, *structure)
        return source

    def _slots(self) -> Array:
        steps = self._window.size
        index = self._index.reshape(-1, LANES, STEPS).transpose(0, 2, 1).reshape(steps, LANES)
        group = np.repeat(np.arange(self._starts.size - 1), np.diff(self._starts))[:, None]
        column = self._window.astype(np.int64)[:, None] + index % WINDOW
        turn = np.array([0, 0, 1, 0, 2])[index // WINDOW]
        row = (group * self.rows_per_lane + turn) * LANES + np.arange(LANES)
        return np.where(index >= WINDOW, row * self.shape[1] + column, -1)

    def _structure(self) -> tuple[Array, ...]:
        return self._starts, self._window, self._index

    def _one(self, x: Array, values: Array) -> Array:
        y = np.empty((self._starts.size - 1) * self.rows_per_lane * LANES, dtype=x.dtype)
        structure = (self._starts, self._window, self._index)
        sliced.matvec(*structure, values, self.rows_per_lane, x, y)
        return y
