"""FORCE: the gradient of the pruned network times the weights as they were, so that weights may return."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.methods.initial.force import FORCE, remembered_weights
from minisparse.methods.initial.iterative_snip import IterativeSNIP
from minisparse.methods.initial.snip import SNIP
from minisparse.nn.loss import LOSSES
from minisparse.sparsity import Exponential, Rounds, kept_count
from minisparse.sparsity.schedule import geometric_levels
from minisparse.training.run import train
from tests.methods.linear_unit import quadratic_state
from tests.methods.problems import clusters, conv_net, mlp, state_of
from tests.strategies import SETTINGS, seeds

H = 1e-30
A = np.array([[1.0, 0, 0], [0, 1, 0.9], [0, 0.9, 1]])
B = np.array([3.0, 2.0, 1.4])


def problem(kind, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    network = conv_net(rng, dtype) if kind == "conv" else mlp((7, 6, 5, 3), rng, dtype=dtype)
    return state_of(network, rng.standard_normal((9, *network.input_shape)), rng.integers(0, 3, 9))


def test_a_weight_returns_that_iterative_snip_cannot_have_back():
    """w = 1: |w g| = (2, 0.1, 0.5), so weight 1 leaves; at w = (1, 0, 1) g = (-2, -1.1, -0.4)."""
    state, other = (quadratic_state(A, B, np.ones(3)) for _ in range(2))
    force, snip = FORCE(1 / 3, Exponential(2)), IterativeSNIP(1 / 3, Exponential(2))
    for method, its in ((force, state), (snip, other)):
        method.prune_to(its, 1 / 3)
        assert its.network.masks()["fc1"].tolist() == [[True, False, True]]
    np.testing.assert_allclose(force.score(state)["fc1"], np.array([[2, 1.1, 0.4]]) / 3.5, rtol=1e-12)
    force.prune_to(state, 1 / 3)
    snip.prune_to(other, 1 / 3)
    assert state.network.masks()["fc1"].tolist() == [[True, True, False]]
    assert other.network.masks()["fc1"].tolist() == [[True, False, True]]
    np.testing.assert_array_equal(state.network.prunable()["fc1"].weight.dense(), [[1, 1, 0]])


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.9])
def test_one_round_is_snip(kind, sparsity):
    states = problem(kind), problem(kind)
    for state, method in zip(states, (SNIP(sparsity), FORCE(sparsity, Exponential(1))), strict=True):
        method.setup(state)
    first, second = (state.network for state in states)
    for name, mask in first.masks().items():
        np.testing.assert_array_equal(mask, second.masks()[name])
    for key, value in first.state().items():
        np.testing.assert_array_equal(value, second.state()[key])


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_scores_are_derivatives_by_the_gates_of_the_pruned_network(kind):
    """Gate c_j in front of w_j, c = m: dL/dc_j = w_j g_j(m w), by complex step, absent gates included."""
    state = problem(kind, 3)
    drawn = {name: layer.weight.dense().copy() for name, layer in state.network.prunable().items()}
    method = FORCE(0.6)
    method.prune_to(state, 0.6)
    masks, scores = state.network.masks(), method.score(state)
    target = state.probe_t
    work, gates, found = state.network.astype(complex), [], []
    rng = np.random.default_rng(1)
    state.topology = 0  # the probe itself, as below
    scores = method.score(state)
    for name, layer in work.prunable().items():
        for index in rng.choice(drawn[name].size, 12, replace=False):
            entry = np.unravel_index(index, drawn[name].shape)
            gate = masks[name].astype(complex)
            gate[entry] += 1j * H
            layer.weight.rewire(np.ones(gate.shape, dtype=bool))
            layer.weight.assign(gate * drawn[name])
            value = LOSSES["cross-entropy"]().value(work.forward(state.probe_x.astype(complex)), target)
            gates.append(abs(value.imag / H))
            found.append((scores[name][entry], masks[name][entry]))
        layer.weight.assign(masks[name] * drawn[name])
    values = np.array([score for score, _ in found])
    absent = ~np.array([present for _, present in found])
    assert np.count_nonzero(np.array(gates)[absent]) > 3 and np.count_nonzero(np.array(gates)[~absent]) > 3
    np.testing.assert_allclose(values * np.sum(gates), np.array(gates) * values.sum(), rtol=1e-8, atol=1e-18)


@SETTINGS
@given(seeds, st.integers(1, 9), st.sampled_from([0.3, 0.8, 0.95]))
def test_counts_are_exact_and_values_those_that_were_drawn(seed, rounds, sparsity):
    state = problem("mlp", seed)
    drawn = {name: layer.weight.dense().copy() for name, layer in state.network.prunable().items()}
    size = sum(w.size for w in drawn.values())
    method = FORCE(sparsity, Exponential(rounds))
    for level in geometric_levels(sparsity, rounds):
        method.prune_to(state, level)
        masks = state.network.masks()
        assert sum(int(m.sum()) for m in masks.values()) == kept_count(size, level)
        for name, layer in state.network.prunable().items():
            np.testing.assert_array_equal(layer.weight.dense(), drawn[name] * masks[name])
            np.testing.assert_array_equal(remembered_weights(state)[name], drawn[name])


def test_weights_do_return_in_networks():
    returned = 0
    for seed in range(5):
        state = problem("mlp", seed)
        method, seen = FORCE(0.9, Exponential(10)), []
        for level in geometric_levels(0.9, 10):
            method.prune_to(state, level)
            seen.append(np.concatenate([m.ravel() for m in state.network.masks().values()]))
        returned += sum(int((after & ~before).sum()) for before, after in zip(seen, seen[1:], strict=False))
    assert returned > 0


def test_a_weight_that_was_moved_leaves_and_returns_as_it_was_then():
    """Weight 2 is moved to 0.9 between the rounds: g = (-2, -1.19, -0.5) there, and it leaves as 0.9."""
    state, method = quadratic_state(A, B, np.ones(3)), FORCE(1 / 3)
    method.prune_to(state, 1 / 3)
    weight = state.network.prunable()["fc1"].weight
    weight.assign(np.array([[1, 0, 0.9]]))
    np.testing.assert_allclose(method.score(state)["fc1"], np.array([[2, 1.19, 0.45]]) / 3.64, rtol=1e-12)
    method.prune_to(state, 1 / 3)
    np.testing.assert_array_equal(weight.dense(), [[1, 1, 0]])
    np.testing.assert_array_equal(remembered_weights(state)["fc1"], [[1, 1, 0.9]])
    method.prune_to(state, 0.0)
    np.testing.assert_array_equal(weight.dense(), [[1, 1, 0.9]])


def test_it_may_prune_while_training():
    data = clusters(np.random.default_rng(0), (7,))
    network = mlp((7, 8, 3), np.random.default_rng(1), dtype=np.float32)
    run = train(network, data, FORCE(0.8, Rounds(6)), epochs=4, batch=8)
    assert run.status == "done" and run.sparsity == pytest.approx(0.8)


def test_default_is_sixty_exponential_rounds_and_scoring_changes_nothing():
    assert FORCE().schedule == Exponential(60)
    state = problem("conv")
    before = state.network.state()
    FORCE().score(state)
    assert not state.memory
    for key, value in state.network.state().items():
        np.testing.assert_array_equal(value, before[key])
