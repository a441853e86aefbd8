"""L0: the law of a gate in closed form and by sampling, its slope, the price, and what is left at the end."""

import numpy as np
import pytest

from minisparse import data as datasets
from minisparse.errors import UsageError
from minisparse.methods.dense import Dense
from minisparse.methods.learned.l0 import HIGHEST, L0, LOWEST
from minisparse.nn import models
from minisparse.nn.mode import EVAL
from minisparse.nn.weight import MaskedWeight
from minisparse.sparsity.surgery import shrink
from minisparse.training.run import train
from minisparse.weights.hard_concrete import (
    HardConcreteWeight,
    closed,
    gate,
    gate_slope,
    opened,
    stretched,
)
from minisparse.weights.reparametrised import logistic
from tests.methods.problems import chain, clusters, conv_net, mlp, state_of
from tests.oracles.complex_step import derivative

LOG_A = np.array([-3.0, -1.5, 0.0, 0.7, 2.0])


def at(x):
    return np.array([float(x)])


def all_open(log_a):
    """P(z = 1), by the mirror image of P(z = 0)."""
    return closed(-log_a)


def test_known_values():
    np.testing.assert_allclose([closed(at(0)), all_open(at(0))], [[0.168178]] * 2, atol=1e-6)
    np.testing.assert_allclose(opened(at(0)), 0.831822, atol=1e-6)
    np.testing.assert_allclose([closed(at(2)), all_open(at(2))], [[0.026633], [0.599025]], atol=1e-6)
    np.testing.assert_allclose([opened(at(LOWEST)), opened(at(HIGHEST))], [[0.047], [0.998]], atol=5e-4)
    np.testing.assert_allclose(logistic(at(1) / (2 / 3)), 0.817574, atol=1e-6)
    np.testing.assert_allclose(gate(at(0.5), at(1)), 0.881089, atol=1e-6)
    np.testing.assert_allclose(stretched(logistic(np.array([0.0, 2.0]))), [0.5, 0.956956], atol=1e-6)


def test_the_gate_of_evaluation_shuts_later_than_the_odds_turn():
    edge = -np.log(11)
    assert stretched(logistic(at(edge - 1e-9)))[0] == 0 < stretched(logistic(at(edge + 1e-6)))[0]
    assert abs(opened(at(-1.5986))[0] - 0.5) < 1e-4 and opened(at(edge))[0] < 0.5


def test_sampled_gates_have_the_probabilities_and_the_mean():
    n = 400_000
    u = np.random.default_rng(0).random((n, 1))
    z = gate(u, LOG_A)
    bound = 5 * np.sqrt(0.25 / n)  # five standard deviations of a share, at most
    assert (np.abs((z == 0).mean(axis=0) - closed(LOG_A)) < bound).all()
    assert (np.abs((z == 1).mean(axis=0) - all_open(LOG_A)) < bound).all()
    assert (np.abs((z > 0).mean(axis=0) - opened(LOG_A)) < bound).all()
    np.testing.assert_allclose(opened(LOG_A) + closed(LOG_A), 1, rtol=1e-14)
    # z lies in [0, 1], so its mean has at most the error of a share; at 0 it is 1/2 by symmetry
    assert abs(z[:, 2].mean() - 0.5) < bound
    # the plug-in gate is not the mean
    assert abs(z[:, 4].mean() - 0.8572) < 2 * bound < stretched(logistic(at(2)))[0] - z[:, 4].mean()


def test_the_slope_of_a_gate():
    rng = np.random.default_rng(1)
    u, log_a = rng.uniform(0.01, 0.99, 400), rng.uniform(-4, 4, 400)
    slope = gate_slope(u, log_a)
    step = derivative(lambda a: gate(u, a), log_a, np.ones(400))
    np.testing.assert_allclose(slope, step, rtol=1e-10, atol=1e-14)
    z = gate(u, log_a)
    assert ((slope == 0) == ((z == 0) | (z == 1))).all()
    assert 0 < (slope == 0).sum() < 400


def problem(method, network=None, seed=0):
    rng = np.random.default_rng(1)
    network = network or chain(rng.standard_normal((4, 3)), rng.standard_normal((2, 4)))
    shape = (6, *network.input_shape)
    state = state_of(network, rng.standard_normal(shape), rng.integers(0, 2, 6), seed=seed)
    method.setup(state)
    return state


@pytest.mark.parametrize("unit", ["weight", "row", "column"])
def test_the_price_and_its_gradient(unit):
    method = L0(strength=0.7, unit=unit, weight_decay=0.3)
    state = problem(method)
    rng, total = np.random.default_rng(2), 0.0
    for layer in state.network.prunable().values():
        own = layer.weight.params()
        own["log_a"].value[...] = rng.uniform(-3, 3, own["log_a"].value.shape)
        theta, chance = own["weight"].value, opened(own["log_a"].value)
        each = {"weight": chance, "row": chance[:, None], "column": chance}[unit] * np.ones(theta.shape)
        total += (each * (0.7 + 0.15 * theta**2)).sum() / 6
    np.testing.assert_allclose(method.penalty(state), total, rtol=1e-13)
    params = state.network.params()
    for p in params.values():
        p.grad[...] = 0
    method.penalty(state)
    grads = {k: p.grad.copy() for k, p in params.items()}
    for key, p in params.items():
        v = rng.standard_normal(p.value.shape)
        ends = []
        for sign in (1, -1):
            p.value += sign * 1e-5 * v
            ends.append(method.penalty(state))
            p.value -= sign * 1e-5 * v
        np.testing.assert_allclose((grads[key] * v).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-12)


