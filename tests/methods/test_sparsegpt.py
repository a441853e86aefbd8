"""SparseGPT: the factor, blocked against plain, explicit trailing inverses, N:M, and measured errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import MethodError, SparsityError, UsageError
from minisparse.methods.reconstruct.layerwise import output_error
from minisparse.methods.reconstruct.obc import compensated
from minisparse.methods.reconstruct.sparsegpt import (
    SparseGPT,
    by_blocks,
    by_columns,
    inverse_factor,
    lowest_of_block,
    lowest_of_groups,
    score,
)
from minisparse.methods.reconstruct.wanda import wanda_score, within_groups
from minisparse.methods.saliency.obd import obd_saliency
from minisparse.sparsity.allocation import ERK, Global
from minisparse.sparsity.pattern import NM, Block
from minisparse.sparsity.select import top_k
from tests.methods.problems import clusters, conv_net, mlp, state_of
from tests.methods.quadratics import spd
from tests.strategies import SETTINGS, seeds

Array = np.ndarray


def given_mask(mask: Array):
    """A choice that always takes the mask's columns."""
    return lambda scores, first: mask[:, first : first + scores.shape[1]]


def layer(out: int, columns: int, seed: int) -> tuple[Array, Array, Array]:
    """(weight, hessian, factor)."""
    rng = np.random.default_rng(seed)
    h = spd(columns, rng)
    return rng.standard_normal((out, columns)), h, inverse_factor(h, 0.0)


def by_trailing_inverses(w: Array, h: Array, mask: Array) -> Array:
    """Row by row and column by column with inv(H[j:, j:]) written out."""
    values = w.copy()
    for row, stay in zip(values, mask, strict=True):
        for j in np.flatnonzero(~stay):
            p = np.linalg.inv(h[j:, j:])
            row[j:] -= row[j] / p[0, 0] * p[0]
            row[j] = 0
    return values


def test_worked_example():
    """H = [[2, 1], [1, 2]]: U = [[.8165, -.4082], [0, .7071]]; deleting column 0 of (1, 2) gives (0, 2.5)."""
    h = np.array([[2.0, 1.0], [1.0, 2.0]])
    factor = inverse_factor(h, 0.0)
    np.testing.assert_allclose(factor, [[0.8164966, -0.4082483], [0, 0.7071068]], atol=1e-7)
    assert factor[1, 1] ** 2 == pytest.approx(1 / h[1, 1])
    _, values = by_columns(np.array([[1.0, 2.0]]), factor, given_mask(np.array([[False, True]])), 2)
    np.testing.assert_allclose(values, [[0, 2.5]], atol=1e-15)


@SETTINGS
@given(st.integers(1, 9), seeds)
def test_factor_holds_the_inverses_of_all_trailing_matrices(n, seed):
    h = spd(n, np.random.default_rng(seed))
    u = inverse_factor(h, 0.0)
    np.testing.assert_array_equal(u, np.triu(u))
    np.testing.assert_allclose(u.T @ u, np.linalg.inv(h), rtol=0, atol=1e-10)
    for j in range(n):
        p = np.linalg.inv(h[j:, j:])
        assert u[j, j] ** 2 == pytest.approx(p[0, 0])
        np.testing.assert_allclose(u[j, j:] / u[j, j], p[0] / p[0, 0], rtol=0, atol=1e-10)


@SETTINGS
@given(st.integers(1, 4), st.integers(1, 8), seeds)
def test_a_given_mask_is_explicit_trailing_inverses_whatever_the_block(out, columns, seed):
    w, h, factor = layer(out, columns, seed)
    mask = np.random.default_rng(seed + 1).random(w.shape) < 0.5
    expected = by_trailing_inverses(w, h, mask)
    for every, block in ((1, 1), (1, 3), (2, 4), (columns, columns), (5, 5)):
        found, values = by_blocks(w, factor, given_mask(mask), every, block)
        np.testing.assert_array_equal(found, mask)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-11)
        assert not values[~mask].any()
    np.testing.assert_allclose(by_columns(w, factor, given_mask(mask), 1)[1], expected, rtol=0, atol=1e-11)


