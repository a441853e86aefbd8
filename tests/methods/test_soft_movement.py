"""Soft movement: the threshold's course, the price of scores, and gates that follow both."""

import numpy as np
import pytest

from minisparse import data as datasets
from minisparse.errors import UsageError
from minisparse.methods.learned.soft_movement import SoftMovement
from minisparse.nn import models
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD
from minisparse.training.run import train
from tests.methods.problems import chain, descend, identity_problem, mlp, state_of


def problem(method, start, target, rate=0.1, horizon=100):
    x, y = identity_problem(target)
    state = state_of(chain([start]), x, y, loss="mse", horizon=horizon, optimizer=SGD(0.0))
    state.rate = Constant(rate)
    method.setup(state)
    return state, state.network.prunable()["fc1"].weight


def steps(state, method, count):
    for _ in range(count):
        descend(state)
        method.penalty(state)
        method.update(state)
        state.step += 1
        method.after_update(state)


def test_the_threshold_rises_along_the_cubic_curve():
    method = SoftMovement(threshold=0.2, begin=0.1, end=0.6)
    state, _ = problem(method, [1.0], [1.0])
    found = []
    for state.step in range(101):
        found.append(method.tau(state))
    expected = [0.2 * (1 - (1 - min(max((t - 10) / 50, 0), 1)) ** 3) for t in range(101)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert found[10] == 0 and found[60] == found[100] == 0.2


def test_the_price_and_its_gradient():
    rng = np.random.default_rng(0)
    method = SoftMovement(strength=3.0, threshold=0.4, begin=0.0, end=0.5)
    network = mlp((4, 5, 2), rng)
    state = state_of(network, np.zeros((2, 4)), np.zeros(2, dtype=int), horizon=20)
    method.setup(state)
    state.step = 5
    total, scores = 0.0, {}
    for name, layer in network.prunable().items():
        scores[name] = layer.weight.params()["score"]
        scores[name].value[...] = rng.standard_normal(layer.weight.shape)
        scores[name].grad[...] = 0
        total += (1 / (1 + np.exp(-scores[name].value))).mean() / 2
    price = 3.0 * (1 - 0.5**3)  # tau_t / tau half way
    np.testing.assert_allclose(method.penalty(state), price * total, rtol=1e-13)
    for p in scores.values():
        s = 1 / (1 + np.exp(-p.value))
        np.testing.assert_allclose(p.grad, price * s * (1 - s) / p.value.size / 2, rtol=1e-12)


def test_gates_are_the_scores_past_the_threshold():
    method = SoftMovement(strength=0.0, threshold=0.3, begin=0.0, end=0.0)
    state, weight = problem(method, [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    weight.score.value[...] = [[0.0, np.log(0.3 / 0.7) + 1e-6, np.log(0.3 / 0.7) - 1e-6]]
    state.step = 1
    method.after_update(state)
    assert weight.mask.tolist() == [[True, True, False]]
    np.testing.assert_array_equal(weight.dense(), [[1.0, 1.0, 0.0]])
    weight.score.value[...] = 0
    method.after_update(state)
    np.testing.assert_array_equal(weight.dense(), [[1.0, 1.0, 1.0]])


def test_without_a_price_only_weights_that_shrink_can_leave():
    method = SoftMovement(strength=0.0, threshold=0.49, begin=0.0, end=0.0, rate=1.0)
    state, weight = problem(method, [1.0, 1.0, -1.0], [2.0, 0.2, -0.1])
    steps(state, method, 30)
    assert weight.mask.tolist() == [[True, False, False]]
    assert (weight.score.value[0] > 0).tolist() == [True, False, False]


def test_with_no_gradient_the_price_shuts_every_gate():
    method = SoftMovement(strength=50.0, threshold=0.3, begin=0.0, end=0.1, rate=10.0)
    state, weight = problem(method, [0.5, 0.5], [0.5, 0.5])
    seen = []
    for _ in range(30):
        method.penalty(state)
        weight.theta.grad[...] = 0
        method.update(state)
        weight.score.grad[...] = 0
        state.step += 1
        method.after_update(state)
        seen.append(weight.score.value.copy())
    assert (np.diff(seen, axis=0) <= 0).all() and weight.kept == 0
    np.testing.assert_array_equal(weight.theta.value, [[0.5, 0.5]])


def test_the_price_sets_how_sparse_the_digits_become():
    data = datasets.load("digits")
    network = models.build("mlp:64-60-10", data, seed=0)
    runs = [train(network, data, SoftMovement(s), epochs=10) for s in (0.0, 30.0, 100.0)]
    found = [run.sparsity for run in runs]
    assert found[0] < found[1] < found[2] and found[2] > 0.6
    assert runs[2].accuracy > 0.85


@pytest.mark.parametrize("settings", [{"threshold": 1.5}, {"begin": 0.7, "end": 0.5}, {"strength": "1"}])
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        SoftMovement(**settings)
