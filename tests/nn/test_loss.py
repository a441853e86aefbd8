"""Losses: values from their definition, derivatives by complex step, square roots, sampling, extremes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from scipy.special import expit, log_softmax

from minisparse.errors import UsageError
from minisparse.nn import MSE, BinaryCrossEntropy, CrossEntropy
from minisparse.nn.loss import LOSSES, softmax
from tests.architectures import random_target
from tests.oracles.complex_step import H, jacobian
from tests.strategies import SETTINGS, generators

TIGHT = {"rtol": 1e-12, "atol": 1e-14}
every = pytest.mark.parametrize("name", LOSSES)


def case(name, rng, n=4, o=5):
    loss = LOSSES[name]()
    return loss, 2 * rng.standard_normal((n, o)), random_target(rng, loss, n, o)


def sample_hessians(loss, y, target):
    """(n, o, o): Hessian of the mean loss with respect to each sample's outputs, by complex step."""
    full = jacobian(lambda z: (loss.value(z, target), loss.grad())[1], y)  # (n, o, n, o)
    n = len(y)
    for a, b in itertools.permutations(range(n), 2):
        assert not full[a, :, b].any(), "samples must not interact"
    return full[np.arange(n), :, np.arange(n), :]


def test_values_from_the_definitions():
    rng = np.random.default_rng(0)
    y, t = rng.standard_normal((2, 4, 5))
    assert MSE().value(y, t) == pytest.approx(((y - t) ** 2).sum() / 8, rel=1e-14)
    k = rng.integers(0, 5, 4)
    want = -log_softmax(y, axis=1)[np.arange(4), k].mean()
    assert CrossEntropy().value(y, k) == pytest.approx(want, rel=1e-14)
    u = rng.random((4, 5))
    want = -(u * np.log(expit(y)) + (1 - u) * np.log(expit(-y))).sum() / 4
    assert BinaryCrossEntropy().value(y, u) == pytest.approx(want, rel=1e-13)


@every
@SETTINGS
@given(rng=generators)
def test_gradient_is_the_complex_step_of_the_value(name, rng):
    loss, y, target = case(name, rng, int(rng.integers(1, 6)), int(rng.integers(1, 8)))
    want = jacobian(lambda z: np.asarray(loss.value(z, target)), y)
    loss.value(y, target)
    np.testing.assert_allclose(loss.grad(), want, **TIGHT)


@every
@SETTINGS
@given(rng=generators)
def test_square_root_and_product_are_the_hessian(name, rng):
    loss, y, target = case(name, rng, int(rng.integers(1, 6)), int(rng.integers(1, 8)))
    hessians = sample_hessians(loss, y, target)
    loss.value(y, target)
    s = loss.sqrt_hessian()
    assert s.shape[1:] == y.shape
    np.testing.assert_allclose(np.einsum("vni,vnj->nij", s, s), hessians, **TIGHT)
    ry = rng.standard_normal(y.shape)
    np.testing.assert_allclose(loss.rgrad(ry), np.einsum("nij,nj->ni", hessians, ry), **TIGHT)


@every
def test_complex_square_root_is_analytic(name):
    """Curvature of curvature needs it: (S S^T)(y + i h v) is the complex Hessian, no modulus taken."""
    rng = np.random.default_rng(1)
    loss, y, target = case(name, rng)
    v = rng.standard_normal(y.shape)
    loss.value(y + 1j * H * v, target)
    s = loss.sqrt_hessian()
    moved = np.einsum("vni,vnj->nij", s, s).imag / H
    columns = [loss.rgrad(np.eye(5, dtype=complex)[None, k].repeat(4, 0)) for k in range(5)]
    np.testing.assert_allclose(moved, np.stack(columns, axis=2).imag / H, **TIGHT)


@SETTINGS
@given(rng=generators)
def test_cross_entropy_gradient_rows_sum_to_zero(rng):
    loss, y, target = case("cross-entropy", rng, 6, int(rng.integers(1, 12)))
    loss.value(y, target)
    np.testing.assert_allclose(loss.grad().sum(axis=1), 0, atol=1e-16)
    np.testing.assert_allclose(loss.sqrt_hessian().sum(axis=2), 0, atol=1e-15)
    ry = np.ones_like(y)  # a shift of all logits changes nothing
    np.testing.assert_allclose(loss.rgrad(ry), 0, atol=1e-15)


def test_cross_entropy_is_invariant_to_a_shift():
    loss, y, target = case("cross-entropy", np.random.default_rng(2))
    assert loss.value(y + 700, target) == pytest.approx(loss.value(y, target), rel=1e-12)


EXTREME = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [0.0, 1e4, -1e4]])
EXTREME_TARGETS = {"mse": np.zeros((4, 3)), "cross-entropy": np.array([1, 0, 2, 1])}
EXTREME_TARGETS["bce"] = np.array([[0.0, 1.0, 0.5]] * 4)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_extreme_outputs_stay_finite(name, dtype):
    loss = LOSSES[name]()
    value = loss.value(EXTREME.astype(dtype), EXTREME_TARGETS[name])
    assert np.isfinite(value)
    for array in (loss.grad(), loss.sqrt_hessian(), loss.rgrad(np.ones((4, 3), dtype))):
        assert np.isfinite(array).all()
        assert array.dtype == dtype


