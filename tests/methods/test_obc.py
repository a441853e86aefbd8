"""OBC: each row's own greedy, rows merged by their losses, measured errors, N:M, and exhaustive search."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.methods.reconstruct.deletion import deletions
from minisparse.methods.reconstruct.layerwise import output_error
from minisparse.methods.reconstruct.obc import OBC, compensated, merged, obc, quotas, row_orders
from minisparse.methods.reconstruct.obs import compensation
from minisparse.sparsity.pattern import NM
from tests.methods.problems import clusters, conv_net, mlp, state_of
from tests.methods.quadratics import best_rise, cost, greedy, spd
from tests.strategies import SETTINGS, seeds

Array = np.ndarray


def layer(out: int, columns: int, seed: int) -> tuple[Array, Array, Array]:
    """(weight, hessian, all live)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((out, columns)), spd(columns, rng), np.ones((out, columns), bool)


@SETTINGS
@given(st.integers(1, 4), st.integers(2, 8), seeds)
def test_rows_follow_sequential_obs(out, columns, seed):
    w, h, live = layer(out, columns, seed)
    p = np.linalg.inv(h)
    order, rise = row_orders(w, p, live, *quotas(columns, None))
    for row, found, costs in zip(w, order, rise, strict=True):
        np.testing.assert_array_equal(
            found, deletions(row, p, np.zeros(columns, int), np.array([columns]), columns)
        )
        expected, _ = greedy(h, row, columns - 1)
        np.testing.assert_array_equal(found[:-1], expected)
        assert costs.sum() == pytest.approx(cost(h, row), rel=1e-9)


@SETTINGS
@given(st.integers(1, 4), st.integers(2, 8), seeds, st.floats(0, 1))
def test_losses_are_the_measured_error_and_all_of_them_the_whole_output(out, columns, seed, share):
    w, h, live = layer(out, columns, seed)
    kept = round(share * w.size)
    mask, values = obc(w, h, live, kept)
    assert mask.sum() == kept and not values[~mask].any()
    _, rise = row_orders(w, np.linalg.inv(h), live, *quotas(columns, None))
    counts = (~mask).sum(axis=1)
    total = sum(costs[:n].sum() for costs, n in zip(rise, counts, strict=True))
    assert output_error(values - w, h) == pytest.approx(total, rel=1e-8, abs=1e-12)
    _, nothing = obc(w, h, live, 0)
    assert output_error(nothing - w, h) == pytest.approx(output_error(w, h))


@SETTINGS
@given(st.integers(2, 4), st.integers(2, 6), seeds)
def test_supports_of_a_row_are_nested(out, columns, seed):
    w, h, live = layer(out, columns, seed)
    masks = [obc(w, h, live, kept)[0] for kept in range(w.size + 1)]
    for smaller, larger in zip(masks, masks[1:], strict=False):
        rows = smaller.sum(axis=1) <= larger.sum(axis=1)
        assert (larger[rows] | ~smaller[rows]).all()


def test_exhaustive_search_finds_no_more_than_greedy_and_most_often_the_same():
    """One row of up to 10 columns: greedy is never better than the best of all masks, and usually it."""
    same = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(3, 9))
        w, h, live = layer(1, n, seed)
        count = n // 2
        mask, values = obc(w, h, live, n - count)
        least, best = best_rise(h, w[0], count)
        error = output_error(values - w, h)
        assert error >= least * (1 - 1e-9)
        same += set(np.flatnonzero(~mask[0])) == set(best)
    assert same >= 45


def test_costs_are_merged_by_their_number_not_their_place():
    """A row's costs need not ascend: the cheap second deletion of row 0 comes only after its dear first."""
    rise = np.array([[5.0, 1.0], [2.0, 9.0]])
    np.testing.assert_array_equal(merged(rise, 1), [1, 0])
    np.testing.assert_array_equal(merged(rise, 2), [1, 1])
    np.testing.assert_array_equal(merged(np.ones((3, 2)), 3), [0, 1, 2])


@SETTINGS
@given(st.integers(1, 4), st.integers(2, 7), seeds)
def test_compensated_values_are_the_set_formula_row_by_row(out, columns, seed):
    w, h, _ = layer(out, columns, seed)
    mask = np.random.default_rng(seed).random(w.shape) < 0.5
    values = compensated(w, h, mask)
    p = np.linalg.inv(h)
    for row, old, stay in zip(values, w, mask, strict=True):
        gone = np.flatnonzero(~stay)
        expected = old + compensation(old, p, gone) if gone.size else old
        np.testing.assert_allclose(row, np.where(stay, expected, 0), rtol=0, atol=1e-10)
    assert output_error(values - w, h) <= output_error(np.where(mask, w, 0) - w, h) + 1e-12


