"""CSRWeight and PanelWeight: values and column numbers, row by row, or panel of columns by panel."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from minisparse.errors import UsageError
from minisparse.kernels import csr, panels
from minisparse.kernels.order import Order
from minisparse.nn.param import Array
from minisparse.weights.pattern import CSRPattern, index_type, panel_width
from minisparse.weights.stored import Geometry, StoredWeight


class CSRWeight(StoredWeight):
    """Compressed rows (CSR): a value and a column number per entry; the format for sparse training."""

    few: ClassVar[int] = 2

    def _arrange(self, pattern: CSRPattern) -> Array:
        self._pattern = pattern
        return np.arange(pattern.nnz)

    def _slots(self) -> Array:
        return self._pattern.flat

    def _structure(self) -> tuple[Array, ...]:
        return self._pattern.indptr, self._pattern.indices

    def rows(self) -> tuple[CSRPattern, None]:
        return self._pattern, None

    @property
    def bits(self) -> int:
        """Bits the indices need at the least: nnz ceil(log2 in) + out ceil(log2 nnz)."""
        return self._pattern.bits

    def _one(self, x: Array, values: Array) -> Array:
        y = np.empty(self.shape[0], dtype=x.dtype)
        p = self._pattern
        csr.matvec(p.indptr, p.indices, values, x, y, p.order().bounds)
        return y


class PanelWeight(StoredWeight):
    """CSR panel by panel: 16-bit columns within panels that stay in cache; for batches."""

    settings: ClassVar[tuple[dict[str, Any], ...]] = ({"narrower": 1}, {"narrower": 2})

    def __init__(
        self, pattern: CSRPattern, values: Array, geometry: Geometry | None = None, narrower: int = 1
    ) -> None:
        """narrower: divides the default width of a panel (`pattern.panel_width`), an integer >= 1."""
        if not isinstance(narrower, int) or isinstance(narrower, bool) or narrower < 1:
            raise UsageError(f"panels narrower: got {narrower!r}, expected an integer >= 1.")
        self.narrower = narrower
        super().__init__(pattern, values, geometry)

    def _arrange(self, pattern: CSRPattern) -> Array:
        out, columns = pattern.shape
        width = -(-panel_width(pattern.nnz, pattern.shape) // self.narrower)
        panel = pattern.indices // width
        order = np.argsort(panel, kind="stable")
        place = panel.astype(np.int64) * out + pattern.rows
        counts = np.bincount(place, minlength=-(-columns // width) * out)
        self._ends = np.concatenate([[0], np.cumsum(counts)])
        index = (pattern.indices - panel * width)[order].astype(index_type(width))
        grid = (-1, out)
        self._order = Order(
            self._ends[:-1].reshape(grid), self._ends[1:].reshape(grid), index, width, True, pattern.indptr
        )
        return order

    def _slots(self) -> Array:
        panels_, out = self._order.begin.shape
        place = np.repeat(np.arange(panels_ * out), np.diff(self._ends))
        panel, row = np.divmod(place, out)
        return row * self.shape[1] + panel * self._order.width + self._order.where

    def _structure(self) -> tuple[Array, ...]:
        return self._ends, self._order.where, self._order.starts

    def _batch(self, x: Array, values: Array) -> Array:
        y = panels.room(self.shape[0], x.shape[1], x.dtype)
        panels.multiply(self._order, values, x, y)
        return y
