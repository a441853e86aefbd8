"""CSRWeight and PanelWeight: values and column numbers, row by row, or panel of columns by panel."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from minisparse.errors import UsageError
from minisparse.kernels import csr, multiply
from minisparse.kernels.order import Order
from minisparse.kernels.packing import room
from minisparse.nn.param import Array
from minisparse.weights.pattern import CSRPattern, bounds_type, index_type, panel_width
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
        csr.matvec(p.indptr, p.indices, values, x, y)
        return y


class PanelWeight(StoredWeight):
    """CSR panel by panel: 16-bit columns within panels that stay in cache; for batches."""

    layout: ClassVar[int] = 3
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
        panel, panels = pattern.indices // width, -(-columns // width)
        segment = panel.astype(np.int64) * out + pattern.rows  # of each entry; panel * out + row
        counts = np.bincount(segment, minlength=panels * out)
        begin: Array = np.zeros((panels, out), dtype=bounds_type(pattern.nnz))
        end = counts.reshape(begin.shape).astype(begin.dtype)
        order = Order.of(begin, end, pattern.indices, width, True, pattern.indptr)
        # the kernel reads block by block of rows, in these panel by panel, in these as it visits the rows
        visits = order.visit + np.arange(panels)[:, None] * out
        sequence = np.concatenate(
            [visits[:, k : k + order.block].reshape(-1) for k in range(0, out, order.block)]
        )
        end.reshape(-1)[sequence] = np.cumsum(counts[sequence])
        begin[...] = end - counts.reshape(begin.shape)
        rank = np.empty(sequence.size, dtype=np.int64)
        rank[sequence] = np.arange(sequence.size)
        source = np.argsort(rank[segment], kind="stable")
        where = (pattern.indices - panel * width)[source].astype(index_type(width))
        self._order = order._replace(where=where)
        return source

    def _slots(self) -> Array:
        begin, end = self._order.begin.reshape(-1), self._order.end.reshape(-1)
        segment = np.argsort(begin, kind="stable")
        segment = np.repeat(segment, (end - begin)[segment])
        panel, row = np.divmod(segment, self.shape[0])
        return row * self.shape[1] + panel * self._order.width + self._order.where

    def _structure(self) -> tuple[Array, ...]:
        order = self._order
        return order.begin, order.end, order.visit, order.where, order.starts

    def _batch(self, x: Array, values: Array) -> Array:
        y = room(self.shape[0], x.shape[1], x.dtype)
        multiply.multiply(self._order, values, x, y)
        return y
