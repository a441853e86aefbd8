"""StoredWeight: what all weights that store present entries only have in common.

A format lays the entries out in slots, as its kernel reads them; some slots may be padding, which is
always 0. Its Param has one number per slot. Everything that is not the format's own product goes through
the entries in row order (`rows`), and the kernels of `multiply.py` and `adjoint.py`: batches, dX, dW on the
pattern, and conversions. These never form a dense matrix; `dense`, `rdense` and `mask` do.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np

from minisparse.errors import ShapeError, SparseFormatError
from minisparse.kernels import adjoint, multiply
from minisparse.kernels.lanes import aligned
from minisparse.kernels.merge import gather, places
from minisparse.kernels.packing import room
from minisparse.nn.mode import Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight, check_flat, spread
from minisparse.nn.window import Window
from minisparse.weights import convolution
from minisparse.weights.pattern import CSRPattern

Geometry = tuple[int, int, int, int]


class StoredWeight(Weight):
    """Entries at the positions of a CSRPattern, in the slots of a format."""

    few: ClassVar[int] = 0  # samples up to which `_one` sample at a time is faster than a batch product
    settings: ClassVar[tuple[dict[str, Any], ...]] = ({},)  # constructor settings worth measuring
    layout: ClassVar[int] = 1  # counts how often the order of the slots has changed

    def __init__(self, pattern: CSRPattern, values: Array, geometry: Geometry | None = None) -> None:
        """values (nnz) in row order; geometry defaults to a Linear layer's.

        Raises ShapeError when they do not agree, SparseFormatError when the format cannot store the pattern.
        """
        self.geometry = geometry or (*pattern.shape, 1, 1)
        if self.shape != tuple(pattern.shape) or 0 in self.shape:
            raise ShapeError(
                f"weight shape: got {tuple(pattern.shape)}, expected {self.shape} by its geometry, both >= 1."
            )
        if values.shape != (pattern.nnz,):
            raise ShapeError(f"weight values: got shape {values.shape}, expected ({pattern.nnz},).")
        self._rows: tuple[CSRPattern, Array | None] | None = None
        self._kept = pattern.nnz
        self.param = Param(_laid_out(values, self._arrange(pattern)))

    @property
    def by_blas(self) -> bool:
        return False

    @classmethod
    def from_dense(
        cls, dense: Array, mask: Array | None = None, geometry: Geometry | None = None, **settings: Any
    ) -> Self:
        """The entries of dense (out, in) where mask is True; without a mask all of them."""
        mask = np.ones(dense.shape, dtype=bool) if mask is None else mask
        if mask.shape != dense.shape or mask.dtype != bool or mask.ndim != 2:
            raise ShapeError(f"mask: got shape {mask.shape} of {mask.dtype}, expected {dense.shape} of bool.")
        pattern = CSRPattern.from_mask(mask)
        return cls(pattern, dense.reshape(-1)[pattern.flat], geometry, **settings)

    @classmethod
    def objection(cls, mask: Array) -> str:
        """Why this format cannot store mask (out, in), in words; empty if it can."""
        return ""

    # What a format defines.

    @abstractmethod
    def _arrange(self, pattern: CSRPattern) -> Array:
        """Build the structure; (slots) int64, which entry of the pattern each slot holds, -1 for padding."""

    @abstractmethod
    def _slots(self) -> Array:
        """Flat position of each slot in the matrix, -1 for padding, read off the structure."""

    @abstractmethod
    def _structure(self) -> tuple[Array, ...]:
        """The arrays that are stored beside the values."""

    def _one(self, x: Array, values: Array) -> Array:
        """W x for one contiguous sample x (in): the first `out` numbers of what is returned."""
        raise NotImplementedError(type(self).__name__)

    def _batch(self, x: Array, values: Array) -> Array:
        """W x for x (in, r): an array (out, >= r) whose first r columns count."""
        pattern, slots = self.rows()
        y = room(self.shape[0], x.shape[1], x.dtype)
        multiply.multiply(pattern.order(), _taken(values, slots), x, y)
        return y

    # What follows from it.

    def rows(self) -> tuple[CSRPattern, Array | None]:
        """The entries in row order, and the slot of each; None where slots are in row order themselves.

        Made when first asked for, and kept until the next `rewire`.
        """
        if self._rows is None:
            flat = self._slots().reshape(-1)
            slots = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
            self._rows = CSRPattern.from_flat(flat[slots], self.shape), slots
        return self._rows

    @property
    def flat(self) -> Array:
        return self.rows()[0].flat

    @property
    def values(self) -> Array:
        return _taken(self.param.value, self.rows()[1])

    @property
    def grads(self) -> Array:
        return _taken(self.param.grad, self.rows()[1])

    @property
    def bytes(self) -> int:
        """Bytes of values and structure, padding included: all that inference in this format reads."""
        return self.param.value.nbytes + sum(a.nbytes for a in self._structure())

    @property
    def mask(self) -> Array:
        return self.rows()[0].mask

    @property
    def kept(self) -> int:
        return self._kept

    def params(self) -> dict[str, Param]:
        return {"weight": self.param}

    def dense(self) -> Array:
        return spread(self.flat, self.values, self.shape)

    def rdense(self) -> Array:
        return spread(self.flat, _taken(self.param.v(), self.rows()[1]), self.shape)

    def apply(self, x: Array, mode: Mode) -> Array:
        """Y = X W^T. A batch comes back feature by feature in memory (the strides of a transpose)."""
        x, values = _same_type(x, self.param.value)
        if len(x) > self.few:
            return self._batch(x.T, values)[:, : len(x)].T
        samples = np.ascontiguousarray(x)
        if len(x) == 1:
            return self._one(samples[0], values)[None, : self.shape[0]]
        y = np.empty((len(x), self.shape[0]), dtype=x.dtype)
        for sample, row in zip(samples, y, strict=True):
            row[...] = self._one(sample, values)[: self.shape[0]]
        return y

    def pull(self, dy: Array) -> Array:
        dy, values = _same_type(dy, self.param.value)
        pattern, slots = self.rows()
        dx = room(self.shape[1], len(dy), dy.dtype)
        adjoint.scatter(pattern.order(), _taken(values, slots), dy.T, dx)
        return dx[:, : len(dy)].T

    def pullback(self, x: Array, dy: Array) -> None:
        grad, (pattern, slots) = self.param.grad, self.rows()
        same = x.dtype == dy.dtype == grad.dtype and x.dtype.isnative
        if slots is None and same and grad.flags.c_contiguous:
            adjoint.sample(pattern.order(), x.T, dy.T, grad.reshape(-1))
        else:
            self._put(grad, self._sampled(x, dy))

    def rpullback(self, x: Array, rx: Array, dy: Array, rdy: Array) -> None:
        self.param.rgrad = np.zeros_like(self.param.value)
        self._put(self.param.rgrad, self._sampled(x, rdy) + self._sampled(rx, dy))

    def correlate(self, x: Array, window: Window, mode: Mode) -> Array:
        if not convolution.available(self.param.value, x):
            return super().correlate(x, window, mode)
        return convolution.forward(self.rows()[0], self.values, x, window)

    def correlate_pull(self, dy: Array, window: Window, size: tuple[int, int]) -> Array:
        if not convolution.available(self.param.value, dy):
            return super().correlate_pull(dy, window, size)
        return convolution.transposed(self.rows()[0], self.values, dy, window, size)

    def correlate_pullback(self, x: Array, dy: Array, window: Window) -> None:
        if not convolution.available(self.param.value, x, dy):
            return super().correlate_pullback(x, dy, window)
        self._put(self.param.grad, convolution.gradient(self.rows()[0], x, dy, window))
        return None

    def _sampled(self, x: Array, dy: Array) -> Array:
        """(nnz) entries of dY^T X on the pattern, in row order."""
        x, dy = _same_type(x, dy)
        pattern = self.rows()[0]
        values = np.empty(pattern.nnz, dtype=x.dtype)
        adjoint.sample(pattern.order(), x.T, dy.T, values)
        return values

    def _put(self, target: Array, values: Array) -> None:
        """Write values (..., nnz) in row order into the slots of an array laid out as the Param is."""
        slots = self.rows()[1]
        target.reshape(*values.shape[:-1], -1)[..., slice(None) if slots is None else slots] = values

    def connect(self, x: Array) -> Array:
        pattern = self.rows()[0]
        y = room(self.shape[0], len(x), x.dtype)
        multiply.multiply(pattern.order(), np.ones(pattern.nnz, dtype=x.dtype), x.T, y)
        return y[:, : len(x)].T

    def assign(self, dense: Array) -> None:
        self._put(self.param.value, dense.reshape(-1)[self.flat])

    def entries(self, a: Array) -> dict[str, Array]:
        return self.place(a.reshape(*a.shape[:-2], -1)[..., self.flat])

    def place(self, values: Array) -> dict[str, Array]:
        laid = np.zeros((*values.shape[:-1], *self.param.value.shape), dtype=values.dtype)
        self._put(laid, values)
        return {"weight": laid}

    def rewire(self, mask: Array) -> dict[str, Array]:
        if mask.shape != self.shape or mask.dtype != bool:
            raise ShapeError(f"mask: got shape {mask.shape} of {mask.dtype}, expected {self.shape} of bool.")
        reason = self.objection(mask)
        if reason:
            raise SparseFormatError(f"{type(self).__name__} mask: got {reason}. Use CSRWeight instead.")
        return self.rewire_flat(np.flatnonzero(mask))

    def rewire_flat(self, flat: Array) -> dict[str, Array]:
        flat = check_flat(flat, self.size)
        old, slots = self.rows()
        source = places(flat, old.flat)
        if slots is not None:
            source = _laid_out(slots, source, empty=-1)
        order = self._arrange(CSRPattern.from_flat(flat, self.shape))
        self._rows, self._kept = None, flat.size
        value, grad = self.param.value.reshape(-1), self.param.grad.reshape(-1)
        moved = _laid_out(source, order, empty=-1)
        self.param.set(_laid_out(value, moved))
        self.param.grad[...] = _laid_out(grad, moved)
        return {"weight": moved.reshape(-1)}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The structure, never changed in place, is shared; values are copied, on a cache line again."""
        other = copy.copy(self)
        memo[id(self)] = other
        other.param = copy.deepcopy(self.param, memo)
        other.param.value = on_line(other.param.value)
        return other


