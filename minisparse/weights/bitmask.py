"""BitmaskWeight: the values, and one bit for each place of the matrix."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from minisparse.kernels import bitmask
from minisparse.kernels.bitmask import LANES, ROWS
from minisparse.nn.param import Array
from minisparse.weights.pattern import CSRPattern
from minisparse.weights.stored import StoredWeight


class BitmaskWeight(StoredWeight):
    """Values and a 16-bit mask per 16 columns: the smallest unstructured format below 94 % sparsity."""

    few: ClassVar[int] = 4

    def _arrange(self, pattern: CSRPattern) -> Array:
        self._masks = bitmask.pack(pattern.mask)
        rows, columns = pattern.rows, pattern.indices.astype(np.int64)
        block = rows // ROWS * self._masks.shape[1] + columns // LANES
        groups = np.arange(0, self.shape[0], ROWS)
        self._first = pattern.indptr[groups]
        return np.argsort((block * ROWS + rows % ROWS) * LANES + columns % LANES)

    def _slots(self) -> Array:
        bits = self._masks[..., None] >> np.arange(LANES, dtype=np.uint16) & 1
        group, block, row, bit = np.nonzero(bits)
        return (group * ROWS + row) * self.shape[1] + block * LANES + bit

    def _structure(self) -> tuple[Array, ...]:
        return self._masks, self._first

    def _one(self, x: Array, values: Array) -> Array:
        y = np.empty(len(self._masks) * ROWS, dtype=x.dtype)
        bitmask.matvec(self._masks, self._first, values, x, y)
        return y
