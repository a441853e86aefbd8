"""Karnin: closed forms on quadratics, where the path and the loss are known."""

import numpy as np
import pytest

from minisparse.methods.saliency.karnin import INITIAL, SHADOW, Karnin, path_sensitivity
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD, Adam
from minisparse.sparsity import OneShot, kept_count
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, descend, identity_problem, mlp, state_of

LATER = OneShot(1.0)


def follow(start, target, rate, steps, optimizer=None):
    """State after full-batch descent of |w - w*|^2 / 2, one coordinate per weight, and all changes of w."""
    x, y = identity_problem(target)
    state = state_of(chain([start]), x, y, loss="mse", horizon=10**6, optimizer=optimizer or SGD(0.0))
    state.rate = Constant(rate)
    method, changes = Karnin(0.5, LATER), []
    method.setup(state)
    for _ in range(steps):
        before = state.network.prunable()["fc1"].weight.dense().copy()
        descend(state)
        method.update(state)
        changes.append(state.network.prunable()["fc1"].weight.dense() - before)
    return method.score(state)["fc1"][0], np.array(changes)[:, 0], state


def test_a_quadratic_in_closed_form():
    # sum dw^2 is a geometric series: S = h (w* - w_i) w* / (2 (1 - eta h / 2)) with h = 1
    start, target, rate = np.array([1.0, -1, 0.5, 2]), np.array([3.0, 2, -1, 1]), 0.2
    found, _, _ = follow(start, target, rate, 400)
    np.testing.assert_allclose(found, 0.5 * (target - start) * target / (1 - rate / 2), rtol=1e-12)
    # curvature h in units of the rate: h = 2, w* = 3, w_i = 1, eta = 0.1 is h times the score at eta h
    np.testing.assert_allclose(2 * found[0], 6.6667, atol=1e-4)
    # a weight that shrank on its way is predicted to be better at 0
    assert found[3] < 0


@pytest.mark.parametrize("rate", [0.1, 0.01, 0.001])
def test_from_zero_it_is_the_exact_loss_difference_as_the_rate_vanishes(rate):
    target = np.array([0.3, -2.0, 1.1])
    found, _, _ = follow(np.zeros(3), target, rate, int(40 / rate))
    exact = 0.5 * target**2  # L(w_q = 0) - L(w*), which is also OBD's h w^2 / 2
    np.testing.assert_allclose(found, exact / (1 - rate / 2), rtol=1e-12)
    assert (np.abs(found / exact - 1) < rate).all()


def test_both_forms_agree_for_plain_descent_only():
    start, target, rate = np.array([1.0, 0.2]), np.array([2.0, -1.0]), 0.05
    for optimizer, agree in ((SGD(0.0), True), (SGD(0.9), False), (Adam(), False)):
        found, dw, state = follow(start, target, rate, 30, optimizer)
        final = state.network.prunable()["fc1"].weight.dense()[0]
        second = (dw**2).sum(axis=0) * final / (rate * (final - start))
        assert np.allclose(found, second, rtol=1e-12) == agree


def test_momentum_and_adam_recover_the_loss_lost_along_the_path():
    # on a line integral the trapezoid rule is exact for a quadratic; the rule at the left end tends to it
    start, target = np.array([0.0]), np.array([2.0])
    for optimizer in (SGD(0.9), Adam()):
        _, dw, state = follow(start, target, 1e-3, 3000, optimizer)
        final = state.network.prunable()["fc1"].weight.dense()[0]
        lost = 0.5 * target**2 - 0.5 * (final - target) ** 2
        error = 0.5 * (dw**2).sum(axis=0)  # left end against trapezoid, exactly
        np.testing.assert_allclose(state.memory[SHADOW]["fc1"][0] - error, lost, rtol=1e-10)


def test_separate_weights_do_not_interact_and_no_gradient_is_no_score():
    a, _, _ = follow(np.array([1.0, 0.0]), np.array([3.0, -1.0]), 0.1, 50)
    b, _, _ = follow(np.array([1.0, 0.7]), np.array([3.0, 0.7]), 0.1, 50)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-12)
    assert b[1] == 0


def test_a_weight_that_came_back_has_no_slope():
    w = np.array([1.0, 2.0])
    assert path_sensitivity(np.array([0.5, 0.3]), w, np.array([1.0, 3.0])).tolist() == [0.0, 0.3 * 3]


def test_memory_follows_a_whole_run_and_absent_weights_add_nothing():
    network = mlp((6, 8, 3), np.random.default_rng(0), dtype=np.float32)
    data, seen = clusters(np.random.default_rng(1), (6,)), []

    def watch(state):
        kept = {n: m.copy() for n, m in state.memory[SHADOW].items()}
        seen.append((kept, state.network.masks(), state.memory[INITIAL]))

    run = train(network, data, Karnin(0.6), epochs=4, batch=16, progress=watch)
    assert sum(int(m.sum()) for m in run.network.masks().values()) == kept_count(72, 0.6)
    for name, layer in network.prunable().items():
        np.testing.assert_array_equal(seen[-1][2][name], layer.weight.dense())
    half = seen[6]
    assert sum(int(m.sum()) for m in half[1].values()) == kept_count(72, 0.6)
    for name, mask in half[1].items():
        np.testing.assert_array_equal(seen[-1][0][name][~mask], half[0][name][~mask])
        assert (seen[-1][0][name][mask] != half[0][name][mask]).any()


def test_the_smallest_leave():
    start, target = np.zeros(4), np.array([0.1, -3.0, 1.0, -0.5])
    _, _, state = follow(start, target, 0.1, 100)
    Karnin(0.5, LATER).prune_to(state, 0.5)
    assert state.network.masks()["fc1"].tolist() == [[False, True, True, False]]