def _taken(values: Array, slots: Array | None) -> Array:
    """Slots in row order."""
    flat = values.reshape(-1)
    return flat if slots is None else flat[slots]


def _laid_out(values: Array, order: Array, empty: int = 0) -> Array:
    """values[order] where order is not -1, `empty` where it is, in the shape of order."""
    laid = _room(order.size, values.dtype)
    gather(np.ascontiguousarray(values).reshape(-1), np.ascontiguousarray(order).reshape(-1), empty, laid)
    return laid.reshape(order.shape)


def on_line(a: Array) -> Array:
    """float32 arrays on a cache line, where vectors of 16 do not straddle two; all others as they are."""
    if a.dtype != np.float32:
        return a
    copy = _room(a.size, a.dtype)
    copy[...] = a.reshape(-1)
    return copy.reshape(a.shape)


def _room(size: int, dtype: np.dtype) -> Array:
    """(size,) of any content; float32 on a cache line."""
    return aligned(size) if dtype == np.float32 else np.empty(size, dtype=dtype)


def _same_type(x: Array, other: Array) -> tuple[Array, Array]:
    """Both in the type their product has, native byte order; no copy where that is the case."""
    if x.dtype == other.dtype and x.dtype.isnative:
        return x, other
    dtype = np.result_type(x, other).newbyteorder("=")
    return x.astype(dtype, copy=False), other.astype(dtype, copy=False)