def test_softmax_of_extreme_outputs():
    np.testing.assert_array_equal(softmax(EXTREME)[0], [1, 0, 0])
    np.testing.assert_allclose(softmax(EXTREME)[1:3], 1 / 3, rtol=1e-15)


def test_extreme_values_are_right():
    loss = CrossEntropy()
    # wrong by 20,000, then even odds of three twice, then right
    want = (2e4 + 2 * np.log(3)) / 4
    assert loss.value(EXTREME, EXTREME_TARGETS["cross-entropy"]) == pytest.approx(want, rel=1e-14)
    loss = BinaryCrossEntropy()
    assert loss.value(np.array([[1e4, -1e4]]), np.array([[0.0, 1.0]])) == 2e4
    np.testing.assert_array_equal(loss.grad(), [[1, -1]])
    assert loss.value(np.array([[1e4, -1e4]]), np.array([[1.0, 0.0]])) == 0


@every
@pytest.mark.parametrize("target_dtype", [np.float32, np.float64, np.int64, bool])
def test_targets_do_not_raise_the_precision(name, target_dtype):
    rng = np.random.default_rng(3)
    loss, y, target = case(name, rng)
    if name == "cross-entropy":
        target_dtype = np.uint8
    target = (target > 0.5).astype(target_dtype) if name != "cross-entropy" else target.astype(np.uint8)
    keep = target.copy()
    loss.value(y.astype(np.float32), target)
    arrays = [loss.grad(), loss.rgrad(y.astype(np.float32)), loss.sqrt_hessian()]
    arrays.append(loss.sample(np.random.default_rng(0)))
    assert {a.dtype for a in arrays} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(target, keep)


@every
def test_arrays_handed_out_are_the_callers_own(name):
    loss, y, target = case(name, np.random.default_rng(4))
    keep = y.copy()
    value = loss.value(y, target)
    first = loss.grad()
    again = first.copy()
    first[...] = 7
    np.testing.assert_array_equal(loss.grad(), again)
    np.testing.assert_array_equal(y, keep)
    assert loss.value(y, target) == value


def test_sampled_gradients_by_enumeration():
    """Classes and bits are few: the share of each outcome is compared with its probability."""
    rng = np.random.default_rng(5)
    y, draws = np.array([[0.3, -1.2, 1.0, 0.0]]), 20_000
    p = softmax(y)[0]
    loss = CrossEntropy()
    loss.value(np.repeat(y, draws, axis=0), np.zeros(draws, int))
    g = loss.sample(rng)
    classes = np.argmin(g, axis=1)
    np.testing.assert_allclose(g, p - np.eye(4)[classes], rtol=1e-14)
    five_sigma = 5 * np.sqrt(p * (1 - p) / draws)
    assert (np.abs(np.bincount(classes, minlength=4) / draws - p) < five_sigma).all()
    loss = BinaryCrossEntropy()
    loss.value(np.repeat(y, draws, axis=0), np.zeros((draws, 4)))
    s = expit(y[0])
    g = loss.sample(rng)
    ones = np.isclose(g, s - 1)
    assert (ones | np.isclose(g, s)).all()
    assert (np.abs(ones.mean(axis=0) - s) < 5 * np.sqrt(s * (1 - s) / draws)).all()
    correlation = np.corrcoef(ones.T)
    assert np.abs(correlation - np.eye(4)).max() < 5 / np.sqrt(draws)


@every
def test_samples_have_mean_zero_and_covariance_the_hessian(name):
    """E g = 0 and E g g^T = n S S^T; each entry within five standard errors of its own estimate."""
    rng = np.random.default_rng(6)
    draws = 20_000
    loss, y, target = case(name, rng, 1, 3)
    loss.value(y, target)
    root = loss.sqrt_hessian()[:, 0]
    loss.value(np.repeat(y, draws, axis=0), np.repeat(target, draws, axis=0))
    g = loss.sample(rng)
    assert (np.abs(g.mean(axis=0)) < 5 * g.std(axis=0) / np.sqrt(draws)).all()
    products = np.einsum("ni,nj->nij", g, g)
    error = np.abs(products.mean(axis=0) - root.T @ root)
    assert (error < 5 * products.std(axis=0) / np.sqrt(draws) + 1e-15).all()


@every
def test_samples_are_repeatable(name):
    loss, y, target = case(name, np.random.default_rng(7))
    loss.value(y, target)
    first, second = (loss.sample(np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, loss.sample(np.random.default_rng(2)))


def test_certain_predictions_leave_nothing_to_sample():
    loss = CrossEntropy()
    loss.value(np.array([[0.0, 800.0, 0.0]] * 50), np.zeros(50, int))
    np.testing.assert_array_equal(loss.sample(np.random.default_rng(0)), 0)


def test_accuracy():
    y = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 3.0]])
    assert CrossEntropy().accuracy(y, np.array([0, 0, 0])) == pytest.approx(2 / 3)
    assert BinaryCrossEntropy().accuracy(y - 0.5, np.array([[1, 1], [0, 0], [1, 1]])) == pytest.approx(5 / 6)
    assert np.isnan(MSE().accuracy(y, y))


@every
def test_wrong_shapes_are_refused(name):
    loss, y, target = case(name, np.random.default_rng(8))
    bad = [(y, target[:-1]), (y[0], target), (y[None], target), (y, target[..., None])]
    for outputs, targets in bad:
        with pytest.raises(UsageError, match=r"got outputs .* expected outputs") as caught:
            loss.value(outputs, targets)
        assert "\n" not in str(caught.value)
