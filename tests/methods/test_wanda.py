"""Wanda: worked example, one count per row, exactness for single removals, and its place in the lattice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import MethodError, ShapeError, SparsityError, UsageError
from minisparse.methods.reconstruct.layerwise import output_error, reconstruct
from minisparse.methods.reconstruct.obc import OBC
from minisparse.methods.reconstruct.sparsegpt import SparseGPT
from minisparse.methods.reconstruct.wanda import Wanda, row_counts, wanda_score, within_groups, within_rows
from minisparse.sparsity.allocation import Global
from minisparse.sparsity.pattern import NM, Row
from minisparse.sparsity.schedule import Rounds
from minisparse.sparsity.select import top_k
from minisparse.sparsity.shape import LayerShape
from tests.methods.problems import chain, clusters, conv_net, mlp, state_of
from tests.methods.quadratics import spd
from tests.strategies import SETTINGS, seeds

Array = np.ndarray


def everything(w: Array) -> Array:
    return np.ones(w.shape, dtype=bool)


def test_worked_example():
    """W = [[1, -2], [.5, 3]], norms (10, 1): scores [[10, 2], [5, 3]]; half of each row removes column 1,
    layerwise magnitude removes column 0."""
    w = np.array([[1, -2], [0.5, 3]])
    score = wanda_score(w, np.diag([100.0, 1.0]))
    np.testing.assert_array_equal(score, [[10, 2], [5, 3]])
    np.testing.assert_array_equal(within_rows(score, everything(w), 2), [[True, False], [True, False]])
    np.testing.assert_array_equal(top_k(np.abs(w), 2), [[False, True], [False, True]])


@SETTINGS
@given(st.integers(1, 6), st.integers(1, 7), seeds)
def test_every_row_keeps_as_many_and_the_total_is_exact(out, columns, seed):
    rng = np.random.default_rng(seed)
    kept = int(rng.integers(0, out * columns + 1))
    score = rng.standard_normal((out, columns)) ** 2
    mask = within_rows(score, everything(score), kept)
    counts = mask.sum(axis=1)
    assert mask.sum() == kept and counts.max() - counts.min() <= 1
    assert (np.diff(counts) <= 0).all()
    for row, chosen in zip(score, mask, strict=True):
        assert not chosen.any() or chosen.all() or row[chosen].min() >= row[~chosen].max()


@SETTINGS
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.data())
def test_rows_that_run_out_leave_their_share_to_the_others(live, data):
    live = np.array(live)
    kept = data.draw(st.integers(0, int(live.sum())))
    counts = row_counts(live, kept)
    assert counts.sum() == kept and (counts <= live).all()
    open_rows = counts < live
    if open_rows.any():
        assert counts.max() <= counts[open_rows].min() + 1


def test_equal_norms_are_magnitude_per_row_and_equal_scores_keep_the_lower_column():
    rng = np.random.default_rng(0)
    w = rng.standard_normal((4, 6))
    np.testing.assert_array_equal(
        within_rows(wanda_score(w, 3 * np.eye(6)), everything(w), 12),
        within_rows(np.abs(w), everything(w), 12),
    )
    expected = np.tile([True, True, False, False], (2, 1))
    np.testing.assert_array_equal(within_rows(np.ones((2, 4)), np.ones((2, 4), bool), 4), expected)


@SETTINGS
@given(seeds)
def test_a_single_removal_costs_half_the_squared_score(seed):
    rng = np.random.default_rng(seed)
    w, gram = rng.standard_normal((3, 5)), spd(5, rng)
    for q in np.ndindex(w.shape):
        change = np.zeros_like(w)
        change[q] = -w[q]
        assert output_error(change, gram) == pytest.approx(wanda_score(w, gram)[q] ** 2 / 2)


@SETTINGS
@given(seeds)
def test_masks_do_not_depend_on_the_scale_of_inputs_or_rows(seed):
    """Input j times c with column j over c changes no score; a row times c changes only its own."""
    rng = np.random.default_rng(seed)
    w, gram, live = rng.standard_normal((4, 5)), spd(5, rng), np.ones((4, 5), bool)
    c, rows = rng.uniform(0.1, 9, 5), rng.uniform(0.1, 9, 4)
    mask = within_rows(wanda_score(w, gram), live, 8)
    scaled = wanda_score(w / c * rows[:, None], gram * np.outer(c, c))
    np.testing.assert_array_equal(within_rows(scaled, live, 8), mask)


def test_rescaling_hidden_units_leaves_the_masks_of_a_network_unchanged():
    rng = np.random.default_rng(1)
    first, second = rng.standard_normal((8, 6)), rng.standard_normal((3, 8))
    c, x = rng.uniform(0.2, 5, 8), rng.standard_normal((40, 6))
    masks = []
    for a, b in ((first, second), (first * c[:, None], second / c)):
        state = state_of(chain(a, b), x, np.zeros(40, int))
        masks.append({n: m for n, (m, _) in Wanda(0.5).solve(state, 0.5).items()})
    for name in masks[0]:
        np.testing.assert_array_equal(masks[0][name], masks[1][name])


def test_nm_groups_compete_within_themselves_and_need_no_compensation():
    rng = np.random.default_rng(2)
    w, gram = rng.standard_normal((5, 8)), spd(8, rng)
    mask = within_groups(wanda_score(w, gram), everything(w), NM(2, 4))
    assert (mask.reshape(5, 2, 4).sum(axis=2) == 2).all()
    plain = NM(2, 4).eligible(np.abs(w), LayerShape(5, 8), everything(w))
    np.testing.assert_array_equal(within_groups(wanda_score(w, np.eye(8)), everything(w), NM(2, 4)), plain)


def test_later_layers_see_inputs_that_come_through_pruned_ones():
    """Without propagation every layer's norms are those of the dense network."""
    rng = np.random.default_rng(3)
    network = mlp((6, 7, 4), rng)
    x = rng.standard_normal((50, 6))
    state = state_of(network, x, np.zeros(50, int))
    grams = {}
    for propagate in (True, False):
        seen = []
        reconstruct(
            state, 50, {"fc1": 20, "fc2": 10},
            lambda w, gram, live, kept, seen=seen: (seen.append(gram), (w > 0, w))[1], propagate,
        )  # fmt: skip
        grams[propagate] = seen
    hidden = np.maximum(network.prunable()["fc1"].forward(x), 0)
    np.testing.assert_allclose(grams[False][1], hidden.T @ hidden / 50, rtol=1e-10)
    np.testing.assert_allclose(grams[True][0], grams[False][0])
    weight, bias = network.prunable()["fc1"].weight.dense(), network.prunable()["fc1"].bias.value
    pruned = np.maximum(x @ np.where(weight > 0, weight, 0).T + bias, 0)
    np.testing.assert_allclose(grams[True][1], pruned.T @ pruned / 50, rtol=1e-10)


