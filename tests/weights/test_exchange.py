"""Sparse arrays in and out: round trips with SciPy, and no invalid structure gets in."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from minisparse.errors import SparseFormatError
from minisparse.nn.mode import EVAL
from minisparse.nn.weight import MaskedWeight
from minisparse.weights.exchange import from_csr, from_scipy, to_bsr, to_csr
from minisparse.weights.formats import FORMATS, accepts
from minisparse.weights.pattern import CSRPattern
from tests.reliability.counts import examples
from tests.strategies import SETTINGS, generators
from tests.structures import INVALID, MASKS, csr_arrays, layouts, masks


def matrix(mask, seed=0, dtype=np.float64):
    dense = np.random.default_rng(seed).standard_normal(mask.shape).astype(dtype)
    return dense * mask


def triple(seed=0):
    """A valid (indptr, indices, values, shape) with 5 rows."""
    mask = MASKS["fan-in 7"](np.random.default_rng(seed))[:5]
    indptr, indices = csr_arrays(mask)
    return indptr, indices, matrix(mask)[mask], mask.shape


def test_scipy_csr_round_trip_keeps_every_bit():
    for name, mask in masks():
        w = matrix(mask)
        w[mask & (np.random.default_rng(1).random(mask.shape) < 0.1)] = 0  # stored zeros
        indptr, indices = csr_arrays(mask)
        array = sp.csr_array((w[mask], indices, indptr), shape=mask.shape)
        for kind in FORMATS:
            if accepts(kind, mask):
                weight = from_scipy(array, kind)
                np.testing.assert_array_equal(weight.mask, mask, err_msg=f"{name} {kind}")
                back = to_csr(weight)
                back.check_format(full_check=True)
                for part in ("data", "indices", "indptr"):
                    np.testing.assert_array_equal(getattr(back, part), getattr(array, part))
        dense = MaskedWeight(w.copy(), None, mask)
        assert (to_csr(dense) != array).nnz == 0 and to_csr(dense).nnz == array.nnz


def test_scipy_matrices_and_index_types_of_all_kinds():
    indptr, indices, values, shape = triple()
    expected = from_csr(indptr, indices, values, shape).dense()
    np.testing.assert_array_equal(from_scipy(sp.csr_matrix(expected)).dense(), expected)
    for kind in (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64, ">i4", ">u8"):
        for other in (np.int32, np.int64):
            got = from_csr(indptr.astype(other), indices.astype(kind), values, shape)
            np.testing.assert_array_equal(got.dense(), expected)
    np.testing.assert_array_equal(
        from_csr(list(indptr), list(indices), list(values), shape).dense(), expected
    )
    for _, array in layouts(values[None]):
        np.testing.assert_array_equal(from_csr(indptr, indices, array[0], shape).dense(), expected)
    for _, array in layouts(indices[None]):
        np.testing.assert_array_equal(from_csr(indptr, array[0], values, shape).dense(), expected)


def test_value_types():
    indptr, indices, values, shape = triple()
    for given_type, stored in (
        ("f2", "f4"),
        (">f2", "f4"),
        ("f4", "f4"),
        (">f8", "f8"),
        ("c8", "c8"),
        ("c16", "c16"),
    ):
        weight = from_csr(indptr, indices, values.astype(given_type), shape)
        assert weight.param.value.dtype == np.dtype(stored)
        np.testing.assert_array_equal(weight.values, values.astype(given_type))
        assert weight.apply(np.ones((2, shape[1]), np.float32), EVAL).shape == (2, 5)


def test_arrays_are_copied():
    indptr, indices, values, shape = triple()
    weight = from_csr(indptr, indices, values, shape)
    before = weight.dense()
    for array in (indptr, indices, values):
        array[...] = 0
    np.testing.assert_array_equal(weight.dense(), before)
    out = to_csr(weight)
    out.data[...] = 0
    np.testing.assert_array_equal(weight.dense(), before)


@given(generators, st.integers(1, 12), st.integers(1, 15), st.integers(0, 60))
@SETTINGS
def test_unsorted_rows_are_sorted_and_repetitions_added_as_scipy_does(rng, out, columns, nnz):
    rows = np.sort(rng.integers(0, out, nnz))
    indices = rng.integers(0, columns, nnz)
    indptr = np.searchsorted(rows, np.arange(out + 1))
    values = rng.integers(-5, 6, nnz).astype(float)
    weight = from_csr(indptr, indices, values, (out, columns))
    np.testing.assert_array_equal(
        weight.dense(), sp.csr_array((values, indices, indptr), (out, columns)).toarray()
    )
    present = np.zeros((out, columns), dtype=bool)
    present[rows, indices] = True
    np.testing.assert_array_equal(weight.mask, present)
    pattern = weight.rows()[0]
    assert all(
        np.all(np.diff(pattern.indices[a:b].astype(int)) > 0)
        for a, b in zip(pattern.indptr, pattern.indptr[1:], strict=False)
    )


@pytest.mark.parametrize("name", INVALID)
def test_every_invalid_structure_is_refused_with_its_position(name):
    change, words = INVALID[name]
    with pytest.raises(SparseFormatError) as caught:
        from_csr(*change(*triple()))
    message = str(caught.value)
    assert words in message and "expected" in message and "\n" not in message
    assert caught.value.code == "MS201"


@given(generators)
@settings(SETTINGS, max_examples=examples(500, 1_000, 10_000))
def test_a_mutated_structure_is_refused_or_provably_valid(rng):
    indptr, indices, values, shape = triple(int(rng.integers(100)))
    arrays = [indptr.copy(), indices.copy(), values.copy()]
    for _ in range(int(rng.integers(1, 4))):
        k = int(rng.integers(2))
        spot = int(rng.integers(arrays[k].size)) if arrays[k].size else 0
        action = int(rng.integers(4))
        if action == 0 and arrays[k].size:
            # entries of 2^62 and -2^62 - 1 side by side: their difference wraps around
            at = slice(spot, spot + 1)
            arrays[k][at] += rng.choice([-1, 1, -(1 << 31), 1 << 31, 1 << 62, -(1 << 62) - 1, 7, -7])
        elif action == 1:
            arrays[k] = np.delete(arrays[k], spot) if arrays[k].size else arrays[k]
        elif action == 2:
            arrays[k] = np.insert(arrays[k], spot, rng.integers(-2, 60))
        else:
            arrays[k] = arrays[k][: int(rng.integers(arrays[k].size + 1))]
    p, i, v = arrays
    valid = (
        p.size == shape[0] + 1 and p[0] == 0 and (p[1:] >= p[:-1]).all() and p[-1] == i.size == v.size
        and ((i >= 0) & (i < shape[1])).all()
    )  # fmt: skip
    if not valid:
        with pytest.raises(SparseFormatError):
            from_csr(p, i, v, shape)
        return
    dense = np.zeros(shape)
    np.add.at(dense, (np.repeat(np.arange(shape[0]), np.diff(p)), i), v)
    np.testing.assert_allclose(from_csr(p, i, v, shape).dense(), dense, atol=1e-12)


def test_a_corrupted_scipy_array_is_refused():
    array = sp.csr_array(matrix(MASKS["prime"](np.random.default_rng(0))))
    array.indices[4] = 10**6  # SciPy's own product would read outside its arrays
    with pytest.raises(SparseFormatError, match=r"indices\[4\] in row 0: got 1000000"):
        from_scipy(array)
    blocks = sp.bsr_array(matrix(MASKS["blocks 4x4"](np.random.default_rng(0))), blocksize=(4, 4))
    blocks.indices[0] = -1
    with pytest.raises(SparseFormatError, match=r"indices\[0\]"):
        from_scipy(blocks)
    for wrong in (array.tocsc, lambda: matrix(np.eye(3, dtype=bool)), lambda: None):
        array.indices[4] = 0
        with pytest.raises(SparseFormatError, match="csr or bsr"):
            from_scipy(wrong())


def test_blocks_round_trip():
    rng = np.random.default_rng(2)
    for high, wide in ((1, 1), (4, 4), (2, 5), (3, 1), (12, 20)):
        grid = rng.random((24 // high, 40 // wide)) < 0.4
        mask = np.kron(grid, np.ones((high, wide))).astype(bool)
        w = matrix(mask)
        array = sp.bsr_array(w, blocksize=(high, wide))
        weight = from_scipy(array)
        np.testing.assert_array_equal(weight.dense(), w)
        np.testing.assert_array_equal(weight.mask, mask)
        back = to_bsr(weight, (high, wide))
        assert back.blocksize == (high, wide) and back.data.shape[0] == np.count_nonzero(grid)
        np.testing.assert_array_equal(back.toarray(), w)
        stored = from_scipy(back, "block") if accepts("block", mask) else weight
        np.testing.assert_array_equal(stored.dense(), w)


def test_stored_zeros_of_a_block_are_present():
    data = np.zeros((1, 2, 2))
    data[0, 0, 1] = 3
    weight = from_scipy(sp.bsr_array((data, [1], [0, 1, 1]), shape=(4, 6)))
    assert weight.kept == 4 and weight.mask[:2, 2:4].all()
    assert weight.dense()[0, 3] == 3


def test_a_partial_block_is_refused():
    mask = np.zeros((4, 4), dtype=bool)
    mask[2:, 2:] = True
    mask[3, 2] = False
    weight = FORMATS["csr"].from_dense(np.ones((4, 4)), mask)
    with pytest.raises(SparseFormatError, match=r"block \(1, 1\) of \(2, 2\): got 3 entries"):
        to_bsr(weight, (2, 2))
    for size in ((3, 2), (0, 1), (2, 8)):
        with pytest.raises(SparseFormatError, match="block size"):
            to_bsr(weight, size)


def test_a_matrix_of_more_than_2_to_the_31_places_costs_what_its_entries_cost():
    columns = (1 << 31) + 5
    pattern = CSRPattern.checked([0, 2, 3], [7, columns - 1, 0], (2, columns))
    assert pattern.indices.dtype == np.int64
    assert pattern.flat.tolist() == [7, columns - 1, columns]
    other = CSRPattern.from_flat(pattern.flat, pattern.shape)
    assert other.indptr.tolist() == [0, 2, 3] and other.indices.tolist() == [7, columns - 1, 0]
    weight = from_csr(
        [0] * 69_999 + [1, 3], [5, 2, 69_999], np.array([2.0, 3, 4], np.float32), (70_000, 70_000)
    )
    x = np.ones((1, 70_000), np.float32)
    for batch in (1, 5):
        y = weight.apply(np.repeat(x, batch, axis=0), EVAL)
        assert y[:, -2:].tolist() == [[2, 7]] * batch and not y[:, :-2].any()
    dx = weight.pull(np.eye(1, 70_000, 69_999, dtype=np.float32))
    assert dx[0, [2, 69_999]].tolist() == [3, 4] and dx.sum() == 7
    weight.pullback(x, np.full((1, 70_000), 2, np.float32))
    assert weight.param.grad.tolist() == [2, 2, 2]
    source = weight.rewire_flat(np.array([5 + 69_998 * 70_000, 1 + 69_999 * 70_000]))["weight"]
    assert source.tolist() == [0, -1] and weight.kept == 2 and weight.param.value.tolist() == [2, 0]
