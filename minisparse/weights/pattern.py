"""CSRPattern: which entries of a matrix are present, row by row; checked once, before any kernel sees it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from minisparse.errors import SparseFormatError
from minisparse.kernels import merge
from minisparse.kernels.order import Order, cut
from minisparse.nn.param import Array
from minisparse.nn.weight import spread

# (columns up to which a type can count, type): the smallest that can is used
INDEX_TYPES: tuple[tuple[int, type], ...] = ((1 << 16, np.uint16), (1 << 31, np.int32), (1 << 63, np.int64))

# Entries that a row should have in a panel for its start and end to be worth while, and the widest panel
# that is chosen for their sake; below FEWEST entries per row and panel no width is small enough.
ENTRIES, WIDEST, FEWEST = 16, 1024, 8
NARROWEST = 128  # columns whose 64 samples, 32 KB, are a first-level cache or most of one


def index_type(columns: int) -> type:
    """Smallest integer type that holds the column numbers 0 .. columns - 1."""
    return next(kind for limit, kind in INDEX_TYPES if columns <= limit)


def bounds_type(nnz: int) -> type:
    """Integer type that delimits nnz entries."""
    return np.int32 if nnz < 1 << 31 else np.int64


class CSRPattern:
    """indptr (out + 1) int64 and indices (nnz), in each row ascending and without repetition."""

    def __init__(self, indptr: Array, indices: Array, shape: tuple[int, int]) -> None:
        """Arrays that are known to be valid; `CSRPattern.checked` is for all others."""
        self.shape = shape
        self.indptr = indptr
        self.indices: Array = indices.astype(index_type(shape[1]), copy=False)
        self._orders: dict[int, Order] = {}

    @classmethod
    def from_mask(cls, mask: Array) -> CSRPattern:
        """The True entries of mask (out, in)."""
        return cls.from_flat(np.flatnonzero(mask), mask.shape)

    @classmethod
    def from_flat(cls, flat: Array, shape: tuple[int, int]) -> CSRPattern:
        """The entries at these ascending flat positions of a matrix of this shape."""
        indptr = np.empty(shape[0] + 1, dtype=np.int64)
        indices: Array = np.empty(flat.size, dtype=index_type(shape[1]))
        merge.rows(flat, shape[1], indptr, indices)
        return cls(indptr, indices, shape)

    @classmethod
    def checked(cls, indptr: ArrayLike, indices: ArrayLike, shape: tuple[int, int]) -> CSRPattern:
        """The same after `check`; rows must be ascending, see `exchange.canonical` for those that are not."""
        return cls(*check(indptr, indices, shape), shape)

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return self.indices.size

    @property
    def bits(self) -> int:
        """Bits CSR needs for its indices: nnz ceil(log2 in) + out ceil(log2 nnz)."""
        column, place = (max(0, n - 1).bit_length() for n in (self.shape[1], self.nnz))
        return self.nnz * column + self.shape[0] * place

    @property
    def rows(self) -> Array:
        """(nnz) row of each entry."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    @property
    def flat(self) -> Array:
        """(nnz) int64 flat position of each entry in the matrix, ascending."""
        return self.rows * self.shape[1] + self.indices

    @property
    def mask(self) -> Array:
        """(out, in) bool."""
        return spread(self.flat, np.ones(self.nnz, dtype=bool), self.shape)

    def order(self, width: int | None = None) -> Order:
        """The entries as `kernels/multiply.py` takes them, in panels of `width`, by default `panel_width`."""
        width = width or panel_width(self.nnz, self.shape)
        if width not in self._orders:
            panels = -(-self.shape[1] // width)
            cuts: Array = np.empty((panels + 1, self.shape[0]), dtype=bounds_type(self.nnz))
            cut(self.indptr, self.indices, width, cuts)
            self._orders = {width: Order.of(cuts[:-1], cuts[1:], self.indices, width, False, self.indptr)}
        return self._orders[width]


def panel_width(nnz: int, shape: tuple[int, int]) -> int:
    """Columns of a panel: measured to be about best where a row has 16 entries in each.

    Narrower panels stay in the first-level cache, wider ones start fewer rows. A multiple of 16.
    """
    share = max(nnz, 1) / max(1, shape[0] * shape[1])
    width = max(NARROWEST, min(ENTRIES / share, WIDEST), FEWEST / share)
    return int(max(1, min(-(-width // 16) * 16, shape[1])))


def check(indptr: ArrayLike, indices: ArrayLike, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Both arrays as int64; SparseFormatError naming the position unless they are a valid CSR structure.

    Repeated and descending columns within a row are valid here.
    """
    out, columns = _shape(shape)
    starts, where = _integers(indptr, "indptr"), _integers(indices, "indices")
    if starts.size != out + 1:
        raise _invalid("indptr", f"{starts.size} entries", f"{out + 1}, one more than rows")
    if starts[0] != 0:
        raise _invalid("indptr[0]", starts[0], "0")
    falls = np.flatnonzero(starts[1:] < starts[:-1])  # a difference of two of them may wrap around
    if falls.size:
        k = int(falls[0]) + 1
        raise _invalid(f"indptr[{k}]", starts[k], f"at least {starts[k - 1]}, the entry before it")
    if starts[-1] != where.size:
        raise _invalid(f"indptr[{out}]", starts[-1], f"{where.size}, the number of indices")
    wrong = np.flatnonzero((where < 0) | (where >= columns))
    if wrong.size:
        k = int(wrong[0])
        row = int(np.searchsorted(starts, k, side="right")) - 1
        raise _invalid(f"indices[{k}] in row {row}", where[k], f"0 <= column < {columns}")
    return starts, where


def _shape(shape: tuple[int, int]) -> tuple[int, int]:
    whole = len(shape) == 2 and all(isinstance(n, int | np.integer) and 0 <= n < 1 << 63 for n in shape)
    if not whole or any(isinstance(n, bool) for n in shape):
        raise _invalid("shape", repr(shape), "two integers from 0 to 2^63 - 1")
    out, columns = int(shape[0]), int(shape[1])
    if out * columns >= 1 << 63:
        raise _invalid("shape", repr(shape), "fewer than 2^63 entries")
    return out, columns


def _integers(values: ArrayLike, name: str) -> Array:
    """int64 copy or view of a one-dimensional array of integers of any width, sign and byte order."""
    try:
        a = np.asarray(values)
    except (ValueError, OverflowError) as error:  # lists within lists, of different lengths
        raise _invalid(name, error, "one dimension of integers") from None
    if a.ndim != 1 or (a.dtype.kind not in "iu" and a.size):
        raise _invalid(name, f"shape {a.shape} of {a.dtype}", "one dimension of integers")
    if a.dtype == np.uint64 and a.size and a.max() >= 1 << 63:
        k = int(np.argmax(a))
        raise _invalid(f"{name}[{k}]", a[k], "less than 2^63")
    return a.astype(np.int64)


def _invalid(what: str, got: object, rule: str) -> SparseFormatError:
    return SparseFormatError(f"sparse structure {what}: got {got}, expected {rule}.")
