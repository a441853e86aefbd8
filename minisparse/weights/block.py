"""BlockWeight: consecutive rows share their columns."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from minisparse.errors import SparseFormatError
from minisparse.kernels import block
from minisparse.kernels.block import HEIGHTS
from minisparse.nn.param import Array
from minisparse.weights.pattern import CSRPattern
from minisparse.weights.stored import StoredWeight


class BlockWeight(StoredWeight):
    """Blocks (BSR): 16, 8, 4 or 2 consecutive rows share their columns, and one column number serves all."""

    few: ClassVar[int] = 4

    @classmethod
    def objection(cls, mask: Array) -> str:
        return "" if _height(mask) else "rows 2k and 2k + 1 with different columns, expected equal ones"

    def _arrange(self, pattern: CSRPattern) -> Array:
        mask = pattern.mask
        self.height = _height(mask)
        if not self.height:
            raise SparseFormatError(f"block weight: got {self.objection(mask)}. Use CSRWeight instead.")
        leaders = np.arange(0, self.shape[0], self.height)
        self._starts = np.concatenate([[0], np.cumsum(np.diff(pattern.indptr)[leaders])])
        group = np.repeat(np.arange(leaders.size), np.diff(self._starts))
        place = np.arange(group.size) - self._starts[group]
        self._columns = pattern.indices[pattern.indptr[leaders[group]] + place]
        row = leaders[group][:, None] + np.arange(self.height)
        entry = pattern.indptr[np.minimum(row, self.shape[0] - 1)] + place[:, None]
        return np.where(row < self.shape[0], entry, -1)

    def _slots(self) -> Array:
        group = np.repeat(np.arange(self._starts.size - 1), np.diff(self._starts))
        row = group[:, None] * self.height + np.arange(self.height)
        flat = row * self.shape[1] + self._columns.astype(np.int64)[:, None]
        return np.where(row < self.shape[0], flat, -1)

    def _structure(self) -> tuple[Array, ...]:
        return self._starts, self._columns

    def _one(self, x: Array, values: Array) -> Array:
        y = np.empty((self._starts.size - 1) * self.height, dtype=x.dtype)
        block.matvec(self._starts, self._columns, values, x, y)
        return y

    def _batch(self, x: Array, values: Array) -> Array:
        y = block.room(self._starts.size - 1, self.height, x.shape[1], x.dtype)
        block.multiply(self._starts, self._columns, values, x, y)
        return y[: self.shape[0]]


def _height(mask: Array) -> int:
    """Largest number of consecutive rows that share their columns throughout; 0 if there is none."""
    for height in HEIGHTS:
        leaders = np.arange(len(mask)) // height * height
        if np.array_equal(mask, mask[leaders]):
            return height
    return 0