@SETTINGS
@given(st.integers(1, 5), st.integers(1, 11), st.integers(1, 12), st.floats(0, 1), seeds)
def test_blocked_is_the_plain_loop(out, columns, block, share, seed):
    w, _, factor = layer(out, columns, seed)
    live = np.random.default_rng(seed + 1).random(w.shape) < 0.9
    kept = round(share * int(live.sum()))
    w[~live] = 0
    mask, values = by_columns(w, factor, lowest_of_block(live, kept), block)
    found, fast = by_blocks(w, factor, lowest_of_block(live, kept), block, block)
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_allclose(fast, values, rtol=0, atol=1e-12)
    assert mask.sum() == kept and not (mask & ~live).any() and not fast[~mask].any()


@SETTINGS
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), seeds)
def test_blocked_is_the_plain_loop_in_groups(out, groups, lazy, seed):
    w, _, factor = layer(out, 4 * groups, seed)
    choose = lowest_of_groups(np.ones(w.shape, bool), NM(2, 4))
    mask, values = by_columns(w, factor, choose, 4)
    found, fast = by_blocks(w, factor, choose, 4, 4 * lazy)
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_allclose(fast, values, rtol=0, atol=1e-12)
    assert (mask.reshape(out, groups, 4).sum(axis=2) == 2).all()


def test_blocks_lose_in_proportion_to_their_columns():
    w, _, factor = layer(6, 10, 0)
    mask, _ = by_blocks(w, factor, lowest_of_block(np.ones(w.shape, bool), 24), 4, 4)
    np.testing.assert_array_equal([(~mask[:, k : k + 4]).sum() for k in (0, 4, 8)], [14, 15, 7])


@SETTINGS
@given(st.integers(1, 4), st.integers(2, 8), seeds)
def test_error_is_half_the_sum_of_squared_errors(out, columns, seed):
    w, h, factor = layer(out, columns, seed)
    mask = np.random.default_rng(seed + 1).random(w.shape) < 0.6
    values, total = w.copy(), 0.0
    for j in range(columns):
        e = np.where(mask[:, j], 0, values[:, j] / factor[j, j])
        values[:, j:] -= np.outer(e, factor[j, j:])
        total += np.sum(e**2) / 2
    assert output_error(values - w, h) == pytest.approx(total, rel=1e-9, abs=1e-12)
    best = compensated(w, h, mask)
    found = by_columns(w, factor, given_mask(mask), 1)[1]
    assert output_error(best - w, h) <= output_error(found - w, h) + 1e-10


def test_it_may_lose_to_zeroing():
    """x_0 = (0, .5), x_1 = (1, 0), x_2 = (1, -.5), w = (1, 1, 0), 0 and 2 go: (0, 2, 0) at 1.25, zeroing .25.

    Compensation went to column 2, which is deleted later.
    """
    x = np.array([[0, 1, 1], [0.5, 0, -0.5]])
    gram = x.T @ x
    factor = inverse_factor(gram + 1e-9 * np.eye(3), 0.0)
    w, mask = np.array([[1.0, 1.0, 0.0]]), np.array([[False, True, False]])
    _, values = by_columns(w, factor, given_mask(mask), 1)
    np.testing.assert_allclose(values, [[0, 2, 0]], atol=1e-5)
    assert 2 * output_error(values - w, gram) == pytest.approx(1.25, rel=1e-4)
    assert 2 * output_error(np.array([[-1.0, 0, 0]]), gram) == pytest.approx(0.25)


def test_duplicate_inputs_hand_weights_to_the_right_only():
    """Weights (a, b) on equal inputs: deleting column 0 gives (0, a + b), deleting column 1 gives (a, 0)."""
    gram = np.ones((2, 2)) + 1e-10 * np.eye(2)
    w, factor = np.array([[3.0, 5.0]]), inverse_factor(gram, 0.0)
    _, left = by_columns(w, factor, given_mask(np.array([[False, True]])), 1)
    _, right = by_columns(w, factor, given_mask(np.array([[True, False]])), 1)
    np.testing.assert_allclose(left, [[0, 8]], rtol=1e-6)
    np.testing.assert_allclose(right, [[3, 0]], rtol=1e-12)
    assert output_error(left - w, np.ones((2, 2))) == pytest.approx(0, abs=1e-8)
    assert output_error(right - w, np.ones((2, 2))) == pytest.approx(12.5)


