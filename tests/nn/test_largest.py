"""The largest entries of a matrix that goes by in blocks are those of the whole matrix, ties included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, ShapeError, UsageError
from minisparse.nn import largest as module
from minisparse.nn.conv import Conv2d
from minisparse.nn.largest import first_largest, largest, largest_by_row
from minisparse.nn.linear import Linear
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window

ROWS, COLUMNS = 6, 5
SMALL = hnp.arrays(float, (ROWS, COLUMNS), elements=st.integers(-2, 2))
MASKS = hnp.arrays(bool, (ROWS, COLUMNS))


def blocks(matrix, step):
    return (matrix[i : i + step] for i in range(0, len(matrix), step))


def sorted_largest(matrix, k, candidates):
    return sorted(sorted(candidates, key=lambda i: (-abs(matrix.flat[i]), i))[:k])


@given(SMALL, MASKS, st.integers(1, ROWS), st.data())
def test_streaming_is_sorting_the_whole_matrix(matrix, barred, step, data):
    free = np.flatnonzero(~barred)
    k = data.draw(st.integers(0, free.size))
    found = largest(blocks(matrix, step), k, np.flatnonzero(barred))
    assert found.dtype == np.int64 and found.tolist() == sorted_largest(matrix, k, free)


@given(SMALL, MASKS, st.integers(1, ROWS), st.data())
def test_streaming_row_by_row_is_sorting_every_row(matrix, barred, step, data):
    free = [[i for i in np.flatnonzero(~barred) if i // COLUMNS == r] for r in range(ROWS)]
    counts = np.array([data.draw(st.integers(0, len(row))) for row in free])
    found = largest_by_row(blocks(matrix, step), counts, np.flatnonzero(barred))
    expected = [i for row, k in zip(free, counts, strict=True) for i in sorted_largest(matrix, k, row)]
    assert found.tolist() == expected


@given(hnp.arrays(float, st.integers(0, 12), elements=st.integers(-2, 2)), st.integers(0, 14))
def test_the_first_largest_are_sorting(scores, k):
    order = sorted(range(scores.size), key=lambda i: (-scores[i], i))
    assert first_largest(scores, k).tolist() == sorted(order[:k])


def layer_with_gradient(kind, rng, dtype=float):
    """A layer after a backward pass; small whole numbers, so that gradients are exact and tie."""
    if kind == "conv":
        geometry = (6, 3, 2, 2)
        layer = Conv2d(MaskedWeight(np.ones((6, 12), dtype), geometry), Window.of(2))
        x, shape = rng.integers(-1, 2, (3, 3, 4, 4)), (3, 6, 3, 3)
    else:
        layer = Linear(MaskedWeight(np.ones((6, 12), dtype)))
        x, shape = rng.integers(-1, 2, (4, 12)), (4, 6)
    layer.forward(x.astype(dtype))
    layer.backward(rng.integers(-1, 2, shape).astype(dtype))
    return layer


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("rows", [1, 2, 4, 6, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layers_gradient_in_blocks_is_its_dense_gradient(kind, rows, dtype, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", rows * 12 * np.dtype(dtype).itemsize)
    rng = np.random.default_rng(0)
    layer = layer_with_gradient(kind, rng, dtype)
    dense, pieces = layer.dense_grad(), list(layer.gradient_blocks())
    assert len(pieces) == -(-6 // rows) and max(len(piece) for piece in pieces) == min(rows, 6)
    np.testing.assert_array_equal(np.concatenate(pieces), dense)
    excluded = np.flatnonzero(rng.random(dense.size) < 0.4)
    free = np.setdiff1d(np.arange(dense.size), excluded)
    assert len(np.unique(np.abs(dense))) < dense.size / 2  # ties abound
    for k in range(0, free.size + 1, 5):
        found = largest(layer.gradient_blocks(), k, excluded)
        assert found.tolist() == sorted_largest(dense, k, free)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_what_is_not_finite_is_refused_wherever_it_is(bad, step):
    for at in range(6):
        matrix = np.zeros((3, 2))
        matrix.flat[at] = bad
        for excluded in (np.arange(0), np.array([at])):
            with pytest.raises(NonFiniteError):
                largest(blocks(matrix, step), 1, excluded)
            with pytest.raises(NonFiniteError):
                largest_by_row(blocks(matrix, step), np.zeros(3, dtype=int), excluded)


def test_more_than_there_are_and_wrong_numbers_of_rows_are_refused():
    matrix, excluded = np.ones((2, 3)), np.array([1])
    with pytest.raises(UsageError):
        largest([matrix], 6, excluded)
    with pytest.raises(UsageError):
        largest_by_row([matrix], np.array([3, 0]), excluded)
    with pytest.raises(UsageError):
        largest_by_row([matrix], np.array([0, 4]), excluded)
    with pytest.raises(ShapeError):
        largest_by_row([matrix], np.array([1]), excluded)
    with pytest.raises(ShapeError):
        largest_by_row([matrix], np.array([1, 1, 0]), excluded)


def test_the_matrix_is_left_as_it_was():
    matrix = -np.ones((2, 3))
    largest([matrix], 1, np.array([0]))
    largest_by_row([matrix], np.array([1, 1]), np.array([0]))
    np.testing.assert_array_equal(matrix, -1)
