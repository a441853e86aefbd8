"""NMWeight: N of every M consecutive columns, in every row."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from minisparse.errors import SparseFormatError
from minisparse.kernels import nm
from minisparse.kernels.nm import KINDS, LANES, STEPS
from minisparse.nn.param import Array
from minisparse.weights.pattern import CSRPattern
from minisparse.weights.stored import StoredWeight

MOST = 256  # the largest M: a place in a group is a byte


class NMWeight(StoredWeight):
    """N:M (2:4, 4:8, 1:4, ...): exactly N of every M columns in every row, 2 to 8 bits of index for each."""

    few: ClassVar[int] = 4
    layout: ClassVar[int] = 2

    @classmethod
    def objection(cls, mask: Array) -> str:
        return "" if find(mask) else f"no M <= {MOST} whose groups of columns all have equally many entries"

    def _arrange(self, pattern: CSRPattern) -> Array:
        mask = pattern.mask
        found = find(mask)
        if found is None:
            raise SparseFormatError(f"N:M weight: got {self.objection(mask)}. Use BitmaskWeight instead.")
        self.keep, self.of = found
        self._kind = kind(self.keep, self.of)
        entries = np.arange(pattern.nnz).reshape(self.shape[0], -1)
        columns = pattern.indices.astype(np.int64).reshape(entries.shape)
        if self._kind is None:
            self._places = (columns % self.of).astype(np.uint8)
            return entries
        group = self._kind[0]
        steps = np.arange(STEPS[group], dtype=np.uint32)[:, None]
        place = (_by_slice(columns, STEPS[group], -1) % group).astype(np.uint32) << 32 // STEPS[group] * steps
        self._places = np.bitwise_or.reduce(place, axis=2)
        return _by_slice(entries, STEPS[group], -1)

    def _slots(self) -> Array:
        out, columns = self.shape
        per_row = columns // self.of * self.keep
        if self._kind is None:
            base = np.arange(per_row) // self.keep * self.of
            return np.arange(out)[:, None] * columns + base + self._places
        group, keep = self._kind
        steps = np.arange(STEPS[group])
        place = self._places[:, :, None] >> (32 // len(steps) * steps[:, None]).astype(np.uint32)
        k = np.arange(self._places.shape[1])[:, None, None] * len(steps) + steps[:, None]
        row = np.arange(len(self._places))[:, None, None, None] * LANES + np.arange(LANES)
        flat = row * columns + k // keep * group + (place % group).astype(np.int64)
        return np.where((row < out) & (k < per_row), flat, -1)

    def _structure(self) -> tuple[Array, ...]:
        return (self._places,)

    def _one(self, x: Array, values: Array) -> Array:
        if self._kind is None:
            y = np.empty(self.shape[0], dtype=x.dtype)
            grid = (self.shape[0], -1, self.keep)
            nm.matvec_any(self._places.reshape(grid), values.reshape(grid), self.of, x, y)
        else:
            y = np.empty(len(self._places) * LANES, dtype=x.dtype)
            nm.matvec(self._places, values.reshape(-1), *self._kind, x, y)
        return y


def find(mask: Array) -> tuple[int, int] | None:
    """(N, M) with the smallest M such that every group of M columns has N < M entries in every row."""
    out, columns = mask.shape
    kept = int(np.count_nonzero(mask))
    for of in range(2, min(columns, MOST) + 1):
        if columns % of or kept * of % mask.size or not 0 < kept < mask.size:
            continue
        keep = kept * of // mask.size
        if (np.count_nonzero(mask.reshape(out, -1, of), axis=2) == keep).all():
            return keep, of
    return None


def kind(keep: int, of: int) -> tuple[int, int] | None:
    """The (B, C) of `kernels.nm` that N:M is an instance of, or None."""
    for group, count in KINDS:
        if group % of == 0 and keep * (group // of) == count:
            return group, count
    return None


def _by_slice(a: Array, steps: int, empty: int) -> Array:
    """(out, k) as (slices of 16 rows, blocks of steps, steps, 16), padded with `empty`."""
    out, k = a.shape
    whole = np.full((-(-out // LANES) * LANES, -(-k // steps) * steps), empty, dtype=a.dtype)
    whole[:out, :k] = a
    return np.ascontiguousarray(
        whole.reshape(-1, LANES, whole.shape[1] // steps, steps).transpose(0, 2, 3, 1)
    )
