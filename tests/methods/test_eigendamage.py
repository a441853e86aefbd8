"""EigenDamage: theta and its sums, bases and what they lose, the ranking of units, and whole networks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.curvature import ggn_matrix
from minisparse.errors import UsageError
from minisparse.methods.dense import Dense
from minisparse.methods.reconstruct.cobd import cobd_importance
from minisparse.methods.reconstruct.eigendamage import (
    Core,
    EigenDamage,
    channel_moment,
    cheapest,
    rotate,
)
from minisparse.methods.reconstruct.kron_factors import kron_factors
from minisparse.sparsity.schedule import OneShot, Rounds
from minisparse.training.run import train
from minisparse.weights.factored import FactoredWeight
from tests.methods.kronecker import conv_state, factors, perceptron_state
from tests.methods.problems import chain, clusters, conv_net, mlp, state_of
from tests.methods.quadratics import cost
from tests.strategies import SETTINGS, seeds

sizes = st.integers(1, 4)


def core_of(w, a, s) -> Core:
    """A linear layer's core."""
    out, columns = w.shape
    return rotate(np.eye(out), w.reshape(out, 1, columns), np.eye(columns), a, s)


@SETTINGS
@given(sizes, sizes, seeds)
def test_theta_sums_to_the_quadratic_form_and_rows_and_columns_to_what_they_cost(out, columns, seed):
    w, a, s, _ = factors(out, columns, seed)
    core, h = core_of(w, a, s), np.kron(s, a)
    assert core.theta.sum() == pytest.approx(cost(h, w.ravel()), rel=1e-10)
    for axis, importance in enumerate(core.importance):
        for i, found in enumerate(importance):
            less = core.core[:, 0].copy()
            less[(i, slice(None)) if axis == 0 else (slice(None), i)] = 0
            change = core.left @ less @ core.right.T - w
            assert cost(h, change.ravel()) == pytest.approx(found, rel=1e-8, abs=1e-12)


