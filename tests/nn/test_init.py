"""Initialisers: moments within bounds that chance does not cross, orthogonality, determinism."""

import numpy as np
import pytest
from hypothesis import given

from minisparse.nn.init import (
    INITIALIZERS,
    RELU_GAIN,
    fans,
    kaiming_normal,
    kaiming_uniform,
    orthogonal,
    sparse_kaiming,
    xavier_normal,
    xavier_uniform,
)
from tests.strategies import SETTINGS, generators, masks

LARGE = (120, 40, 3, 3)  # 43,200 entries
VARIANCE = {
    kaiming_normal: lambda g: 2 / fans(g)[0],
    kaiming_uniform: lambda g: 2 / fans(g)[0],
    xavier_normal: lambda g: 2 / sum(fans(g)),
    xavier_uniform: lambda g: 2 / sum(fans(g)),
}
# of x^2 / E x^2: 3 - 1 for a Gaussian, 9/5 - 1 for a uniform variable
SPREAD = {kaiming_normal: 2, kaiming_uniform: 0.8, xavier_normal: 2, xavier_uniform: 0.8}


def test_fans():
    assert fans((6, 5, 1, 1)) == (5, 6)
    assert fans((6, 5, 3, 2)) == (30, 36)


@pytest.mark.parametrize("init", VARIANCE)
@pytest.mark.parametrize("seed", range(3))
def test_mean_and_variance(init, seed):
    """Five standard errors of the mean and of the mean square."""
    w = init(LARGE, np.random.default_rng(seed))
    var = VARIANCE[init](LARGE)
    assert abs(w.mean()) < 5 * np.sqrt(var / w.size)
    assert abs((w**2).mean() / var - 1) < 5 * np.sqrt(SPREAD[init] / w.size)


@pytest.mark.parametrize("init", [kaiming_uniform, xavier_uniform])
def test_uniform_bounds(init):
    w = init(LARGE, np.random.default_rng(0))
    bound = np.sqrt(3 * VARIANCE[init](LARGE))
    assert np.abs(w).max() <= bound
    # the largest of n uniform numbers is within 20/n of the end, but for a chance of exp(-20)
    assert np.abs(w).max() > bound * (1 - 20 / w.size)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_shape_type_gain_and_determinism(name):
    init, geometry = INITIALIZERS[name], (4, 3, 2, 5)
    first, again = (init(geometry, np.random.default_rng(7)) for _ in range(2))
    assert first.shape == (4, 30)
    assert first.dtype == np.float64
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, init(geometry, np.random.default_rng(8)))
    one, three = (init(geometry, np.random.default_rng(7), gain=g) for g in (1.0, 3.0))
    np.testing.assert_allclose(three, 3 * one, rtol=1e-14, atol=1e-15)
    default = 1.0 if name.startswith("xavier") else RELU_GAIN
    np.testing.assert_allclose(first, default * one, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("geometry", [(8, 5, 1, 1), (5, 8, 1, 1), (6, 6, 1, 1), (3, 2, 3, 3), (40, 2, 3, 3)])
@pytest.mark.parametrize("gain", [1.0, RELU_GAIN])
def test_orthogonal(geometry, gain):
    w = orthogonal(geometry, np.random.default_rng(1), gain)
    assert w.shape == (geometry[0], fans(geometry)[0])
    small = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(small, gain**2 * np.eye(len(small)), atol=1e-12)


def test_orthogonal_is_uniform_over_the_group():
    """Haar measure: E w_ij = 0 and E w_ij^2 = 1/d; without the fixed signs the diagonal's mean is not 0."""
    rng, d, draws = np.random.default_rng(2), 3, 4000
    w = np.array([orthogonal((d, d, 1, 1), rng, 1.0) for _ in range(draws)])
    assert np.abs(w.mean(axis=0)).max() < 5 / np.sqrt(d * draws)
    square = w**2
    assert (np.abs(square.mean(axis=0) - 1 / d) < 5 * square.std(axis=0) / np.sqrt(draws)).all()


@SETTINGS
@given(masks(), generators)
def test_sparse_kaiming_is_zero_exactly_where_absent(mask, rng):
    w = sparse_kaiming(mask, rng)
    assert w.shape == mask.shape
    np.testing.assert_array_equal(w != 0, mask)
    assert np.isfinite(w).all()


def test_sparse_kaiming_gives_each_unit_the_variance_of_its_own_fan_in():
    rng = np.random.default_rng(3)
    mask = np.zeros((6, 4000), dtype=bool)
    present = [1000, 1500, 2000, 3000, 4000, 0]
    for row, k in zip(mask, present, strict=True):
        row[rng.choice(4000, k, replace=False)] = True
    w = sparse_kaiming(mask, rng)
    for row, k in zip(w[:-1], present[:-1], strict=True):
        squares = (row[row != 0] ** 2).mean() * k / 2
        assert abs(squares - 1) < 5 * np.sqrt(2 / k)
    # a unit's output keeps the variance of its input, times the gain's square
    x = rng.standard_normal((2000, 4000))
    for out, k in zip((x @ w.T).T[:-1], present[:-1], strict=True):
        exact = (w[present.index(k)] ** 2).sum()
        assert abs(out.var() / exact - 1) < 5 * np.sqrt(2 / 2000)


def test_sparse_kaiming_of_a_full_mask_is_kaiming():
    full = np.ones((7, 12), dtype=bool)
    a = sparse_kaiming(full, np.random.default_rng(4))
    np.testing.assert_allclose(a, kaiming_normal((7, 12, 1, 1), np.random.default_rng(4)), rtol=1e-15)
