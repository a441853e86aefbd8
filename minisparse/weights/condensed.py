"""CondensedWeight: every neuron that has inputs has the same number of them.

M. Lasby, A. Golubeva, U. Evci, M. Nica, Y. Ioannou. Dynamic Sparse Training with Structured Sparsity. ICLR
2024. arXiv:2305.02299: values and column numbers (active neurons, fan-in), no row pointers, and a list of the
active neurons; the outputs of the others are 0.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from minisparse.errors import SparseFormatError
from minisparse.kernels import csr
from minisparse.nn.param import Array
from minisparse.weights.pattern import CSRPattern, index_type
from minisparse.weights.stored import StoredWeight


class CondensedWeight(StoredWeight):
    """Constant fan-in: as many entries in every row that has any; 16-bit column numbers where they fit."""

    few: ClassVar[int] = 2

    @classmethod
    def objection(cls, mask: Array) -> str:
        counts = np.count_nonzero(mask, axis=1)
        return _uneven(counts)

    def _arrange(self, pattern: CSRPattern) -> Array:
        counts = np.diff(pattern.indptr)
        reason = _uneven(counts)
        if reason:
            raise SparseFormatError(f"condensed weight: got {reason}. Use CSRWeight instead.")
        active = np.flatnonzero(counts)
        self._pattern = pattern
        self._active: Array = active.astype(index_type(self.shape[0]))
        self._columns = pattern.indices.reshape(active.size, -1 if active.size else 0)
        return np.arange(pattern.nnz).reshape(self._columns.shape)

    def _slots(self) -> Array:
        return self._active.astype(np.int64)[:, None] * self.shape[1] + self._columns

    def _structure(self) -> tuple[Array, ...]:
        return self._active, self._columns

    def rows(self) -> tuple[CSRPattern, None]:
        return self._pattern, None

    def _one(self, x: Array, values: Array) -> Array:
        y = np.empty(self.shape[0], dtype=x.dtype)
        csr.fan_in(self._columns, values, self._active, x, y)
        return y


def _uneven(counts: Array) -> str:
    live = np.flatnonzero(counts)
    if live.size == 0:
        return ""
    wrong = live[counts[live] != counts[live[0]]]
    if wrong.size == 0:
        return ""
    row, first = int(wrong[0]), int(live[0])
    return f"{counts[row]} entries in row {row}, expected {counts[first]} as in row {first}, or none"
