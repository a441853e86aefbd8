"""ReducedWeight: a smaller dense matrix, empty rows and columns removed.

Absent entries between kept rows and kept columns are stored as zeros, and multiplied: this is the one
format in which an absent entry against an infinite input gives NaN, as it does in a dense matrix.
"""

from __future__ import annotations

import numpy as np

from minisparse.nn.mode import Mode
from minisparse.nn.param import Array
from minisparse.nn.weight import by_rows, feature_major
from minisparse.weights.pattern import CSRPattern, index_type
from minisparse.weights.stored import StoredWeight


class ReducedWeight(StoredWeight):
    """Structured: the rows and columns that have entries as a smaller dense matrix, and lists of both."""

    @property
    def by_blas(self) -> bool:
        return True

    def _arrange(self, pattern: CSRPattern) -> Array:
        out, columns = pattern.shape
        live = np.flatnonzero(np.diff(pattern.indptr))
        used = np.unique(pattern.indices)
        self._keep_rows: Array = live.astype(index_type(out))
        self._keep_columns: Array = used.astype(index_type(columns))
        order = np.full((live.size, used.size), -1, dtype=np.int64)
        row = np.repeat(np.arange(live.size), np.diff(pattern.indptr)[live])
        order[row, np.searchsorted(used, pattern.indices)] = np.arange(pattern.nnz)
        self._present = None if pattern.nnz == order.size else order >= 0
        return order

    def _slots(self) -> Array:
        flat = self._keep_rows.astype(np.int64)[:, None] * self.shape[1] + self._keep_columns
        return flat if self._present is None else np.where(self._present, flat, -1)

    def _structure(self) -> tuple[Array, ...]:
        present = () if self._present is None else (self._present,)
        return self._keep_rows, self._keep_columns, *present

    def apply(self, x: Array, mode: Mode) -> Array:
        return self._all(by_rows(self._some(x, 1), self.param.value), 0)

    def pull(self, dy: Array) -> Array:
        return self._all(self._some(dy, 0) @ self.param.value, 1)

    def pullback(self, x: Array, dy: Array) -> None:
        self.param.grad[...] = self._product(x, dy)

    def rpullback(self, x: Array, rx: Array, dy: Array, rdy: Array) -> None:
        self.param.rgrad = self._product(x, rdy) + self._product(rx, dy)

    def _product(self, x: Array, dy: Array) -> Array:
        dw = self._some(dy, 0).T @ self._some(x, 1)
        return dw if self._present is None else dw * self._present

    def _kept_along(self, axis: int) -> Array | None:
        """What is kept of rows (axis 0) or columns (axis 1); None if all of it."""
        kept = self._keep_columns if axis else self._keep_rows
        return None if kept.size == self.shape[axis] else kept

    def _some(self, a: Array, axis: int) -> Array:
        """The columns of a (r, out or in) that belong to kept rows or columns."""
        kept = self._kept_along(axis)
        return a if kept is None else a[:, kept]

    def _all(self, a: Array, axis: int) -> Array:
        """The inverse, with zeros for what was removed."""
        kept = self._kept_along(axis)
        if kept is None:
            return a
        shape = len(a), self.shape[axis]
        whole = np.zeros(shape, dtype=a.dtype, order="F" if feature_major(a) else "C")
        whole[:, kept] = a
        return whole
