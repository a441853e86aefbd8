"""Present entries as lists: positions, values and gradients of every weight against its matrix and mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import MethodError, ShapeError, SparseFormatError
from minisparse.nn.linear import Linear
from minisparse.nn.mode import EVAL
from minisparse.nn.weight import MaskedWeight
from minisparse.weights.formats import FORMATS, MASKED, accepts, convert
from minisparse.weights.powerprop import PowerWeight

ANY_MASK = ("csr", "panels", "sliced", "bitmask", "reduced")


def weight_of(kind, mask, rng, dtype=float):
    dense = rng.standard_normal(mask.shape).astype(dtype)
    return convert(MaskedWeight(dense, mask=mask), kind), dense * mask


def structured(out=8, columns=12):
    """A mask every format can store: equal rows of two in every group of four."""
    mask = np.zeros((out, columns), dtype=bool)
    mask[:, 0::4] = mask[:, 1::4] = True
    return mask


@pytest.mark.parametrize("kind", [*FORMATS, MASKED])
def test_lists_are_the_matrix_at_present_entries(kind):
    rng, mask = np.random.default_rng(0), structured()
    weight, dense = weight_of(kind, mask, rng)
    x, dy = rng.standard_normal((5, 12)), rng.standard_normal((5, 8))
    layer = Linear(weight)
    layer.forward(x)
    layer.backward(dy)
    np.testing.assert_array_equal(weight.flat, np.flatnonzero(mask))
    assert weight.flat.dtype == np.int64
    np.testing.assert_array_equal(weight.values, dense[mask])
    np.testing.assert_allclose(weight.grads, (dy.T @ x)[mask], rtol=1e-12)
    np.testing.assert_array_equal(weight.connect(np.abs(x)) > 0, mask.any(axis=1) & np.ones((5, 1), bool))
    np.testing.assert_allclose(weight.connect(x), x @ mask.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [*FORMATS, MASKED])
def test_placing_is_the_inverse_of_listing(kind):
    rng, mask = np.random.default_rng(1), structured()
    weight, _ = weight_of(kind, mask, rng)
    new = rng.standard_normal(weight.kept)
    for key, laid in weight.place(new).items():
        assert laid.shape == weight.params()[key].value.shape
        weight.params()[key].value[...] = laid
    np.testing.assert_array_equal(weight.values, new)
    full = np.zeros(mask.shape)
    full[mask] = new
    np.testing.assert_array_equal(weight.dense(), full)


@pytest.mark.parametrize("kind", [*ANY_MASK, MASKED])
@given(seed=st.integers(0, 2**32 - 1), full=st.booleans())
def test_rewiring_by_positions_is_rewiring_by_mask(kind, seed, full):
    rng = np.random.default_rng(seed)
    old, new = rng.random((2, 5, 7)) < rng.random((2, 1, 1))
    new |= full
    one, _ = weight_of(kind, old, np.random.default_rng(seed))
    other, _ = weight_of(kind, old, np.random.default_rng(seed))
    moved, expected = one.rewire_flat(np.flatnonzero(new)), other.rewire(new)
    assert one.kept == new.sum()
    np.testing.assert_array_equal(one.mask, new)
    np.testing.assert_array_equal(one.dense(), other.dense())
    np.testing.assert_array_equal(moved["weight"], expected["weight"])


@pytest.mark.parametrize("kind", [*FORMATS, MASKED])
@pytest.mark.parametrize("flat", [[3, 2], [1, 1], [-1, 4], [0, 96], [0.0, 1.0], [[0], [1]]])
def test_positions_that_are_none_are_refused_before_a_kernel_sees_them(kind, flat):
    weight, dense = weight_of(kind, structured(), np.random.default_rng(0))
    with pytest.raises(ShapeError, match="flat positions"):
        weight.rewire_flat(np.array(flat))
    np.testing.assert_array_equal(weight.dense(), dense)


def test_condensed_weights_refuse_positions_of_unequal_rows_and_stay_as_they_are():
    weight, dense = weight_of("condensed", structured(), np.random.default_rng(0))
    with pytest.raises(SparseFormatError):
        weight.rewire_flat(np.array([0, 1, 12]))
    np.testing.assert_array_equal(weight.dense(), dense)
    assert accepts("condensed", weight.mask) and weight.kept == 48


def test_entries_of_a_reparametrised_weight_have_no_gradient_of_their_own():
    weight = PowerWeight(MaskedWeight(np.ones((2, 3))), 2.0)
    assert weight.flat.size == 6 and weight.values.size == 6
    with pytest.raises(MethodError, match="gradient"):
        _ = weight.grads
    weight.apply(np.ones((1, 3)), EVAL)