@pytest.mark.parametrize("within", ["row", "layer"])
def test_runs_on_a_residual_network_without_changing_values_or_reviving(within):
    network = conv_net(np.random.default_rng(4))
    data = clusters(np.random.default_rng(5), network.input_shape)
    state = state_of(network, data.train_x.astype(np.float64), data.train_y)
    method = Wanda(0.75, within=within)
    for level in (0.3, 0.75):
        before = {n: layer.weight.dense().copy() for n, layer in network.prunable().items()}
        masks = network.masks()
        for name, (mask, values) in method.solve(state, level).items():
            assert not (mask & ~masks[name]).any()
            np.testing.assert_array_equal(values, before[name])
            assert abs(mask.sum() - (1 - level) * mask.size) < 1
            network.prunable()[name].weight.rewire(mask)


def test_layers_as_scope_remove_the_lowest_scores_of_the_layer():
    rng = np.random.default_rng(6)
    network, x = mlp((6, 5), rng), rng.standard_normal((30, 6))
    mask, _ = Wanda(0.4, within="layer").solve(state_of(network, x, np.zeros(30, int)), 0.4)["fc1"]
    score = wanda_score(network.prunable()["fc1"].weight.dense(), x.T @ x / 30)
    np.testing.assert_array_equal(mask, top_k(score, 18))


@pytest.mark.parametrize("method", [Wanda, SparseGPT, OBC])
def test_groups_wait_for_their_sparsity_in_a_gradual_schedule(method):
    network = mlp((8, 6, 4), np.random.default_rng(8))
    x = np.random.default_rng(9).standard_normal((30, 8))
    state = state_of(network, x, np.zeros(30, int), horizon=4)
    wait = method(0.5, Rounds(2, begin=0.25, end=0.5), pattern=NM(1, 2))
    for step, density in ((1, 1.0), (2, 0.5)):
        state.step = step
        wait.impose(state)
        assert all(mask.mean() == density for mask in network.masks().values())


def test_what_cannot_be_met_is_refused():
    with pytest.raises(SparsityError):
        Wanda(0.6, pattern=NM(2, 4))
    with pytest.raises(MethodError, match="N:M"):
        Wanda(0.5, pattern=Row())
    with pytest.raises(UsageError):
        Wanda(within="column")
    state = state_of(mlp((6, 5), np.random.default_rng(7)), np.ones((4, 6)), np.zeros(4, int))
    with pytest.raises(MethodError, match="global"):
        Wanda(0.5, allocation=Global()).solve(state, 0.5)
    with pytest.raises(ShapeError, match="2:4"):
        Wanda(0.5, pattern=NM(2, 4)).solve(state, 0.5)
    mask, _ = Wanda(0.5, pattern=NM(2, 4, "dense")).solve(state, 0.5)["fc1"]
    assert mask[:, 4:].all() and (mask[:, :4].sum(axis=1) == 2).all()
