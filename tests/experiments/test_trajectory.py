"""Lengths of curves: closed forms, exact means, the proven bound, the wide limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.experiments.theory.trajectory import (
    SCALES,
    circle,
    growth,
    length,
    lengths,
    lower_bound,
    sparse_gaussian,
    study,
    wide_limit,
)  # fmt: skip
from minisparse.nn.activation import Activation
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.weight import MaskedWeight
from tests.strategies import SETTINGS, generators


def linear(*matrices):
    layers = {f"fc{k}": Linear(MaskedWeight(m)) for k, m in enumerate(matrices)}
    return Network(layers, (matrices[0].shape[1],))


@SETTINGS
@given(st.integers(3, 60), st.integers(2, 9), generators)
def test_a_circle_is_a_regular_polygon(points, dimension, rng):
    curve = circle(points, dimension, rng)
    assert curve.shape == (points + 1, dimension)
    np.testing.assert_allclose(curve[0], curve[-1], atol=1e-14)
    assert length(curve) == pytest.approx(2 * points * np.sin(np.pi / points), rel=1e-12)


@SETTINGS
@given(generators, st.floats(0.1, 10))
def test_linear_layers_do_what_their_matrix_does(rng, scale):
    curve = rng.standard_normal((7, 5))
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    found = lengths(linear(np.eye(5), turn, scale * turn, np.zeros((3, 5))), curve)
    start = length(curve)
    for name, factor in zip(found, (1, 1, scale, 0), strict=True):
        assert found[name] == pytest.approx(factor * start, rel=1e-12)


def test_a_relu_folds_a_line_and_cuts_a_circle():
    network = Network({"relu": Activation("relu")}, (1,))
    assert lengths(network, np.linspace(-1, 1, 9)[:, None])["relu"] == 1
    plane = Network({"relu": Activation("relu")}, (2,))
    angle = np.linspace(0, 2 * np.pi, 4001)
    curve = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # a quarter stays round, two quarters are pressed onto the axes, one vanishes
    assert lengths(plane, curve)["relu"] == pytest.approx(np.pi / 2 + 2, rel=1e-5)


def test_scaling_all_weights_scales_lengths_by_a_power():
    rng = np.random.default_rng(0)
    network, curve = sparse_gaussian(20, 4, 0.5, 1.0, rng), circle(30, 20, rng)
    once = lengths(network, curve)
    for layer in network.prunable().values():
        layer.weight.assign(3 * layer.weight.dense())
    thrice = lengths(network, curve)
    for k in range(1, 5):
        assert thrice[f"act{k}"] == pytest.approx(3**k * once[f"act{k}"], rel=1e-12)


@pytest.mark.parametrize(("density", "sigma"), [(1.0, 2.0), (0.5, 1.0), (0.2, 1.5)])
def test_the_mean_square_of_a_layer_is_exact_at_any_width(density, sigma):
    # a ray t x, t in [0, 1], has the length |relu(W x)|, whose mean square is density sigma^2 |x|^2 / 2
    rng, x = np.random.default_rng(1), np.array([1.0, -2.0, 0.5, 3.0, 0.1, 1.0])
    ray = np.stack([0 * x, x])
    squares = [lengths(sparse_gaussian(6, 1, density, sigma, rng), ray)["act1"] ** 2 for _ in range(3000)]
    expected = density * sigma**2 / 2 * (x @ x)
    assert abs(np.mean(squares) - expected) < 4 * np.std(squares) / np.sqrt(3000) < 0.2 * expected


@pytest.mark.parametrize("width", [15, 60])
@pytest.mark.parametrize(("density", "sigma"), [(1.0, 1.0), (0.5, 2.0), (0.2, 3.0)])
def test_growth_is_above_the_proven_bound(width, density, sigma):
    mean = growth(density, sigma, range(12), width, 4)
    bound = lower_bound(density, sigma) ** np.arange(5)
    assert (mean >= bound * mean[0]).all()
    assert lower_bound(density, sigma) < wide_limit(density, sigma)


@pytest.mark.parametrize(("density", "sigma", "factor"), [(1, 2, 1.4142), (0.5, 2, 1), (0.1, 2, 0.4472)])
def test_wide_layers_multiply_by_the_limit(density, sigma, factor):
    assert wide_limit(density, sigma) == pytest.approx(factor, abs=1e-4)
    mean = growth(density, sigma, range(3), 300, 4)
    np.testing.assert_allclose(mean[1:] / mean[:-1], factor, rtol=0.06)


def test_the_fitted_scale_keeps_lengths_whatever_the_density():
    plain, fitted = SCALES.values()
    for density in (1.0, 0.3, 0.01):
        assert wide_limit(density, fitted(density)) == pytest.approx(1)
        assert wide_limit(density, plain(density)) == pytest.approx(np.sqrt(density))


def test_the_study_reports_every_case():
    made = study(range(2), width=40, depth=3)
    assert len(made.rows) == 10 and len({tuple(row) for row in made.rows}) == 1
    for row in made.rows:
        assert row["factor"] == pytest.approx((row["length_out"] / row["length_in"]) ** (1 / 3))
        assert row["lower_bound"] < row["factor"]
    assert len(made.figure.axes) == 3
