"""First-order scores: exact for a linear loss, off by the quadratic term elsewhere, conserved by ReLU."""

import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.methods.saliency.gradient import Gradient, loss_change
from minisparse.nn.loss import LOSSES
from minisparse.sparsity import Block, OneShot
from tests.methods.problems import chain, conv_net, identity_problem, mlp, state_of

NOW = OneShot(0.0)


def loss_at(network, x, target, loss):
    return float(LOSSES[loss]().value(network.forward(x), target))


def signed_scores(network, x, target, loss="cross-entropy"):
    return Gradient(signed=True).score(state_of(network, x, target, loss))


def test_a_quadratic_loss_exceeds_the_prediction_by_half_the_curvature():
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((7, 4)), rng.standard_normal((7, 3))
    network = chain(rng.standard_normal((3, 4)))
    predicted = signed_scores(network, x, target, "mse")["fc1"]
    start, w = loss_at(network, x, target, "mse"), network.prunable()["fc1"].weight
    curvature = (x**2).mean(axis=0)  # d2L/dw_oi^2 = mean_n x_ni^2
    full = w.dense().copy()
    for o, i in np.ndindex(full.shape):
        value = full.copy()
        value[o, i] = 0
        w.assign(value)
        change = loss_at(network, x, target, "mse") - start
        np.testing.assert_allclose(change, predicted[o, i] + curvature[i] * full[o, i] ** 2 / 2, atol=1e-12)


def test_where_the_loss_is_linear_the_prediction_is_exact():
    rng = np.random.default_rng(1)
    x, c = rng.standard_normal((6, 4)), rng.standard_normal((6, 3))
    w = rng.standard_normal((3, 4))
    grad = c.T @ x  # of L = sum_n c_n . W x_n
    for o, i in np.ndindex(w.shape):
        removed = w.copy()
        removed[o, i] = 0
        change = (c * (x @ removed.T)).sum() - (c * (x @ w.T)).sum()
        np.testing.assert_allclose(change, loss_change(w, grad)[o, i], rtol=1e-9)


def test_a_small_step_towards_zero_changes_the_loss_as_predicted():
    rng = np.random.default_rng(2)
    network = conv_net(rng)
    x, target = rng.standard_normal((5, 2, 6, 6)), rng.integers(0, 3, 5)
    predicted = signed_scores(network, x, target)
    for name, layer in network.prunable().items():
        full, h = layer.weight.dense().copy(), 1e-6
        for entry in [(0, 0), (1, 5), (2, 17)]:
            found = []
            for sign in (1, -1):
                value = full.copy()
                value[entry] *= 1 - sign * h
                layer.weight.assign(value)
                found.append(loss_at(network, x, target, "cross-entropy"))
            layer.weight.assign(full)
            np.testing.assert_allclose((found[0] - found[1]) / (2 * h), predicted[name][entry], atol=1e-8)


def test_signed_and_absolute_part_ways():
    x, target = identity_problem((1, 4, -1.5))
    network = chain([[2.0, 1.0, -1.0]])  # g = w - w* = (1, -3, 0.5), -w g = (-2, 3, 0.5)
    state = state_of(network, x, target, "mse")
    np.testing.assert_allclose(Gradient(signed=True).score(state)["fc1"], [[-2, 3, 0.5]])
    np.testing.assert_allclose(Gradient().score(state)["fc1"], [[2, 3, 0.5]])
    for signed, kept in ((True, [False, True, True]), (False, [True, True, False])):
        copy = network.copy()
        Gradient(1 / 3, NOW, signed=signed).setup(state_of(copy, x, target, "mse"))
        assert copy.masks()["fc1"].tolist() == [kept]


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_layers_and_hidden_units_conserve_the_signed_score(loss):
    rng = np.random.default_rng(3)
    network = mlp((5, 6, 4, 3), rng, biases=False)
    x = rng.standard_normal((8, 5))
    target = rng.integers(0, 3, 8) if loss == "cross-entropy" else rng.standard_normal((8, 3))
    scores = list(signed_scores(network, x, target, loss).values())
    sums = [s.sum() for s in scores]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-9)
    for below, above in zip(scores, scores[1:], strict=False):
        np.testing.assert_allclose(below.sum(axis=1), above.sum(axis=0), atol=1e-12)
    absolute = [np.abs(s).sum() for s in scores]
    assert np.ptp(absolute) > 1e-3


def test_scores_ignore_the_gauge_of_a_hidden_unit():
    rng = np.random.default_rng(4)
    network = mlp((5, 4, 3), rng, biases=False)
    x, target = rng.standard_normal((8, 5)), rng.integers(0, 3, 8)
    before = signed_scores(network, x, target)
    first, second = (layer.weight for layer in network.prunable().values())
    c = np.array([0.1, 3.0, 1.0, 20.0])
    first.assign(first.dense() * c[:, None])
    second.assign(second.dense() / c)
    after = signed_scores(network, x, target)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-9, atol=1e-14)


def test_a_block_is_worth_the_mean_of_its_scores():
    x, target = identity_problem((0, 0, 0, 0))
    network = chain([[1.0, 1.0, 2.0, 0.1]])  # g = w: scores 1, 1, 4, 0.01
    Gradient(0.5, NOW, pattern=Block(1, 2)).setup(state_of(network, x, target, "mse"))
    assert network.masks()["fc1"].tolist() == [[False, False, True, True]]


def test_the_flag_is_checked():
    with pytest.raises(UsageError):
        Gradient(signed=1)
