"""Weight: a linear map with trainable parameters, and MaskedWeight, the default one.

A layer never multiplies by an array: it asks its Weight to `apply` and to `pullback`. The mask
belongs to the Weight and to nothing else. Storage formats and reparametrisations are other Weights;
no layer, optimiser or trainer changes for them.

The map is Y = X W^T with X (r, in), W (out, in), Y (r, out), r = samples x positions. For a
convolution the columns of W are the taps of the kernel with the input channel fastest,
column = (ky * kw + kx) * c + channel, so that neighbouring columns are neighbouring input channels.

Present entries are also seen as lists in row order: `flat`, their positions in the matrix laid out row after
row, with `values` and `grads`; `place` and `rewire_flat` go the other way. What works on these lists never
forms a matrix where the weight stores none, and is the same for weights that do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from minisparse.errors import MethodError, ShapeError
from minisparse.nn import direct
from minisparse.nn.mode import Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.window import Window


def spread(flat: Array, values: Array, shape: tuple[int, int]) -> Array:
    """Matrix with these values at these flat positions and zeros elsewhere."""
    dense = np.zeros(shape[0] * shape[1], dtype=values.dtype)
    dense[flat] = values
    return dense.reshape(shape)


def check_flat(flat: Array, size: int) -> Array:
    """`flat` as int64; ShapeError unless it has ascending positions below `size`, none of them twice."""
    at = np.asarray(flat)
    ascends = at.ndim == 1 and at.dtype.kind in "iu" and bool(np.all(at[1:] > at[:-1]))
    if not ascends or (at.size and not 0 <= at[0] <= at[-1] < size):
        raise ShapeError(
            f"flat positions: got {at.dtype} {at.shape}, expected ascending whole numbers from 0 to "
            f"{size - 1}, none repeated."
        )
    return at.astype(np.int64, copy=False)


class Weight(ABC):
    """The operator interface. `geometry` is (out, channels, kh, kw); kh = kw = 1 for Linear."""

    geometry: tuple[int, int, int, int]

    @property
    def by_blas(self) -> bool:
        """Whether its products are left to BLAS, and not made by kernels of this project."""
        return True

    @property
    def convolves_by_blas(self) -> bool:
        """The same of `correlate` and its transposes."""
        return self.by_blas

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix."""
        out, channels, kh, kw = self.geometry
        return out, channels * kh * kw

    @property
    def size(self) -> int:
        """Number of entries of the matrix, absent ones included."""
        return self.shape[0] * self.shape[1]

    @property
    @abstractmethod
    def mask(self) -> Array:
        """(out, in) bool, True = present."""

    @property
    @abstractmethod
    def kept(self) -> int:
        """Number of present entries."""

    @abstractmethod
    def params(self) -> dict[str, Param]:
        """What the optimiser sees."""

    @abstractmethod
    def dense(self) -> Array:
        """Effective matrix (out, in), zeros included."""

    @abstractmethod
    def apply(self, x: Array, mode: Mode) -> Array:
        """Y = X W^T: (r, in) -> (r, out)."""

    @abstractmethod
    def pull(self, dy: Array) -> Array:
        """dX = dY W: (r, out) -> (r, in), without touching any gradient."""

    @abstractmethod
    def pullback(self, x: Array, dy: Array) -> None:
        """Write each Param's grad from dL/dW = dY^T X; x (r, in), dy (r, out)."""

    @abstractmethod
    def rdense(self) -> Array:
        """R{W}: derivative of the effective matrix along the parameters' directions."""

    @abstractmethod
    def rpullback(self, x: Array, rx: Array, dy: Array, rdy: Array) -> None:
        """Write each Param's rgrad from R{dL/dW} = R{dY}^T X + dY^T R{X}."""

    @abstractmethod
    def assign(self, dense: Array) -> None:
        """Set the effective matrix (out, in) at present entries; the mask stays as it is."""

    @abstractmethod
    def rewire(self, mask: Array) -> dict[str, Array]:
        """Impose a new mask; entries that appear start at 0, entries that leave become 0.

        Returns {param name: source}, where source[i] is the flat index that entry i of the new
        array had in the old one, or -1 if it is new or absent. The optimiser moves its slots by it.
        """

    def trained(self) -> Array:
        """The matrix (out, in) that is trained where W is made from another one; else W, `dense`."""
        return self.dense()

    def without(self, rows: Array, columns: Array) -> Weight:
        """A masked weight that lacks these rows and columns; all taps of an input channel leave together."""
        kh, kw = self.geometry[2:]
        value, mask = (np.delete(np.delete(a, rows, 0), columns, 1) for a in (self.dense(), self.mask))
        return MaskedWeight(value, (len(value), value.shape[1] // (kh * kw), kh, kw), mask)

    @property
    def flat(self) -> Array:
        """(kept,) int64 positions of the present entries in the matrix, row after row: ascending."""
        return np.flatnonzero(self.mask)

    @property
    def values(self) -> Array:
        """(kept,) the present entries in the order of `flat`; to be read, `place` writes."""
        return self.dense().reshape(-1)[self.flat]

    @property
    def grads(self) -> Array:
        """(kept,) dL/dW of the present entries, in the order of `flat`, after a backward pass.

        Raises MethodError where the parameters are not entries of the matrix.
        """
        raise self._not_entries("gradient of the entries", "Finish the method that put it there first.")

    def place(self, values: Array) -> dict[str, Array]:
        """values (kept,), a number for each present entry in the order of `flat`, laid out as each Param is.

        Raises MethodError where the parameters are not entries of the matrix.
        """
        return self.entries(spread(self.flat, values, self.shape))

    def rewire_flat(self, flat: Array) -> dict[str, Array]:
        """`rewire` to the entries at these ascending flat positions; ShapeError if they are not."""
        flat = check_flat(flat, self.size)
        return self.rewire(spread(flat, np.ones(flat.size, dtype=bool), self.shape))

    def connect(self, x: Array) -> Array:
        """x M^T with the mask M as zeros and ones: (r, in) -> (r, out)."""
        return x @ self.mask.T.astype(x.dtype)

    def entries(self, a: Array) -> dict[str, Array]:
        """a (..., out, in), a number for each entry of the matrix, laid out as each Param is.

        Raises MethodError where the parameters are not entries of the matrix.
        """
        raise self._not_entries("curvature", "Use Hessian-vector products instead.")

    def _not_entries(self, what: str, remedy: str) -> MethodError:
        return MethodError(
            f"{what} of {type(self).__name__}: got parameters that are not entries of the matrix, "
            f"expected a weight that stores them. {remedy}"
        )

    def correlate(self, x: Array, window: Window, mode: Mode) -> Array:
        """Convolution by unfolding: x (n, h, w, c) -> (n, oh, ow, out). The readable path."""
        rows = window.unfold(x)
        y = self.apply(rows.reshape(-1, rows.shape[-1]), mode)
        return y.reshape(x.shape[0], *window.output_size(x.shape[1:3]), self.shape[0])

    def correlate_pull(self, dy: Array, window: Window, size: tuple[int, int]) -> Array:
        """Transposed convolution: dy (n, oh, ow, out) -> dx (n, h, w, c), (h, w) = size."""
        rows = self.pull(dy.reshape(-1, dy.shape[-1]))
        return window.fold(rows.reshape(dy.shape[0], dy.shape[1] * dy.shape[2], self.shape[1]), size)

    def correlate_pullback(self, x: Array, dy: Array, window: Window) -> None:
        """Write the gradients of a convolution; x (n, h, w, c), dy (n, oh, ow, out)."""
        rows = window.unfold(x)
        self.pullback(rows.reshape(-1, rows.shape[-1]), dy.reshape(-1, dy.shape[-1]))


def feature_major(a: Array) -> bool:
    """Whether a matrix (n, features) lies feature by feature in memory, as sparse products leave it."""
    return a.ndim == 2 and a.flags.f_contiguous and not a.flags.c_contiguous


def by_rows(x: Array, matrix: Array) -> Array:
    """X W^T; x (n, in), matrix (out, in). Comes back feature by feature in memory if n < out.

    BLAS takes up to twice as long where the smaller of the two has to be the second factor.
    """
    return (matrix @ x.T).T if len(x) < len(matrix) else x @ matrix.T


class MaskedWeight(Weight):
    """A dense matrix and, once pruned, a Boolean mask of its shape.

    Absent entries are exactly 0 and their gradient is exactly 0, so an optimiser whose update is 0
    for a zero weight, zero gradient and zero slots keeps them there.
    """

    def __init__(
        self,
        value: Array,
        geometry: tuple[int, int, int, int] | None = None,
        mask: Array | None = None,
    ) -> None:
        """value (out, in); geometry defaults to a Linear layer's; mask None means all present.

        Raises ShapeError when value, geometry and mask do not agree.
        """
        if value.ndim != 2 or 0 in value.shape:
            raise ShapeError(f"weight shape: got {value.shape}, expected (out, in) with both >= 1.")
        self.geometry = geometry or (*value.shape, 1, 1)
        if self.shape != value.shape:
            raise ShapeError(f"weight shape: got {value.shape}, expected {self.shape} by its geometry.")
        self.param = Param(value if mask is None else value.copy())
        self._mask: Array | None = None
        self._absent: Array | None = None
        if mask is not None:
            self.rewire(mask)

    @property
    def mask(self) -> Array:
        if self._mask is None:
            return np.ones(self.shape, dtype=bool)
        return self._mask.copy()

    @property
    def kept(self) -> int:
        return self.size if self._mask is None else int(np.count_nonzero(self._mask))

    def params(self) -> dict[str, Param]:
        return {"weight": self.param}

    def dense(self) -> Array:
        return self.param.value

    def apply(self, x: Array, mode: Mode) -> Array:
        return by_rows(x, self.param.value)

    def pull(self, dy: Array) -> Array:
        if feature_major(dy):  # then the result is, too
            return (self.param.value.T @ dy.T).T
        return dy @ self.param.value

    def pullback(self, x: Array, dy: Array) -> None:
        np.matmul(dy.T, x, out=self.param.grad)
        self._clear(self.param.grad)

    def _clear(self, array: Array) -> None:
        """Zero the absent entries in place; assigned, not multiplied, because 0 * NaN is NaN."""
        if self._absent is not None:
            np.copyto(array, 0, where=self._absent)

    @property
    def convolves_by_blas(self) -> bool:
        return not direct.available(self.param.value)

    def correlate(self, x: Array, window: Window, mode: Mode) -> Array:
        if direct.available(x, self.param.value):
            return direct.forward(x, self.param.value, window)
        return super().correlate(x, window, mode)

    def correlate_pull(self, dy: Array, window: Window, size: tuple[int, int]) -> Array:
        if direct.available(dy, self.param.value):
            return direct.transposed(dy, self.param.value, window, size)
        return super().correlate_pull(dy, window, size)

    def correlate_pullback(self, x: Array, dy: Array, window: Window) -> None:
        if not direct.available(x, dy, self.param.value):
            return super().correlate_pullback(x, dy, window)
        self.param.grad[...] = direct.gradient(x, dy, window)
        self._clear(self.param.grad)
        return None

    def rdense(self) -> Array:
        v = self.param.v()
        return v if self._mask is None else v * self._mask

    def rpullback(self, x: Array, rx: Array, dy: Array, rdy: Array) -> None:
        self.param.rgrad = rdy.T @ x + dy.T @ rx
        self._clear(self.param.rgrad)

    def assign(self, dense: Array) -> None:
        self.param.value[...] = dense
        self._clear(self.param.value)

    @property
    def grads(self) -> Array:
        return self.param.grad.reshape(-1)[self.flat]

    def entries(self, a: Array) -> dict[str, Array]:
        return {"weight": a if self._mask is None else a * self._mask}

    def rewire(self, mask: Array) -> dict[str, Array]:
        if mask.shape != self.shape or mask.dtype != bool:
            raise ShapeError(f"mask: got shape {mask.shape} of {mask.dtype}, expected {self.shape} of bool.")
        stay = mask.copy() if self._mask is None else mask & self._mask
        self.param.value[~stay] = 0
        self.param.grad[~stay] = 0
        full = bool(mask.all())
        self._mask, self._absent = (None, None) if full else (mask.copy(), ~mask)
        source = np.where(stay.ravel(), np.arange(stay.size), -1)
        return {"weight": source}