@SETTINGS
@given(sizes, sizes, seeds)
def test_keeping_everything_is_the_layer(out, columns, seed):
    w, a, s, _ = factors(out, columns, seed)
    core = core_of(w, a, s)
    np.testing.assert_allclose(core.left @ core.core[:, 0] @ core.right.T, w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(core.left.T @ core.left, np.eye(out), atol=1e-12)
    diagonal = core.left.T @ s @ core.left
    np.testing.assert_allclose(diagonal, np.diag(np.diag(diagonal)), atol=1e-10)


def test_diagonal_factors_are_cobd_up_to_relabelling():
    w, a, s, _ = factors(5, 4, 0)
    a, s = np.diag(np.diag(a)), np.diag(np.diag(s))
    rows, columns = core_of(w, a, s).importance
    fisher = np.outer(np.diag(s), np.diag(a))
    np.testing.assert_allclose(np.sort(rows), np.sort(cobd_importance(w, fisher)), rtol=1e-12)
    np.testing.assert_allclose(np.sort(columns), np.sort(cobd_importance(w.T, fisher.T)), rtol=1e-12)


def test_turning_a_pruned_core_again_keeps_it_and_its_cost():
    w, a, s, _ = factors(5, 4, 1)
    first = core_of(w, a, s)
    left, middle, right = first.left[:, 2:], first.core[2:, :, 1:], first.right[:, 1:]
    rng = np.random.default_rng(2)
    a2, s2 = a + 0.3 * np.diag(rng.random(4)), s + 0.3 * np.diag(rng.random(5))
    second = rotate(left, middle, right, a2, s2)
    effective = left @ middle[:, 0] @ right.T
    np.testing.assert_allclose(second.left @ second.core[:, 0] @ second.right.T, effective, atol=1e-12)
    assert second.theta.sum() == pytest.approx(cost(np.kron(s2, a2), effective.ravel()), rel=1e-10)


def test_softmax_regression_with_one_sample_has_an_exact_kronecker_fisher():
    rng = np.random.default_rng(3)
    network = chain(rng.standard_normal((3, 4)))
    state = state_of(network, rng.standard_normal((1, 4)), np.array([1]))
    a, s = kron_factors(state, 1, "exact")["fc1"]
    whole = ggn_matrix(network, state.loss, state.train_x, state.train_t)
    np.testing.assert_allclose(np.kron(s, a), whole, rtol=0, atol=1e-12)


def test_channel_moment_treats_taps_as_samples():
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((50, 6, 3))
    flat = rows.reshape(50, 18)
    found = channel_moment(flat.T @ flat / 50, 6)
    np.testing.assert_allclose(found, np.einsum("ntc,ntd->cd", rows, rows) / 300, rtol=1e-12)
    np.testing.assert_array_equal(channel_moment(np.diag([1.0, 2.0]), 1), np.diag([1.0, 2.0]))


def core_with(theta) -> Core:
    theta = np.array(theta, dtype=float)[:, None, :]
    out, _, columns = theta.shape
    return Core(np.eye(out), np.zeros_like(theta), np.eye(columns), theta)


def test_units_of_all_layers_leave_in_ascending_order_until_the_target_is_nearest():
    """Rows (.3, 5, 9), columns (10, 4.3): row 0 goes, then column 1 of the other layer."""
    cores = {"a": core_with([[0.2, 0.1], [4, 1], [5.8, 3.2]]), "b": core_with([[9, 0.5], [9, 0.5]])}
    kept = cheapest(cores, 10, 0.0)
    assert all(rows.all() and columns.all() for rows, columns in kept.values())
    kept = cheapest(cores, 8, 0.0)
    np.testing.assert_array_equal(kept["a"][0], [False, True, True])
    assert kept["b"][0].all() and kept["b"][1].all()
    kept = cheapest(cores, 6, 0.0)
    np.testing.assert_array_equal(kept["b"][1], [True, False])
    kept = cheapest(cores, 0, 0.0)
    assert [(r.sum(), c.sum()) for r, c in kept.values()] == [(1, 1), (1, 1)]
    kept = cheapest(cores, 0, 0.6)
    assert [(r.sum(), c.sum()) for r, c in kept.values()] == [(2, 2), (2, 2)]


def test_equal_units_leave_from_the_end():
    kept = cheapest({"a": core_with(np.ones((3, 3)))}, 5, 0.0)
    np.testing.assert_array_equal(kept["a"][1], [True, True, False])
    assert kept["a"][0].all()


@pytest.mark.parametrize("make", [perceptron_state, conv_state])
def test_hidden_layers_become_bottlenecks_of_the_asked_size(make):
    state = make(5)
    state.step = 2
    sizes = {n: layer.weight.size for n, layer in state.network.prunable().items()}
    EigenDamage(0.5).impose(state)
    layers = state.network.prunable()
    *hidden, output = layers.values()
    assert output.weight.kept == output.weight.size
    assert any(isinstance(layer.weight, FactoredWeight) for layer in hidden)
    total, kept = sum(sizes.values()), sum(layer.weight.kept for layer in layers.values())
    assert abs(kept - total / 2) <= max(max(layer.weight.shape) for layer in hidden)
    assert np.isfinite(state.network.forward(state.train_x)).all()


def test_dropping_nothing_changes_nothing():
    state = perceptron_state(6)
    before = state.network.state()
    state.step = 2
    EigenDamage(0.0).impose(state)
    assert state.network.state().keys() == before.keys()
    assert all((state.network.state()[k] == before[k]).all() for k in before)


def test_the_bottleneck_is_the_projection_onto_the_kept_directions():
    state = perceptron_state(7)
    old = {n: layer.weight.dense().copy() for n, layer in state.network.prunable().items()}
    state.step = 2
    EigenDamage(0.6).impose(state)
    for name, layer in list(state.network.prunable().items())[:-1]:
        left, right = state.memory["left"][name], state.memory["right"][name]
        projected = left @ left.T @ old[name] @ right @ right.T
        np.testing.assert_allclose(layer.weight.dense(), projected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("network", [conv_net(np.random.default_rng(8), np.float32)])
def test_training_goes_on_between_rounds_and_sizes_shrink(network):
    data = clusters(np.random.default_rng(9), network.input_shape)
    sizes = []
    run = train(
        network, data, EigenDamage(0.6, Rounds(3), samples=24), epochs=4, batch=16,
        progress=lambda state: sizes.append(sum(x.weight.kept for x in state.network.prunable().values())),
    )  # fmt: skip
    assert run.status == "done" and sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    core = run.network.prunable()["conv"].weight
    assert isinstance(core, FactoredWeight) and np.isfinite(core.dense()).all()
    assert abs(run.sparsity - 0.6) < 0.05


def test_it_keeps_more_than_chance_of_a_trained_network():
    """A control with the same cores: the dropped directions are the cheapest, not the dearest."""
    data = clusters(np.random.default_rng(10), (8,), train=200, test=100)
    network = train(
        mlp((8, 16, 3), np.random.default_rng(11), dtype=np.float32), data, Dense(), epochs=10
    ).network
    losses = []
    for reverse in (False, True):
        state = state_of(network.copy(), data.train_x, data.train_y, horizon=1)
        method = EigenDamage(0.5, OneShot(0.0))
        method.impose(state)
        if reverse:
            layer = state.network.prunable()["fc1"]
            left, right = state.memory["left"]["fc1"], state.memory["right"]["fc1"]
            old = network.prunable()["fc1"].weight.dense()
            rest = np.linalg.qr(np.eye(16) - left @ left.T)[0][:, : left.shape[1]]
            layer.weight = FactoredWeight(rest, rest.T @ old @ right, right, layer.weight.geometry)
        losses.append(state.loss.value(state.network.forward(data.train_x), data.train_y))
    assert losses[0] < losses[1]


def test_unusable_settings_are_refused():
    for bad in ({"samples": 0}, {"expectation": "no"}, {"floor": -1}, {"sparsity": 1.0}):
        with pytest.raises(UsageError):
            EigenDamage(**bad)
