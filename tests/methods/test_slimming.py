"""Slimming: what the penalty is worth, where it leads, and the one ranking of all scales."""

import numpy as np
import pytest

from minisparse.errors import MethodError, UsageError
from minisparse.methods.structured.ranked import present
from minisparse.methods.structured.slimming import Slimming, add_penalty, mean_scale, scales
from minisparse.nn import models as zoo
from minisparse.nn.norm import BatchNorm2d
from minisparse.nn.param import Param
from minisparse.sparsity import OneShot
from minisparse.sparsity.groups import groups_of
from minisparse.training.run import train
from tests.methods.problems import clusters, conv_net, mlp, state_of

NOW = OneShot(0.0)


def random_scales(network, rng):
    for _, layer in network.walk():
        if isinstance(layer, BatchNorm2d):
            layer.gamma.set(rng.standard_normal(len(layer.gamma.value)))
    return network


def state_for(network):
    x = np.random.default_rng(1).standard_normal((6, *network.input_shape))
    return state_of(network, x, np.arange(6) % 3, horizon=20)


def gammas(network):
    return {n: layer.gamma.value for n, layer in network.walk() if isinstance(layer, BatchNorm2d)}


def test_penalty_and_its_gradient():
    network = random_scales(conv_net(np.random.default_rng(0)), np.random.default_rng(1))
    network.layers["bn"].gamma.value[2] = 0
    state = state_for(network)
    for p in network.params().values():
        p.grad[...] = 7.0
    value = Slimming(strength=0.3).penalty(state)
    assert value == pytest.approx(0.3 * sum(np.abs(g).sum() for g in gammas(network).values()))
    for name, p in network.params().items():
        scale = name.endswith("weight") and p.value.ndim == 1
        np.testing.assert_allclose(p.grad, 7.0 + 0.3 * np.sign(p.value) if scale else 7.0)
    assert network.layers["bn"].gamma.grad[2] == 7.0  # the subgradient of least norm at 0


@pytest.mark.parametrize("a", [2.0, -1.5, 0.2])
def test_descent_on_a_quadratic_ends_at_the_soft_threshold(a):
    """argmin (gamma - a)^2 / 2 + lambda |gamma| = sign(a) max(|a| - lambda, 0), to a step of the walk."""
    gamma, strength, rate = Param(np.array([a])), 0.5, 1e-3
    for _ in range(20_000):
        gamma.grad[...] = gamma.value - a
        add_penalty(gamma, np.array([[0]]), strength)
        gamma.value -= rate * gamma.grad
    assert gamma.value[0] == pytest.approx(np.sign(a) * max(abs(a) - strength, 0), abs=2 * rate)


def test_channels_of_smallest_scale_leave_whatever_layer_they_are_in():
    network = random_scales(zoo.make("vgg-small", (1, 8, 8), 10), np.random.default_rng(0))
    sizes = np.concatenate([np.abs(g) for g in gammas(network).values()])
    state = state_of(network, np.zeros((2, 1, 8, 8), dtype=np.float32), np.zeros(2, dtype=int))
    Slimming(0.4, schedule=NOW, share_of="units").setup(state)
    left = np.concatenate([present(network, group) for group in groups_of(network)])
    gone = round(0.4 * sizes.size)
    np.testing.assert_array_equal(left, sizes > np.sort(sizes)[gone - 1])
    np.testing.assert_array_equal(np.concatenate(list(gammas(network).values())) == 0, ~left)


def test_a_stream_is_ranked_by_the_mean_over_its_normalisations():
    network = conv_net(np.random.default_rng(0))
    first, inner, last = np.array([0.1, 0.9, 0.3, 0.5]), np.full(4, 2.0), np.array([-0.7, 0.0, 0.1, -0.5])
    for layer, value in zip(
        (network.layers["bn"], *(network.layers["block"].branch.layers[k] for k in ("bn1", "bn2"))),
        (first, inner, last),
        strict=True,
    ):
        layer.gamma.set(value)
    found = {group.name: mean_scale(norms) for group, norms in scales(network).items()}
    np.testing.assert_allclose(found["conv"], [0.4, 0.45, 0.2, 0.5])
    np.testing.assert_allclose(found["block.branch.conv1"], 2.0)


def test_the_penalty_shrinks_scales_and_ends_when_channels_leave():
    network = conv_net(np.random.default_rng(0))
    data, watched = clusters(np.random.default_rng(2), network.input_shape), []
    settings = {"epochs": 6, "batch": 16, "seed": 1}
    method = Slimming(0.4, schedule=OneShot(0.5), strength=0.5)
    run = train(network, data, method, **settings, progress=lambda s: watched.append(method.penalty(s)))
    assert all(value > 0 for value in watched[:9]) and not any(watched[9:])
    free = train(network, data, Slimming(0.4, schedule=OneShot(0.5), strength=0.0), **settings)
    sums = [sum(np.abs(g).sum() for g in gammas(r.network).values()) for r in (run, free)]
    assert sums[0] < 0.8 * sums[1]


def test_units_without_a_normalisation_stay_and_a_network_without_any_is_refused():
    network = zoo.make("vgg-small", (1, 8, 8), 10)
    assert {group.name for group in scales(network)} == {f"conv{k}_{j}" for k in (1, 2, 3) for j in (1, 2)}
    small = conv_net(np.random.default_rng(0))
    small.layers["block"].branch.layers.pop("bn1")
    state = state_for(small)
    Slimming(0.9, schedule=NOW).setup(state)
    stream, inner = groups_of(small)
    assert present(small, inner).all() and present(small, stream).sum() == 1
    with pytest.raises(MethodError, match="normalised hidden units"):
        Slimming().check(mlp((4, 3, 2), np.random.default_rng(0)))


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf"), True, "1"])
def test_strengths_that_make_no_sense_are_refused(strength):
    with pytest.raises(UsageError):
        Slimming(strength=strength)