@SETTINGS
@given(seeds, st.sampled_from([0.0, 0.3]))
def test_uncorrelated_inputs_are_obd_over_the_block_and_wanda_in_the_groups(seed, damping):
    rng = np.random.default_rng(seed)
    w, h = rng.standard_normal((4, 8)), np.diag(rng.uniform(0.1, 4, 8))
    factor, live = inverse_factor(h, damping), np.ones((4, 8), bool)
    damped = np.diag(h) + damping * np.diag(h).mean()
    np.testing.assert_allclose(score(w, factor, 0), 2 * obd_saliency(w, damped), rtol=1e-10)
    mask, values = by_blocks(w, factor, lowest_of_block(live, 14), 8, 8)
    np.testing.assert_array_equal(mask, top_k(obd_saliency(w, damped), 14))
    np.testing.assert_allclose(values, np.where(mask, w, 0), rtol=0, atol=1e-14)
    mask, _ = by_blocks(w, factor, lowest_of_groups(live, NM(2, 4)), 4, 8)
    np.testing.assert_array_equal(mask, within_groups(wanda_score(w, np.diag(damped)), live, NM(2, 4)))


def test_silent_inputs_go_first_and_singular_gram_matrices_are_damped():
    x = np.random.default_rng(1).standard_normal((20, 5))
    x[:, 3] = 0
    w = np.random.default_rng(2).standard_normal((4, 5)) + 3
    mask, values = by_blocks(
        w, inverse_factor(x.T @ x / 20, 0.01), lowest_of_block(np.ones(w.shape, bool), 16), 5, 5
    )
    np.testing.assert_array_equal(mask.sum(axis=0), [4, 4, 4, 0, 4])
    np.testing.assert_allclose(values, np.where(mask, w, 0), rtol=0, atol=1e-12)
    for gram in (np.zeros((3, 3)), np.ones((3, 3)), np.diag([1e-12, 1.0, 1e12])):
        assert np.isfinite(inverse_factor(gram, 0.0)).all()


@pytest.mark.parametrize("settings", [{}, {"propagate": False, "block": 5}, {"allocation": ERK()}])
def test_runs_on_a_residual_network_level_after_level(settings):
    network = conv_net(np.random.default_rng(3))
    data = clusters(np.random.default_rng(4), network.input_shape)
    state = state_of(network, data.train_x.astype(np.float64), data.train_y)
    for level in (0.3, 0.7):
        masks = network.masks()
        solution = SparseGPT(0.7, samples=24, **settings).solve(state, level)
        for name, (mask, values) in solution.items():
            assert not (mask & ~masks[name]).any() and not values[~mask].any() and np.isfinite(values).all()
            network.prunable()[name].weight.rewire(mask)
            network.prunable()[name].weight.assign(values)
        size = sum(m.size for m in masks.values())
        assert sum(m.sum() for m in network.masks().values()) == size - round(level * size)


def test_groups_run_along_input_channels_of_a_convolution():
    network = conv_net(np.random.default_rng(5))
    data = clusters(np.random.default_rng(6), network.input_shape)
    state = state_of(network, data.train_x.astype(np.float64), data.train_y)
    solution = SparseGPT(0.5, samples=24, pattern=NM(2, 4, "dense"), block=6).solve(state, 0.5)
    mask = solution["block.branch.conv1"][0].reshape(4, 9, 4)
    assert (mask.sum(axis=2) == 2).all()


def test_reconstruction_beats_zeroing_of_the_same_mask_on_correlated_inputs():
    rng = np.random.default_rng(7)
    network = mlp((30, 20), rng)
    x = rng.standard_normal((100, 30)) @ rng.standard_normal((30, 30))
    w = network.prunable()["fc1"].weight.dense()
    mask, values = SparseGPT(0.5).solve(state_of(network, x, np.zeros(100, int)), 0.5)["fc1"]
    gram = x.T @ x / 100
    assert output_error(values - w, gram) < 0.8 * output_error(np.where(mask, w, 0) - w, gram)


def test_what_cannot_be_met_is_refused():
    for bad in ({"block": 0}, {"damping": -1}, {"propagate": "yes"}):
        with pytest.raises(UsageError):
            SparseGPT(**bad)
    with pytest.raises(SparsityError):
        SparseGPT(0.9, pattern=NM(2, 4))
    with pytest.raises(MethodError):
        SparseGPT(0.5, pattern=Block())
    state = state_of(mlp((4, 3), np.random.default_rng(8)), np.ones((3, 4)), np.zeros(3, int))
    with pytest.raises(MethodError):
        SparseGPT(0.5, allocation=Global()).solve(state, 0.5)
