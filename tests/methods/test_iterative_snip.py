"""Iterative SNIP: SNIP when there is one round, nested masks, and a score of the network that is left."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UsageError
from minisparse.methods.initial.iterative_snip import IterativeSNIP
from minisparse.methods.initial.rounds import round_sample
from minisparse.methods.initial.snip import SNIP
from minisparse.sparsity import Exponential, kept_count
from minisparse.sparsity.schedule import geometric_levels
from tests.methods.linear_unit import quadratic_state
from tests.methods.problems import conv_net, mlp, state_of
from tests.strategies import SETTINGS, seeds

A = np.array([[1.0, 0, 0], [0, 1, 0.9], [0, 0.9, 1]])
B = np.array([3.0, 2.0, 1.4])


def problem(kind, seed=0):
    rng = np.random.default_rng(seed)
    network = conv_net(rng) if kind == "conv" else mlp((7, 6, 5, 3), rng)
    return state_of(network, rng.standard_normal((9, *network.input_shape)), rng.integers(0, 3, 9))


def masks_of_rounds(state, method):
    """The masks after each round."""
    seen = []
    for level in method.schedule.levels(0, state.horizon, method.sparsity):
        method.prune_to(state, level)
        seen.append(state.network.masks())
    return seen


def test_three_weights_of_a_quadratic():
    """w = 1: |w g| = (2, 0.1, 0.5), so weight 1 leaves; at w = (1, 0, 1) g = (-2, -1.1, -0.4)."""
    state = quadratic_state(A, B, np.ones(3))
    method = IterativeSNIP(1 / 3, Exponential(2))
    np.testing.assert_allclose(method.score(state)["fc1"], np.array([[2, 0.1, 0.5]]) / 2.6, rtol=1e-12)
    method.prune_to(state, 1 / 3)
    assert state.network.masks()["fc1"].tolist() == [[True, False, True]]
    # the gradient at the absent weight is large, but the weight is not there
    np.testing.assert_allclose(method.score(state)["fc1"], np.array([[2, 0, 0.4]]) / 2.4, rtol=1e-12)
    method.prune_to(state, 1 / 3)
    assert state.network.masks()["fc1"].tolist() == [[True, False, True]]


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("sparsity", [0.0, 0.4, 0.9])
def test_one_round_is_snip(kind, sparsity):
    states = problem(kind), problem(kind)
    for state, method in zip(states, (SNIP(sparsity), IterativeSNIP(sparsity, Exponential(1))), strict=True):
        method.setup(state)
    first, second = (state.network.masks() for state in states)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@SETTINGS
@given(seeds, st.integers(1, 9), st.sampled_from([0.3, 0.8, 0.95]))
def test_masks_are_nested_and_every_rounds_count_is_exact(seed, rounds, sparsity):
    state = problem("mlp", seed)
    method = IterativeSNIP(sparsity, Exponential(rounds))
    seen = masks_of_rounds(state, method)
    size = sum(layer.weight.size for layer in state.network.prunable().values())
    counts = [sum(int(m.sum()) for m in masks.values()) for masks in seen]
    assert counts == [kept_count(size, level) for level in geometric_levels(sparsity, rounds)]
    for before, after in zip(seen, seen[1:], strict=False):
        assert not any((after[name] & ~before[name]).any() for name in before)


def test_rounds_see_what_one_shot_does_not():
    """g = (2, 0.1, 1.9) at w = 1, and weights 0 and 1 are coupled: without weight 1, g_0 is 2 - 0.9."""
    a = np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1.0]])
    b = a.sum(axis=1) - np.array([2, 0.1, 1.9])
    once, rounds = (quadratic_state(a, b, np.ones(3)) for _ in range(2))
    SNIP(2 / 3).setup(once)
    assert once.network.masks()["fc1"].tolist() == [[True, False, False]]
    IterativeSNIP(2 / 3, Exponential(2)).setup(rounds)
    assert rounds.network.masks()["fc1"].tolist() == [[False, False, True]]


def test_every_round_has_its_own_sample_and_the_first_is_the_probe():
    rng = np.random.default_rng(0)
    state = problem("mlp")
    state.train_x, state.train_t = rng.standard_normal((50, 7)), rng.integers(0, 3, 50)
    assert round_sample(state)[0] is state.probe_x and round_sample(state)[1] is state.probe_t
    drawn = []
    for topology in (1, 2):
        state.topology = topology
        x, target = round_sample(state)
        again, _ = round_sample(state)
        np.testing.assert_array_equal(x, again)
        assert x.shape == state.probe_x.shape and target.shape == state.probe_t.shape
        rows = [int(np.flatnonzero((state.train_x == row).all(axis=1))[0]) for row in x]
        assert len(set(rows)) == len(rows)
        np.testing.assert_array_equal(state.train_t[rows], target)
        drawn.append(set(rows))
    assert drawn[0] != drawn[1]


def test_default_is_sixty_exponential_rounds_and_scoring_changes_nothing():
    assert IterativeSNIP().schedule == Exponential(60)
    levels = IterativeSNIP(0.99).schedule.levels(0, 10, 0.99)
    assert len(levels) == 60 and abs(1 - levels[0] - 0.926119) < 1e-6
    state = problem("conv")
    before = state.network.state()
    IterativeSNIP().score(state)
    for key, value in state.network.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_with_fresh_off_all_rounds_take_the_probe_sample():
    rng = np.random.default_rng(1)
    states = [problem("mlp"), problem("mlp")]
    for state in states:
        state.train_x, state.train_t = rng.standard_normal((50, 7)), rng.integers(0, 3, 50)
    for state, method in zip(states, (IterativeSNIP(fresh=False), IterativeSNIP()), strict=True):
        state.topology = 3
        probed = SNIP().score(state)
        same = [np.array_equal(method.score(state)[name], score) for name, score in probed.items()]
        assert all(same) is (not method.fresh)
    with pytest.raises(UsageError):
        IterativeSNIP(fresh="yes")
