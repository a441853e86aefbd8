"""MaskedWeight: absent entries are exactly zero, and rewiring says where every entry came from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import ShapeError
from minisparse.nn import EVAL, MaskedWeight, Param, Window
from tests.strategies import SETTINGS, generators, masks, shapes

TIGHT = {"rtol": 1e-13, "atol": 1e-14}


@st.composite
def masked_weights(draw, dtype=np.float64):
    """(weight, mask, generator)."""
    shape = draw(shapes())
    mask, rng = draw(masks(shape)), draw(generators)
    return MaskedWeight(rng.standard_normal(shape).astype(dtype), mask=mask), mask, rng


@SETTINGS
@given(masked_weights())
def test_absent_entries_are_exactly_zero(case):
    weight, mask, rng = case
    p = weight.params()["weight"]
    out, inputs = weight.shape
    x, dy = rng.standard_normal((4, inputs)), rng.standard_normal((4, out))
    weight.pullback(x, dy)
    np.testing.assert_array_equal(p.value[~mask], 0)
    np.testing.assert_array_equal(p.grad[~mask], 0)
    np.testing.assert_allclose(p.grad[mask], (dy.T @ x)[mask], **TIGHT)
    p.direction = rng.standard_normal(weight.shape)
    np.testing.assert_array_equal(weight.rdense(), p.direction * mask)
    rx, rdy = rng.standard_normal(x.shape), rng.standard_normal(dy.shape)
    weight.rpullback(x, rx, dy, rdy)
    np.testing.assert_allclose(p.rgrad, (rdy.T @ x + dy.T @ rx) * mask, **TIGHT)
    weight.assign(rng.standard_normal(weight.shape))
    np.testing.assert_array_equal(p.value != 0, mask)
    assert weight.kept == mask.sum()
    np.testing.assert_array_equal(weight.mask, mask)


@SETTINGS
@given(masked_weights())
def test_products_are_those_of_the_dense_matrix(case):
    weight, _, rng = case
    out, inputs = weight.shape
    x, dy = rng.standard_normal((4, inputs)), rng.standard_normal((4, out))
    dense = weight.dense().copy()
    np.testing.assert_allclose(weight.apply(x, EVAL), x @ dense.T, **TIGHT)
    np.testing.assert_allclose(weight.pull(dy), dy @ dense, **TIGHT)


@SETTINGS
@given(masked_weights(), st.data())
def test_rewiring(case, data):
    weight, old, rng = case
    new = data.draw(masks(weight.shape))
    p = weight.params()["weight"]
    p.grad[...] = rng.standard_normal(weight.shape) * old
    value, grad = p.value.copy(), p.grad.copy()
    asked = new.copy()
    source = weight.rewire(new)["weight"]
    np.testing.assert_array_equal(new, asked)
    new[...] = False  # the weight keeps its own copy
    np.testing.assert_array_equal(weight.mask, asked)
    stay = old & asked
    np.testing.assert_array_equal(p.value, np.where(stay, value, 0))
    np.testing.assert_array_equal(p.grad, np.where(stay, grad, 0))
    np.testing.assert_array_equal(source, np.where(stay.ravel(), np.arange(stay.size), -1))
    # the map says how any array beside the parameter moves
    moved = np.where(source >= 0, value.ravel()[source], 0).reshape(weight.shape)
    np.testing.assert_array_equal(p.value, moved)
    assert weight.kept == asked.sum()


def test_what_leaves_becomes_zero_whatever_it_was():
    weight = MaskedWeight(np.array([[np.nan, np.inf, -1.0, 2.0]]))
    p = weight.params()["weight"]
    p.grad[...] = [[np.nan, -np.inf, 1.0, 1.0]]
    weight.rewire(np.array([[False, False, False, True]]))
    for array, last in ((p.value, 2.0), (p.grad, 1.0)):
        np.testing.assert_array_equal(array, [[0, 0, 0, last]])
        assert not np.signbit(array).any()


def test_the_mask_handed_out_is_a_copy():
    for mask in (None, np.eye(3, dtype=bool)):
        weight = MaskedWeight(np.ones((3, 3)), mask=mask)
        weight.mask[...] = False
        assert weight.mask.any()


def test_no_mask_means_everything():
    weight = MaskedWeight(np.ones((2, 3)))
    assert weight.kept == weight.size == 6
    assert weight.mask.all()
    assert weight.mask.dtype == bool
    weight.rewire(np.zeros((2, 3), dtype=bool))
    assert weight.kept == 0
    weight.rewire(np.ones((2, 3), dtype=bool))
    assert weight.kept == 6
    assert not weight.dense().any()


def test_geometry():
    assert MaskedWeight(np.ones((4, 5))).geometry == (4, 5, 1, 1)
    weight = MaskedWeight(np.ones((4, 18)), (4, 2, 3, 3))
    assert (weight.shape, weight.size) == ((4, 18), 72)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0), (2, 2, 1)])
def test_bad_shapes_are_refused(shape):
    with pytest.raises(ShapeError, match=r"weight shape: got"):
        MaskedWeight(np.ones(shape))


def test_what_does_not_agree_is_refused():
    with pytest.raises(ShapeError, match=r"got \(2, 3\), expected \(2, 4\)"):
        MaskedWeight(np.ones((2, 3)), (2, 1, 2, 2))
    weight = MaskedWeight(np.ones((2, 3)))
    for mask in (np.ones((3, 2), bool), np.ones((2, 3)), np.ones((2, 3), int), np.ones(6, bool)):
        with pytest.raises(ShapeError, match="mask: got"):
            weight.rewire(mask)
    assert weight.kept == 6


def test_entries_are_laid_out_as_the_parameter():
    mask = np.array([[True, False], [True, True]])
    a = np.arange(8.0).reshape(2, 2, 2)
    np.testing.assert_array_equal(MaskedWeight(np.ones((2, 2)), mask=mask).entries(a)["weight"], a * mask)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_masked_convolution_leaves_absent_gradients_zero(dtype):
    """The convolution of float32 takes another way than the others: both must mask."""
    rng = np.random.default_rng(0)
    window = Window.of(3, 2, 1)
    mask = rng.random((4, 18)) < 0.5
    weight = MaskedWeight(rng.standard_normal((4, 18)).astype(dtype), (4, 2, 3, 3), mask)
    x = rng.standard_normal((3, 5, 6, 2)).astype(dtype)
    y = weight.correlate(x, window, EVAL)
    p = weight.params()["weight"]
    p.grad[...] = 99
    weight.correlate_pullback(x, np.ones_like(y), window)
    assert not p.grad[~mask].any()
    assert (p.grad[mask] != 99).all()
    assert p.grad.dtype == y.dtype == dtype
    assert weight.correlate_pull(y, window, (5, 6)).shape == x.shape


def test_param():
    p = Param(np.arange(6.0).reshape(2, 3))
    assert p.decay
    assert not p.grad.any()
    np.testing.assert_array_equal(p.v(), np.zeros((2, 3)))
    p.direction = np.ones((2, 3))
    assert p.v() is p.direction
    p.set(np.ones(4, np.float32))
    assert p.direction is None
    assert (p.grad.shape, p.grad.dtype) == ((4,), np.float32)


def test_an_infinite_gradient_at_an_absent_entry_is_not_a_gradient():
    weight = MaskedWeight(np.ones((1, 2)), mask=np.array([[True, False]]))
    weight.pullback(np.array([[1.0, np.inf]]), np.array([[1.0]]))
    np.testing.assert_array_equal(weight.param.grad, [[1.0, 0.0]])


def test_a_mask_given_at_birth_leaves_the_callers_array_alone():
    value = np.ones((2, 2))
    MaskedWeight(value, mask=np.zeros((2, 2), dtype=bool))
    assert value.all()