def test_gates_start_around_the_dropout_rate_and_stay_within_their_limits():
    method = L0(dropout=0.2)
    state = problem(method, mlp((30, 40, 3), np.random.default_rng(0)))
    for key, p in state.network.params().items():
        if key.endswith("log_a"):
            # 1.386 = log(0.8 / 0.2), standard deviation 0.01: the mean and every draw within six of theirs
            assert abs(p.value.mean() - np.log(4)) < 6 * 0.01 / np.sqrt(p.value.size)
            assert np.abs(p.value - np.log(4)).max() < 0.06
            p.value[0] = 40.0
            p.value[1] = -40.0
    method.after_update(state)
    for key, p in state.network.params().items():
        if key.endswith("log_a"):
            assert (p.value.min(), p.value.max()) == (LOWEST, HIGHEST)


def test_the_network_is_the_same_at_the_start():
    network = mlp((6, 10, 3), np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((5, 6))
    before = network.forward(x)
    for unit in ("weight", "row", "column"):
        other = network.copy()
        problem(L0(unit=unit), other)
        np.testing.assert_allclose(other.forward(x), before, rtol=1e-12)


def test_layers_of_equal_shape_and_other_seeds_start_differently():
    network = mlp((5, 5, 5), np.random.default_rng(0))
    first, other = (problem(L0(), network.copy(), seed).network.params() for seed in (0, 1))
    assert (first["fc1.log_a"].value != first["fc2.log_a"].value).any()
    assert (first["fc1.log_a"].value != other["fc1.log_a"].value).any()


def test_open_gates_are_a_dense_layer():
    rng = np.random.default_rng(3)
    dense = rng.standard_normal((4, 6))
    weight = HardConcreteWeight(MaskedWeight(dense), np.full((4, 6), 50.0), lambda z: z, lambda a: a, 1.0)
    x = rng.standard_normal((5, 6))
    state = problem(L0())
    for mode in (EVAL, state.training()):
        np.testing.assert_array_equal(weight.apply(x, mode), x @ dense.T)


@pytest.mark.parametrize(("unit", "axis"), [("row", 1), ("column", 0)])
def test_units_leave_as_wholes(unit, axis):
    network = mlp((6, 10, 3), np.random.default_rng(0), dtype=np.float32)
    data = clusters(np.random.default_rng(1), (6,))
    run = train(network, data, L0(0.1, unit=unit, rate=60.0), epochs=10, batch=16)
    found = np.concatenate([m.mean(axis=axis) for m in run.network.masks().values()])
    assert set(found) == {0.0, 1.0}


def test_a_convolution_loses_whole_input_channels():
    state = problem(L0(unit="column"), conv_net(np.random.default_rng(0)))
    weight = state.network.prunable()["block.branch.conv1"].weight
    gates = weight.params()["log_a"].value
    assert gates.shape == (4,)
    gates[1] = -40.0
    mask = weight.mask.reshape(4, 9, 4)
    assert not mask[:, :, 1].any() and mask[:, :, [0, 2, 3]].all()


@pytest.mark.parametrize("unit", ["row", "column"])
@pytest.mark.parametrize("make", [lambda rng: mlp((6, 10, 8, 3), rng), conv_net])
def test_a_network_without_the_shut_units_is_the_gated_one(unit, make):
    rng = np.random.default_rng(4)
    method = L0(unit=unit)
    state = problem(method, make(rng))
    for layer in list(state.network.prunable().values())[int(unit == "column") :]:
        gates = layer.weight.params()["log_a"].value
        gates[...] = np.where(rng.random(gates.shape) < 0.5, -40.0, rng.normal(0, 1, gates.shape))
        gates.reshape(-1)[0] = 2.0
    x = rng.standard_normal((12, *state.network.input_shape))
    gated = state.network.forward(x)
    method.finish(state)
    small = shrink(state.network)
    params = [sum(p.value.size for p in net.params().values()) for net in (state.network, small)]
    assert params[1] < 0.9 * params[0]
    np.testing.assert_allclose(small.forward(x), gated, rtol=1e-10, atol=1e-12)


def test_at_the_end_the_gates_are_in_the_weights():
    network = mlp((6, 10, 3), np.random.default_rng(0), dtype=np.float32)
    data, last = clusters(np.random.default_rng(1), (6,)), {}

    def watch(state):
        for name, layer in state.network.prunable().items():
            own = layer.weight.params()
            last[name] = own["weight"].value * stretched(logistic(own["log_a"].value))

    run = train(network, data, L0(), epochs=8, batch=16, progress=watch)
    for name, layer in run.network.prunable().items():
        np.testing.assert_array_equal(layer.weight.dense(), last[name])
        np.testing.assert_array_equal(layer.weight.mask, last[name] != 0)


def test_the_price_makes_the_digits_sparse():
    data = datasets.load("digits")
    network = models.build("mlp:64-60-10", data, seed=0)
    dense = train(network, data, Dense(), epochs=10)
    free, priced = (train(network, data, L0(s, dropout=0.5), epochs=10) for s in (0.0, 1.0))
    assert priced.sparsity > 0.7 > 0.3 > free.sparsity
    assert priced.accuracy > dense.accuracy - 0.05


@pytest.mark.parametrize(
    "settings", [{"strength": -1.0}, {"unit": "filter"}, {"dropout": 1.2}, {"rate": -1.0}]
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        L0(**settings)
