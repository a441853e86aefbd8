"""Hutchinson's estimate: unbiased, with a standard error that tells the truth."""

import numpy as np
import pytest

from minisparse.curvature import exact_diagonal, flatten, hessian, hutchinson, hvp
from minisparse.curvature.hutchinson import rademacher
from minisparse.errors import UsageError
from minisparse.nn import MSE, CrossEntropy, Linear, MaskedWeight, Network
from tests.curvature.nets import Case, case, mlp, small_cnn
from tests.curvature.oracles import close
from tests.reliability.counts import examples


@pytest.mark.parametrize("seed", range(3))
def test_mean_lies_within_four_standard_errors(seed):
    rng = np.random.default_rng(seed)
    c = case(mlp([3, 4, 3], "tanh", rng), CrossEntropy(), 5, rng)
    estimate, error = (flatten(t) for t in hutchinson(*c, rng=rng, probes=examples(400, 2_000, 20_000)))
    exact = flatten(exact_diagonal(*c))
    z = (estimate - exact) / error
    assert np.abs(z).max() < 4
    assert 0.5 < np.sqrt(np.mean(z**2)) < 1.6  # an error bar that is far too wide fails as well


def test_convolutional_network():
    rng = np.random.default_rng(3)
    c = case(small_cnn("gelu", rng), CrossEntropy(), 3, rng)
    estimate, error = (flatten(t) for t in hutchinson(*c, rng=rng, probes=200))
    exact = flatten(exact_diagonal(*c))
    live = error > 0
    assert (np.abs(estimate - exact)[live] / error[live]).max() < 4.5
    np.testing.assert_allclose(estimate[~live], exact[~live], atol=1e-14)


def test_standard_error_is_that_of_the_known_variance():
    """Var of entry i per probe = sum_{j != i} H_ij^2."""
    rng = np.random.default_rng(4)
    c = case(mlp([3, 3, 2], "tanh", rng), MSE(), 6, rng)
    full = hessian(*c)
    want = np.sqrt(((full**2).sum(axis=1) - np.diag(full) ** 2) / 2000)
    _, error = hutchinson(*c, rng=rng, probes=2000)
    np.testing.assert_allclose(flatten(error), want, rtol=0.2)


def test_diagonal_hessian_is_exact_with_one_probe():
    """Independent inputs, one output, one sample each: y = w x with X^T X diagonal."""
    network = Network({"a": Linear(MaskedWeight(np.array([[0.3, -0.2, 0.9]])))}, (3,))
    c = Case(network, MSE(), np.diag([1.0, 2.0, 3.0]), np.zeros((3, 1)))
    estimate, error = hutchinson(*c, rng=np.random.default_rng(0), probes=1)
    np.testing.assert_allclose(estimate["a.weight"], [[1 / 3, 4 / 3, 3]], rtol=1e-14)
    assert np.isnan(error["a.weight"]).all()
    _, two = hutchinson(*c, rng=np.random.default_rng(0), probes=2)
    np.testing.assert_allclose(two["a.weight"], 0, atol=1e-15)


def test_standard_error_of_three_probes_by_hand():
    rng = np.random.default_rng(7)
    c = case(mlp([3, 3, 2], "tanh", rng), MSE(), 4, rng)
    probes = np.random.default_rng(1)
    samples = []
    for _ in range(3):
        v = rademacher(c.network, probes)
        samples.append(flatten(v) * flatten(hvp(*c, v)))
    estimate, error = hutchinson(*c, rng=np.random.default_rng(1), probes=3)
    np.testing.assert_allclose(flatten(estimate), np.mean(samples, axis=0), rtol=1e-12, atol=1e-15)
    want = np.std(samples, axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(flatten(error), want, rtol=1e-9, atol=1e-15)


def test_same_generator_same_estimate():
    rng = np.random.default_rng(5)
    c = case(mlp([3, 4, 2], "tanh", rng), MSE(), 5, rng)
    a, b = (hutchinson(*c, rng=np.random.default_rng(9), probes=3)[0] for _ in range(2))
    close(a, b, rtol=0)
    other = hutchinson(*c, rng=np.random.default_rng(10), probes=3)[0]
    assert any((a[k] != other[k]).any() for k in a)


@pytest.mark.parametrize("bad", [0, -3, True, 2.0, "4", np.nan])
def test_number_of_probes_is_checked(bad):
    rng = np.random.default_rng(6)
    c = case(mlp([3, 2], "tanh", rng), MSE(), 4, rng)
    with pytest.raises(UsageError, match="probes"):
        hutchinson(*c, rng=rng, probes=bad)
