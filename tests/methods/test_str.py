"""STR: thresholds by closed form, shares of a Gaussian layer, and sparsity that the decay of s sets."""

import numpy as np
import pytest
from scipy.special import erfc

from minisparse import data as datasets
from minisparse.errors import UsageError
from minisparse.methods.dense import Dense
from minisparse.methods.learned.str_ import STR
from minisparse.nn import models
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD
from minisparse.training.run import train
from minisparse.weights.soft_threshold import soft_threshold
from tests.methods.problems import chain, descend, identity_problem, state_of
from tests.oracles.complex_step import derivative


def problem(method, start, target, rate=0.1):
    x, y = identity_problem(target)
    state = state_of(chain([start]), x, y, loss="mse", optimizer=SGD(0.0))
    state.rate = Constant(rate)
    method.setup(state)
    return state, state.network.prunable()["fc1"].weight


def test_soft_thresholding():
    theta = np.array([-2.0, -0.5, 0.0, 0.3, 1.5])
    np.testing.assert_array_equal(soft_threshold(theta, 0.5), [-1.5, 0, 0, 0, 1.0])
    np.testing.assert_array_equal(soft_threshold(theta, 0.0), theta)
    # it is the proximal operator of |.|: no other w makes (w - theta)^2 / 2 + t |w| smaller
    grid = np.linspace(-3, 3, 6001)
    for t in (0.2, 0.9):
        best = grid[((grid[:, None] - theta) ** 2 / 2 + t * np.abs(grid)[:, None]).argmin(axis=0)]
        np.testing.assert_allclose(soft_threshold(theta, t), best, atol=1e-3)


def test_the_gradient_of_the_threshold():
    state, weight = problem(STR(-0.4, 0.0), [1.0, -2.0, 0.3, 0.9], [0.5, -3.0, 1.0, 2.0])
    descend(state)
    dw = weight.dense()[0] - [0.5, -3.0, 1.0, 2.0]  # the mse gradient of this problem
    g = 1 / (1 + np.exp(0.4))
    live = np.array([True, True, False, True])  # g = 0.40
    np.testing.assert_allclose(weight.theta.grad[0], dw * live, rtol=1e-12)
    expected = -g * (1 - g) * (dw * np.sign([1, -2, 1, 1]) * live).sum()
    np.testing.assert_allclose(weight.s.grad, [expected], rtol=1e-12)

    def loss(s):
        w = soft_threshold(np.array([1.0, -2.0, 0.3, 0.9]), 1 / (1 + np.exp(-s)))
        return ((w - [0.5, -3.0, 1.0, 2.0]) ** 2).sum() / 2

    np.testing.assert_allclose(weight.s.grad[0], derivative(loss, np.array(-0.4), np.array(1.0)), rtol=1e-12)


def test_a_threshold_the_loss_does_not_mind_decays_geometrically():
    method = STR(-4.0, 0.5)
    state, weight = problem(method, [0.0, 0.0], [0.0, 0.0], rate=0.1)
    seen = []
    for _ in range(60):
        descend(state)
        value = method.penalty(state)
        seen.append((float(weight.s.value[0]), value))
        method.update(state)
    expected = -4.0 * (1 - 0.1 * 0.5) ** np.arange(60)
    np.testing.assert_allclose([s for s, _ in seen], expected, rtol=1e-12)
    np.testing.assert_allclose([v for _, v in seen], 0.25 * expected**2, rtol=1e-12)
    assert logistic_half(weight)


def logistic_half(weight):
    """The threshold tends to 1/2 from below."""
    return 0 < 1 / (1 + np.exp(-weight.s.value[0])) < 0.5


@pytest.mark.parametrize("s", [-3.0, -1.0, 0.0])
def test_the_share_of_a_gaussian_layer_follows_the_error_function(s):
    w = 0.5 * np.random.default_rng(0).standard_normal((300, 300))
    network = chain(w)
    state = state_of(network, np.zeros((2, 300)), np.zeros(2, dtype=int))
    STR(s, 0.0).setup(state)
    share = network.prunable()["fc1"].weight.kept / w.size
    expected = erfc(1 / (1 + np.exp(-s)) / (0.5 * np.sqrt(2)))
    assert abs(share - expected) < 6 * np.sqrt(0.25 / w.size)


def test_a_weight_below_the_threshold_stands_still_and_returns_when_the_threshold_falls():
    state, weight = problem(STR(0.0, 0.0), [0.4, 1.0], [2.0, 2.0])
    assert weight.mask.tolist() == [[False, True]]
    descend(state)
    state.optimizer.step(state.network, 0.1)
    assert weight.theta.value[0, 0] == 0.4 < weight.theta.value[0, 1]
    weight.s.value[...] = -3.0
    assert weight.mask.all()


def test_layers_learn_different_thresholds_and_the_decay_sets_the_sparsity():
    data = datasets.load("digits")
    network = models.build("mlp:64-60-10", data, seed=0)
    last = {}

    def watch(state):
        for name, layer in state.network.prunable().items():
            last[name] = float(layer.weight.params()["threshold"].value[0])

    dense = train(network, data, Dense(), epochs=10)
    runs = [train(network, data, STR(decay=d), epochs=10, progress=watch) for d in (0.0, 0.02, 0.1)]
    found = [run.sparsity for run in runs]
    assert found[0] < found[1] < found[2] and found[2] > 0.7
    assert last["fc1"] != last["fc2"] > -5.0
    assert runs[2].accuracy > dense.accuracy - 0.05


@pytest.mark.parametrize("settings", [{"initial": float("nan")}, {"decay": -0.1}, {"decay": True}])
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        STR(**settings)
