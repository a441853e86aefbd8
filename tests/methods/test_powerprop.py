"""Powerprop: its slope, what a step does to weights of different size, and what that buys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse import data as datasets
from minisparse.errors import UsageError
from minisparse.methods.learned.powerprop import Powerprop
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn import models
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD
from minisparse.sparsity import Cubic, OneShot, kept_count
from minisparse.training.run import train
from minisparse.weights.powerprop import power, root, slope
from tests.methods.problems import chain, clusters, descend, identity_problem, mlp, state_of
from tests.oracles.complex_step import derivative
from tests.strategies import SETTINGS

NEVER = OneShot(1.0)


@SETTINGS
@given(st.floats(1, 5), st.lists(st.floats(-10, 10), min_size=1, max_size=6))
def test_the_root_undoes_the_power(alpha, values):
    w = np.array(values)
    np.testing.assert_allclose(power(root(w, alpha), alpha), w, rtol=1e-12, atol=1e-300)
    assert (np.sign(root(w, alpha)) == np.sign(w)).all()


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 4.0])
def test_the_slope_is_the_derivative(alpha):
    theta = np.array([-2.0, -0.3, 0.01, 0.7, 3.0])
    np.testing.assert_allclose(
        slope(theta, alpha), derivative(lambda t: power(t, alpha), theta, np.ones(5)), rtol=1e-12
    )
    np.testing.assert_allclose(slope(theta, alpha), alpha * np.abs(theta) ** (alpha - 1), rtol=1e-14)
    assert slope(np.zeros(1), alpha)[0] == (1.0 if alpha == 1 else 0.0)


def problem(alpha, start, target, rate):
    x, y = identity_problem(target)
    state = state_of(chain([start]), x, y, loss="mse", optimizer=SGD(0.0))
    state.rate = Constant(rate)
    method = Powerprop(0.5, NEVER, alpha=alpha)
    method.setup(state)
    return state, method, state.network.prunable()["fc1"].weight


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_a_step_is_scaled_by_a_power_of_the_weight(alpha):
    # W moves by -eta alpha^2 |W|^(2 - 2/alpha) dL/dW, to first order in eta
    start, target, eta = np.array([0.1, -0.5, 2.0, 0.0]), np.array([1.0, 1.0, 1.0, 1.0]), 1e-7
    state, method, weight = problem(alpha, start, target, eta)
    np.testing.assert_allclose(weight.dense()[0], start, rtol=1e-13)
    descend(state)
    method.update(state)
    moved = (weight.dense()[0] - start) / eta
    expected = -(alpha**2) * np.abs(start) ** (2 - 2 / alpha) * (start - target)
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-8)
    assert (moved[3] == 0) == (alpha > 1)


def test_the_flow_of_alpha_two_is_logistic():
    # dW/dt = 4 W (w* - W) for W > 0: W = w* / (1 + (w*/W_0 - 1) exp(-4 w* t))
    start, target, eta, count = np.array([0.1, 0.4]), np.array([1.0, 0.5]), 1e-4, 5000
    state, method, weight = problem(2.0, start, target, eta)
    for _ in range(count):
        descend(state)
        method.update(state)
    t = eta * count
    exact = target / (1 + (target / start - 1) * np.exp(-4 * target * t))
    np.testing.assert_allclose(weight.dense()[0], exact, rtol=1e-3)


def test_a_power_of_one_is_magnitude_pruning_bit_for_bit():
    network = mlp((6, 9, 3), np.random.default_rng(1), dtype=np.float32)
    data = clusters(np.random.default_rng(2), (6,))
    runs = [train(network, data, m, epochs=5, batch=16) for m in (Powerprop(0.8, alpha=1.0), Magnitude(0.8))]
    for key, value in runs[0].network.state().items():
        np.testing.assert_array_equal(value, runs[1].network.state()[key])


def test_counts_follow_the_schedule_and_the_largest_weights_stay():
    network, seen = mlp((6, 20, 3), np.random.default_rng(1), dtype=np.float32), []
    data = clusters(np.random.default_rng(2), (6,))

    def watch(state):
        layers = state.network.prunable().values()
        seen.append((sum(x.weight.kept for x in layers), [x.weight.dense().copy() for x in layers]))

    train(network, data, Powerprop(0.8, OneShot(0.5), alpha=3.0), epochs=4, batch=16, progress=watch)
    assert [count for count, _ in seen] == [180] * 6 + [kept_count(180, 0.8)] * 7
    absent = [w == 0 for w in seen[6][1]]
    for _, weights in seen[6:]:
        assert all((w[gone] == 0).all() for w, gone in zip(weights, absent, strict=True))


def test_it_beats_magnitude_at_high_sparsity_on_the_digits():
    data, found = datasets.load("digits"), {1.0: [], 2.0: []}
    for seed in range(3):
        network = models.build("mlp:64-100-10", data, seed=seed)
        for alpha, accuracies in found.items():
            method = Powerprop(0.97, Cubic(0.2, 0.7), alpha=alpha)
            accuracies.append(train(network, data, method, epochs=8, seed=seed).accuracy)
    assert np.mean(found[2.0]) > np.mean(found[1.0])


@pytest.mark.parametrize("alpha", [0.5, float("inf"), "2"])
def test_settings_are_checked(alpha):
    with pytest.raises(UsageError):
        Powerprop(alpha=alpha)
