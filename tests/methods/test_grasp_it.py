"""GRASP-It: squared gradients of what is left, in rounds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minisparse.curvature import gradient
from minisparse.methods.initial.grasp_it import GRASPIt
from minisparse.sparsity import Exponential, OneShot, kept_count
from minisparse.sparsity.schedule import geometric_levels
from tests.methods.linear_unit import quadratic_state
from tests.methods.problems import mlp, state_of
from tests.strategies import SETTINGS, seeds


def problem(seed=0):
    rng = np.random.default_rng(seed)
    network = mlp((7, 6, 5, 3), rng)
    return state_of(network, rng.standard_normal((9, 7)), rng.integers(0, 3, 9))


def test_three_weights_of_a_quadratic():
    """g = (1, -0.5, 0.8) at w = (1, 4, -2): the weights' sizes play no part, the smallest |g| leaves."""
    w, g = np.array([1.0, 4, -2]), np.array([1, -0.5, 0.8])
    a = np.diag([1.0, 2, 3])
    state = quadratic_state(a, a @ w - g, w)
    np.testing.assert_allclose(GRASPIt().score(state)["fc1"], [[1, 0.25, 0.64]], rtol=1e-12)
    GRASPIt(1 / 3, OneShot(0.0)).setup(state)
    assert state.network.masks()["fc1"].tolist() == [[True, False, True]]


def test_present_scores_sum_to_the_gradient_norm_of_the_pruned_network():
    state = problem()
    GRASPIt().prune_to(state, 0.5)
    state.topology = 0  # score on the probe
    scores, masks = GRASPIt().score(state), state.network.masks()
    g = gradient(state.network, state.loss, state.probe_x, state.probe_t)
    want = sum(float((g[f"{name}.weight"] ** 2).sum()) for name in masks)
    np.testing.assert_allclose(sum((scores[n] * masks[n]).sum() for n in masks), want, rtol=1e-12)


def test_the_gradient_is_taken_anew_in_each_round():
    """g = (2, 0.1, 1.9); weights 0 and 1 are coupled: without weight 1, g_0 is 2 - 0.9."""
    a = np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1.0]])
    b = a.sum(axis=1) - np.array([2, 0.1, 1.9])
    once, rounds = (quadratic_state(a, b, np.ones(3)) for _ in range(2))
    GRASPIt(2 / 3, Exponential(1)).setup(once)
    GRASPIt(2 / 3, Exponential(2)).setup(rounds)
    assert once.network.masks()["fc1"].tolist() == [[True, False, False]]
    assert rounds.network.masks()["fc1"].tolist() == [[False, False, True]]


@SETTINGS
@given(seeds, st.integers(1, 9), st.sampled_from([0.3, 0.8, 0.95]))
def test_masks_are_nested_and_every_rounds_count_is_exact(seed, rounds, sparsity):
    state, method = problem(seed), GRASPIt(sparsity, Exponential(rounds))
    before = state.network.masks()
    for level in geometric_levels(sparsity, rounds):
        method.prune_to(state, level)
        masks = state.network.masks()
        assert sum(int(m.sum()) for m in masks.values()) == kept_count(87, level)
        assert not any((masks[name] & ~before[name]).any() for name in masks)
        before = masks
