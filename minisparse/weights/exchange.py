"""Sparse arrays in and out: CSR arrays, SciPy's csr_array and bsr_array, checked before anything reads them.

Accepted as SciPy does: rows in any order (they are sorted), repeated entries (they are added), stored zeros
(they are present), 32- and 64-bit indices of either byte order. Not accepted: anything that is not a
number of floating point, and every structure a kernel could read outside its arrays by. float16 becomes
float32: it is a format of storage only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from minisparse.errors import SparseFormatError
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.weights.formats import FORMATS, entries
from minisparse.weights.pattern import CSRPattern, check
from minisparse.weights.stored import Geometry, StoredWeight

NUMBERS = {np.dtype(t): np.dtype(t) for t in ("f4", "f8", "c8", "c16")} | {np.dtype("f2"): np.dtype("f4")}


def from_csr(
    indptr: ArrayLike, indices: ArrayLike, values: ArrayLike, shape: tuple[int, int],
    name: str = "csr", geometry: Geometry | None = None, **settings: Any,
) -> StoredWeight:  # fmt: skip
    """A weight in format `name` from CSR arrays; they are copied. SparseFormatError if they are not valid."""
    starts, columns = check(indptr, indices, shape)
    numbers = _numbers(values)
    if numbers.shape != columns.shape:
        raise SparseFormatError(
            f"sparse values: got shape {numbers.shape}, expected {columns.shape}, one for each index."
        )
    pattern, summed = canonical(starts, columns, numbers, shape)
    return FORMATS[name](pattern, summed, geometry, **settings)


def from_scipy(
    array: Any, name: str = "csr", geometry: Geometry | None = None, **settings: Any
) -> StoredWeight:
    """The same from a SciPy csr or bsr array (or matrix); all entries of stored blocks are present."""
    kind = getattr(array, "format", None)
    if kind == "csr":
        return from_csr(array.indptr, array.indices, array.data, array.shape, name, geometry, **settings)
    if kind != "bsr":
        raise SparseFormatError(f"sparse array: got {kind or type(array).__name__}, expected csr or bsr.")
    high, wide = array.blocksize
    grid = (array.shape[0] // high, array.shape[1] // wide)
    starts, columns = check(array.indptr, array.indices, grid)
    data = np.asarray(array.data)
    if data.shape != (columns.size, high, wide) or (grid[0] * high, grid[1] * wide) != array.shape:
        raise SparseFormatError(
            f"sparse blocks: got {data.shape} in a matrix {array.shape}, expected "
            f"{(columns.size, high, wide)} and a shape they divide."
        )
    return from_csr(*_unblocked(starts, columns, data), array.shape, name, geometry, **settings)


def to_csr(weight: Weight) -> scipy.sparse.csr_array:
    """A copy of the present entries as a SciPy array, indices of the type SciPy chooses for this size."""
    pattern, values = entries(weight)
    kind = np.int32 if max(*pattern.shape, pattern.nnz) < 1 << 31 else np.int64
    arrays = (values.copy(), pattern.indices.astype(kind), pattern.indptr.astype(kind))
    return scipy.sparse.csr_array(arrays, shape=pattern.shape)


def to_bsr(weight: Weight, blocksize: tuple[int, int]) -> scipy.sparse.bsr_array:
    """A copy as a SciPy array of full blocks; SparseFormatError if a block is present in part only."""
    (out, columns), (high, wide) = weight.shape, blocksize
    if high < 1 or wide < 1 or out % high or columns % wide:
        raise SparseFormatError(f"block size: got {blocksize}, expected divisors of {(out, columns)}.")
    pattern, values = entries(weight)
    blocks = pattern.rows // high * (columns // wide) + pattern.indices // wide
    present, counts = np.unique(blocks, return_counts=True)
    partial = present[counts != high * wide]
    if partial.size:
        at = tuple(int(k) for k in np.divmod(partial[0], columns // wide))
        raise SparseFormatError(
            f"block {at} of {blocksize}: got {counts[counts != high * wide][0]} entries, "
            "expected all or none."
        )
    rows, block_columns = np.divmod(present, columns // wide)
    data = np.empty((present.size, high, wide), dtype=values.dtype)
    place = np.searchsorted(present, blocks)
    data[place, pattern.rows % high, pattern.indices % wide] = values
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=out // high))])
    return scipy.sparse.bsr_array((data, block_columns, indptr), shape=weight.shape)


def canonical(
    starts: Array, columns: Array, values: Array, shape: tuple[int, int]
) -> tuple[CSRPattern, Array]:
    """Rows ascending, repeated entries added in the order they are stored; the arrays must be valid."""
    rows = np.repeat(np.arange(shape[0]), np.diff(starts))
    flat = rows * shape[1] + columns
    if (np.diff(flat) > 0).all():
        return CSRPattern(starts, columns, shape), values.copy()
    order = np.argsort(flat, kind="stable")
    unique, first = np.unique(flat[order], return_index=True)
    return CSRPattern.from_flat(unique, shape), np.add.reduceat(values[order], first)


def _unblocked(starts: Array, columns: Array, data: Array) -> tuple[Array, Array, Array]:
    """CSR arrays of all entries of all blocks (count, high, wide)."""
    _, high, wide = data.shape
    per_row = np.repeat(np.diff(starts) * wide, high)
    row_of_block = np.repeat(np.arange(starts.size - 1), np.diff(starts))
    row = row_of_block[:, None, None] * high + np.arange(high)[:, None] + np.zeros(wide, dtype=np.int64)
    order = np.argsort(row.reshape(-1), kind="stable")
    column = columns[:, None, None] * wide + np.zeros((high, 1), dtype=np.int64) + np.arange(wide)
    indptr = np.concatenate([[0], np.cumsum(per_row)])
    return indptr, column.reshape(-1)[order], data.reshape(-1)[order]


def _numbers(values: ArrayLike) -> Array:
    """Native floating-point array; SparseFormatError for Booleans, integers, objects and text."""
    try:
        a = np.asarray(values)
    except (ValueError, OverflowError) as error:  # lists within lists, of different lengths
        raise SparseFormatError(f"sparse values: got {error}, expected one for each index.") from None
    native = a.dtype.newbyteorder("=")
    if native not in NUMBERS:
        raise SparseFormatError(f"sparse values: got {a.dtype}, expected float16, 32, 64 or complex64, 128.")
    return a.astype(NUMBERS[native], copy=False)