@SETTINGS
@given(seeds)
def test_nm_groups_lose_their_quota_and_no_more(seed):
    w, h, live = layer(4, 8, seed)
    mask, values = obc(w, h, live, 0, NM(2, 4))
    assert (mask.reshape(4, 2, 4).sum(axis=2) == 2).all()
    p = np.linalg.inv(h)
    for row, stay in zip(w, mask, strict=True):
        order = deletions(row, p, np.repeat([0, 1], 4), np.array([2, 2]), 4)
        assert set(order) == set(np.flatnonzero(~stay))
    np.testing.assert_allclose(values, compensated(w, h, mask), rtol=0, atol=1e-12)


def test_nm_remainders_stay_and_one_group_is_top_n_of_the_row():
    width, quota = quotas(10, NM(1, 4, "dense"))
    assert width == 4
    np.testing.assert_array_equal(quota, [3, 3, 0])
    w, h, live = layer(3, 4, 0)
    np.testing.assert_array_equal(obc(w, h, live, 0, NM(1, 4))[0].sum(axis=1), 1)
    w, h, live = layer(3, 4, 1)
    mask, values = obc(w, h, live, 0, NM(4, 4))
    assert mask.all()
    np.testing.assert_array_equal(values, w)


def test_rows_lose_by_what_they_cost_not_alike():
    """A row a hundred times smaller goes first, whole; the other loses only what is left to lose."""
    w, h, live = layer(2, 5, 8)
    w[0] /= 100
    mask, _ = obc(w, h, live, 4)
    np.testing.assert_array_equal(mask.sum(axis=1), [0, 4])


def test_of_equal_costs_the_lower_index_stays():
    mask, _ = obc(np.ones((2, 4)), np.eye(4), np.ones((2, 4), bool), 5)
    np.testing.assert_array_equal(mask, [[True] * 4, [True, False, False, False]])


def test_absent_entries_stay_absent_and_do_not_count():
    w, h, live = layer(3, 6, 2)
    live[:, :2] = False
    w[~live] = 0
    mask, values = obc(w, h, live, 6)
    assert mask.sum() == 6 and not mask[:, :2].any()
    smaller, _ = obc(w[:, 2:], np.ascontiguousarray(h[2:, 2:]), live[:, 2:].copy(), 6)
    np.testing.assert_array_equal(mask[:, 2:], smaller)
    assert not values[~mask].any()


def test_white_inputs_are_magnitude_without_compensation():
    w, _, live = layer(4, 6, 3)
    mask, values = obc(w, 2 * np.eye(6), live, 10)
    assert np.abs(w[mask]).min() > np.abs(w[~mask]).max()
    np.testing.assert_allclose(values, np.where(mask, w, 0), atol=1e-15)


def test_duplicate_inputs_hand_their_weight_over():
    x = np.random.default_rng(4).standard_normal((30, 3))
    x[:, 1] = x[:, 0]
    w = np.array([[1.0, 2.0, 4.0]])
    mask, values = obc(w, x.T @ x / 30 + 1e-10 * np.eye(3), np.ones((1, 3), bool), 2)
    assert mask[0, :2].sum() == 1
    np.testing.assert_allclose(values[0, mask[0]], [3, 4], rtol=1e-6)


@pytest.mark.parametrize("pattern", [{}, {"pattern": NM(1, 2)}])
def test_runs_on_a_residual_network(pattern):
    network = conv_net(np.random.default_rng(5))
    data = clusters(np.random.default_rng(6), network.input_shape)
    state = state_of(network, data.train_x.astype(np.float64), data.train_y)
    for mask, values in OBC(0.5, samples=20, **pattern).solve(state, 0.5).values():
        assert mask.sum() == mask.size // 2 and np.isfinite(values).all() and not values[~mask].any()


def test_the_layer_error_is_less_than_magnitude_leaves():
    """The same counts on the same inputs: reconstruction against zeroing."""
    rng = np.random.default_rng(7)
    network = mlp((10, 8), rng)
    x = rng.standard_normal((60, 10)) @ spd(10, rng)
    w = network.prunable()["fc1"].weight.dense()
    mask, values = OBC(0.5, samples=60).solve(state_of(network, x, np.zeros(60, int)), 0.5)["fc1"]
    plain = np.where(np.abs(w) >= np.sort(np.abs(w).ravel())[40], w, 0)
    gram = x.T @ x / 60
    assert output_error(values - w, gram) < output_error(plain - w, gram) / 2
