"""Variational dropout: the divergence and its slope, the noise and its moments, warm-up, what it finds."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from minisparse import data as datasets
from minisparse.errors import UsageError
from minisparse.methods.dense import Dense
from minisparse.methods.learned.variational_dropout import VariationalDropout, warm_up
from minisparse.nn import EVAL, Linear, MaskedWeight, Mode, Network, Window, models
from minisparse.nn.optim import Adam
from minisparse.training.run import train
from minisparse.weights.variational import (
    K1,
    LIMIT,
    VariationalWeight,
    divergence,
    divergence_slope,
    log_alpha,
)
from tests.methods.problems import chain, descend, state_of
from tests.oracles.complex_step import derivative

LA = np.linspace(-8, 8, 33)
EULER = 0.5772156649015329


def exact(la):
    """KL by quadrature: -KL = log(alpha)/2 - E log|1 + sqrt(alpha) z| - (gamma + log 2)/2.

    E log|1 + sqrt(alpha) z| = log(alpha)/2 + E log|t|, t ~ N(m, 1), m = 1/sqrt(alpha), folded onto t > 0.
    """
    m = np.exp(-la / 2)
    parts = [(0, 1), (1, m), (m, m + 12)] if m > 1 else [(0, 1), (1, 14)]
    folded = lambda t: np.log(t) * (norm.pdf(t - m) + norm.pdf(t + m))  # noqa: E731
    return sum(quad(folded, *ends, limit=200)[0] for ends in parts) + (EULER + np.log(2)) / 2


def test_values_of_the_approximation():
    la = np.array([-4.0, -2, 0, 1, 3, 8])
    table = [2.63421, 1.54053, 0.43124, 0.17797, 0.02542, 0.00017]
    np.testing.assert_allclose(divergence(la), table, atol=1e-5)


def test_it_is_within_a_hundredth_of_the_integral():
    integral = np.array([exact(la) for la in LA])
    np.testing.assert_allclose(integral[[8, 16, 22]], [2.62575, 0.42669, 0.02469], atol=2e-5)
    assert np.abs(divergence(LA) - integral).max() < 0.01


def test_limits():
    low = np.array([-60.0, -100.0])
    np.testing.assert_allclose(divergence(low) + low / 2, K1, rtol=1e-12)
    assert divergence(np.array([60.0]))[0] < 1e-12
    np.testing.assert_allclose((EULER + np.log(2)) / 2, 0.635181, atol=1e-6)


def test_the_slope_is_the_derivative_and_never_rises():
    ones = np.ones_like(LA)
    np.testing.assert_allclose(divergence_slope(LA), derivative(divergence, LA, ones), rtol=1e-12)
    known = divergence_slope(np.array([-10.0, 0, 3]))
    np.testing.assert_allclose(known, [-0.49998, -0.35913, -0.02538], atol=1e-5)
    assert (divergence_slope(np.linspace(-30, 30, 601)) < 0).all()


def test_log_alpha_at_the_start():
    la, free = log_alpha(np.array([0.1, 1e-3, 0.0, 100.0]), np.full(4, -10.0))
    np.testing.assert_allclose(la[:2], [-5.3948, 3.8056], atol=1e-4)
    assert la[2:].tolist() == [LIMIT, -LIMIT] and free.tolist() == [True, True, False, False]
    weight = VariationalWeight(MaskedWeight(np.array([[0.1, 1e-3, 0.0, 100.0]])), -10.0, 3.0, 1.0)
    assert weight.mask.tolist() == [[True, False, False, True]]


def noisy(shape, geometry=None, seed=0):
    rng = np.random.default_rng(seed)
    theta = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.4, 1.5, shape)  # nothing is clipped
    weight = VariationalWeight(MaskedWeight(theta, geometry), -1.0, 3.0, 1.0)
    weight.noise.set(rng.uniform(-3, 2, shape))
    return weight, rng


def assert_moments(draws, mean, variance):
    """Six standard deviations: Var(mean) = v/n, Var(variance) = 2 v^2 / (n - 1) for normal draws."""
    n = len(draws)
    assert (np.abs(draws.mean(axis=0) - mean) <= 6 * np.sqrt(variance / n)).all()
    assert (np.abs(draws.var(axis=0, ddof=1) - variance) <= 6 * variance * np.sqrt(2 / (n - 1))).all()


def test_moments_of_a_noisy_layer():
    weight, rng = noisy((3, 5))
    x = rng.standard_normal(5)
    draws = weight.apply(np.tile(x, (20000, 1)), Mode(True, rng))
    sigma2 = np.exp(weight.noise.value)
    assert_moments(draws, weight.theta.value @ x, sigma2 @ x**2 + 1e-8)
    # every row and every output has noise of its own
    correlation = np.corrcoef(draws.T)[np.triu_indices(3, 1)]
    assert np.abs(correlation).max() < 6 / np.sqrt(20000)
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 6 / np.sqrt(20000)


def test_moments_of_a_noisy_convolution():
    weight, rng = noisy((2, 8), (2, 2, 2, 2))
    window, image = Window.of(2), rng.standard_normal((1, 3, 3, 2))
    n = 8000
    draws = weight.correlate(np.tile(image, (n, 1, 1, 1)), window, Mode(True, rng)).reshape(n, 4, 2)
    rows = window.unfold(image)[0]
    mean, variance = rows @ weight.theta.value.T, rows**2 @ np.exp(weight.noise.value).T + 1e-8
    assert_moments(draws, mean, variance)
    # sampling the kernel would correlate the positions; sampling outputs does not
    across = np.corrcoef(draws[:, :, 0].T)[np.triu_indices(4, 1)]
    assert np.abs(across).max() < 6 / np.sqrt(n)


def test_without_noise_it_is_the_mean_and_evaluation_drops_what_is_past_the_threshold():
    weight, rng = noisy((3, 5))
    x = rng.standard_normal((4, 5))
    np.testing.assert_array_equal(weight.apply(x, Mode(True)), x @ weight.theta.value.T)
    la = weight.noise.value - np.log(weight.theta.value**2 + 1e-8)
    assert 0 < (la >= 3).sum() < la.size
    kept = np.where(la < 3, weight.theta.value, 0)
    np.testing.assert_array_equal(weight.apply(x, EVAL), x @ kept.T)
    np.testing.assert_array_equal(weight.dense(), kept)


def test_small_alpha_is_a_deterministic_layer():
    rng = np.random.default_rng(0)
    weight = VariationalWeight(MaskedWeight(rng.standard_normal((3, 5))), -60.0, 3.0, 1.0)
    x = rng.standard_normal((50, 5))
    noise = weight.apply(x, Mode(True, rng)) - x @ weight.theta.value.T
    # log alpha is clipped at -8: the noise is e^-4 of the signal, times at most 6 standard deviations
    bound = 6 * np.sqrt(np.exp(-8) * (x**2 @ (weight.theta.value**2 + 1e-8).T) + 1e-8)
    assert (np.abs(noise) < bound).all() and np.abs(noise).max() > 0


def problem(method, **settings):
    rng = np.random.default_rng(1)
    network = chain(rng.standard_normal((4, 3)), rng.standard_normal((2, 4)), biases=True)
    state = state_of(network, rng.standard_normal((6, 3)), rng.integers(0, 2, 6), **settings)
    method.setup(state)
    for p in (p for k, p in network.params().items() if k.endswith("log_sigma2")):
        p.value[...] = rng.uniform(-9, 6, p.value.shape)
    return state


def objective(state, method):
    """Loss with the noise of this step, and the price; fills the gradients."""
    y = state.network.forward(state.train_x, state.training())
    value = state.loss.value(y, state.train_t)
    state.network.backward(state.loss.grad(), need_dx=False)
    return value + method.penalty(state)


def test_the_gradient_of_the_whole_objective():
    method = VariationalDropout(strength=3.0, begin=0.0, end=0.5)
    state = problem(method)
    state.step = 4
    objective(state, method)
    grads = {k: p.grad.copy() for k, p in state.network.params().items()}
    h = 1e-6
    for key, p in state.network.params().items():
        for place in np.ndindex(p.value.shape):
            old, ends = p.value[place], []
            for sign in (1, -1):
                p.value[place] = old + sign * h
                ends.append(objective(state, method))
            p.value[place] = old
            slope = (ends[0] - ends[1]) / (2 * h)
            np.testing.assert_allclose(grads[key][place], slope, rtol=1e-5, atol=1e-7, err_msg=key)


def test_the_price_is_the_divergence_over_the_number_of_samples():
    method = VariationalDropout(strength=2.0, begin=0.0, end=0.0)
    state = problem(method)
    total = 0.0
    for layer in state.network.prunable().values():
        own = layer.weight.params()
        la, _ = log_alpha(own["weight"].value, own["log_sigma2"].value)
        total += divergence(la).sum()
    np.testing.assert_allclose(method.penalty(state), 2.0 * total / 6, rtol=1e-13)


def test_warm_up():
    shares = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0]
    np.testing.assert_allclose([warm_up(s, 0.2, 0.4) for s in shares], [0, 0, 0, 0.5, 1, 1, 1])
    assert [warm_up(s, 0.3, 0.3) for s in (0.2, 0.3, 0.4)] == [0, 1, 1]
    method, state = VariationalDropout(begin=0.2, end=0.4), problem(VariationalDropout())
    prices = []
    for state.step in (0, 4, 6, 8, 20):
        prices.append(method.penalty(state))
    assert prices[0] == prices[1] == 0
    np.testing.assert_allclose(prices[2], prices[3] / 2, rtol=1e-13)
    assert prices[3] == prices[4] > 0


def test_a_weight_that_data_say_nothing_about_becomes_noise():
    network = Network({"fc1": Linear(MaskedWeight(np.array([[0.5, -0.2]])))}, (2,))
    x = np.zeros((4, 2))
    state = state_of(network, x, np.zeros((4, 1)), loss="mse", horizon=10**4, optimizer=Adam())
    method = VariationalDropout(begin=0.0, end=0.0, rate=1.0)
    method.setup(state)
    own, seen = network.prunable()["fc1"].weight.params(), []
    own["weight"].rate = 0.0  # a mean that passes through 0 takes alpha up and down again
    for _ in range(400):
        descend(state)
        method.penalty(state)
        method.update(state)
        method.after_update(state)
        seen.append(log_alpha(own["weight"].value, own["log_sigma2"].value)[0][0])
    rise = np.diff(np.array(seen), axis=0)
    assert (rise > 0).all() and seen[0][0] < -7.89  # 0.5 starts where the clipping has no gradient
    assert (seen[-1] > 3).all() and (seen[-1] < LIMIT).all()
    assert network.prunable()["fc1"].weight.kept == 0


def test_it_starts_at_the_trained_network_it_is_given():
    rng = np.random.default_rng(2)
    network = chain(rng.standard_normal((4, 3)), rng.standard_normal((2, 4)), biases=True)
    x, before = rng.standard_normal((6, 3)), network.copy()
    state = state_of(network, x, rng.integers(0, 2, 6))
    VariationalDropout().setup(state)
    np.testing.assert_array_equal(network.forward(x), before.forward(x))
    # a mean of no more than 0.0015 is lost in the noise of the start
    before.prunable()["fc1"].weight.param.value[0, 0] = 0.001
    state = state_of(before.copy(), x, rng.integers(0, 2, 6))
    VariationalDropout().setup(state)
    mask = state.network.masks()["fc1"]
    assert not mask[0, 0] and mask.sum() == 11


def test_it_finds_a_sparse_network_on_the_digits():
    data = datasets.load("digits")
    network = models.build("mlp:64-60-10", data, seed=0)
    dense = train(network, data, Dense(), epochs=12)
    found = train(network, data, VariationalDropout(), epochs=12)
    free = train(network, data, VariationalDropout(strength=0.0), epochs=12)
    assert found.sparsity > 0.6 > 0.2 > free.sparsity
    assert found.accuracy > dense.accuracy - 0.05


@pytest.mark.parametrize(
    "settings",
    [
        {"strength": -1.0},
        {"begin": 0.5, "end": 0.2},
        {"begin": 1.5},
        {"rate": float("nan")},
        {"threshold": True},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        VariationalDropout(**settings)
