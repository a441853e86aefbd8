"""L-OBS: white and duplicate inputs, the bias, predicted errors, the bound, and both kinds of values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.methods.reconstruct.deletion import saliency
from minisparse.methods.reconstruct.layerwise import output_error
from minisparse.methods.reconstruct.lobs import LOBS, in_turn, lobs, output_bound
from minisparse.methods.reconstruct.obc import compensated
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.sparsity.select import top_k
from tests.methods.problems import chain, clusters, conv_net, mlp, state_of
from tests.methods.quadratics import spd
from tests.strategies import SETTINGS, seeds


def all_live(w):
    return np.ones(w.shape, dtype=bool)


@pytest.mark.parametrize("exact", [True, False])
def test_white_inputs_are_magnitude_of_the_layer_without_compensation(exact):
    w = np.random.default_rng(0).standard_normal((4, 6))
    mask, values = lobs(w, np.eye(6), all_live(w), 10, exact)
    np.testing.assert_array_equal(mask, top_k(magnitude(w), 10))
    np.testing.assert_allclose(values, np.where(mask, w, 0), atol=1e-15)


@pytest.mark.parametrize("exact", [True, False])
def test_duplicate_inputs_hand_a_weight_over_without_error(exact):
    x = np.random.default_rng(1).standard_normal((40, 3))
    x[:, 2] = x[:, 0]
    w = np.array([[1.0, 9.0, 5.0]])
    gram = x.T @ x / 40
    mask, values = lobs(w, gram + 1e-10 * np.eye(3), all_live(w), 2, exact)
    np.testing.assert_array_equal(mask, [[False, True, True]])
    np.testing.assert_allclose(values, [[0, 9, 6]], rtol=1e-6)
    assert output_error(values - w, gram) == pytest.approx(0, abs=1e-12)


def test_a_constant_input_moves_into_the_bias():
    """Input 1 is always 3: deleting its weight adds 3 w to the bias, at no error."""
    rng = np.random.default_rng(2)
    network = chain(np.array([[2.0, 0.5], [-4.0, 0.25]]), biases=True)
    x = np.column_stack([rng.standard_normal(50), np.full(50, 3.0)])
    state = state_of(network, x, np.zeros(50, int))
    y = network.forward(x).copy()
    bias = network.prunable()["fc1"].bias
    before = bias.value.copy()
    LOBS(0.5, damping=1e-12).impose(_at_level(state, 0.5))
    np.testing.assert_array_equal(network.prunable()["fc1"].weight.mask, [[True, False], [True, False]])
    np.testing.assert_allclose(bias.value - before, [1.5, 0.75], rtol=1e-6)
    np.testing.assert_allclose(network.forward(x), y, atol=1e-6)


def _at_level(state, share):
    """The state moved to where a one-shot schedule at half of the run prunes."""
    state.step = int(share * state.horizon)
    return state


def test_without_bias_it_stays():
    network = mlp((5, 4), np.random.default_rng(3))
    x = np.random.default_rng(4).standard_normal((30, 5))
    bias = network.prunable()["fc1"].bias.value.copy()
    LOBS(0.5, bias=False).solve(state_of(network, x, np.zeros(30, int)), 0.5)
    np.testing.assert_array_equal(network.prunable()["fc1"].bias.value, bias)


@SETTINGS
@given(st.integers(2, 6), seeds)
def test_predicted_rise_of_one_deletion_is_the_measured_error(n, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((40, n)), rng.standard_normal((2, n))
    gram = x.T @ x / 40
    p = np.linalg.inv(gram)
    predicted = saliency(w, np.diag(p))
    for q in np.ndindex(w.shape):
        mask = all_live(w)
        mask[q] = False
        values = compensated(w, gram, mask)
        assert output_error(values - w, gram) == pytest.approx(predicted[q], rel=1e-8)
        error = np.sum((x @ (values - w).T) ** 2) / 80
        assert error == pytest.approx(predicted[q], rel=1e-8)
        np.testing.assert_allclose(in_turn(w, p, ~mask), values, rtol=0, atol=1e-10)


@SETTINGS
@given(st.integers(2, 7), seeds)
def test_the_set_formula_is_never_worse_than_one_inverse_for_all(n, seed):
    rng = np.random.default_rng(seed)
    w, h = rng.standard_normal((3, n)), spd(n, rng)
    mask, values = lobs(w, h, all_live(w), int(rng.integers(0, w.size + 1)))
    same, stale = lobs(w, h, all_live(w), int(mask.sum()), exact=False)
    np.testing.assert_array_equal(mask, same)
    assert not stale[~mask].any() and not values[~mask].any()
    assert output_error(values - w, h) <= output_error(stale - w, h) + 1e-12


def test_one_inverse_for_all_goes_wrong_where_deletions_meet():
    """Two of three equal inputs go: the set formula hands everything to the third, the first P does not."""
    h = np.ones((3, 3)) + 1e-6 * np.eye(3)
    w = np.array([[1.0, 2.0, 3.0]])
    mask, exact = lobs(w, h, all_live(w), 1)
    _, stale = lobs(w, h, all_live(w), 1, exact=False)
    np.testing.assert_array_equal(mask, [[False, False, True]])
    assert exact[0, 2] == pytest.approx(6, rel=1e-4)
    assert abs(stale[0, 2] - 6) > 0.5


@SETTINGS
@given(seeds, st.sampled_from([0.3, 0.7]))
def test_output_error_stays_within_the_bound(seed, sparsity):
    """|change of the outputs| / sqrt n <= sum_k eps_k prod_{l>k} |W'_l|_F on ReLU perceptrons."""
    rng = np.random.default_rng(seed)
    network = mlp((5, 6, 4, 3), rng)
    x = rng.standard_normal((25, 5))
    state = state_of(network, x, np.zeros(25, int))
    pruned = network.copy()
    errors, norms = [], []
    network.forward(x)
    inputs = [layer.rows[:, 0].copy() for layer in network.prunable().values()]
    for (name, (mask, values)), rows in zip(
        LOBS(sparsity, bias=False).solve(state, sparsity).items(), inputs, strict=True
    ):
        old = network.prunable()[name].weight.dense()
        pruned.prunable()[name].weight.rewire(mask)
        pruned.prunable()[name].weight.assign(values)
        errors.append(np.linalg.norm(rows @ (values - old).T) / 5)
        norms.append(np.linalg.norm(values))
    change = np.linalg.norm(pruned.forward(x) - network.forward(x)) / 5
    assert change <= output_bound(errors, norms) * (1 + 1e-12)


def test_bound_of_one_layer_is_its_error():
    assert output_bound([2.0], [7.0]) == 2.0
    assert output_bound([2.0, 3.0], [7.0, 5.0]) == 13.0


@pytest.mark.parametrize("settings", [{}, {"exact": False}, {"bias": False}])
def test_runs_on_a_residual_network_level_after_level(settings):
    network = conv_net(np.random.default_rng(5))
    data = clusters(np.random.default_rng(6), network.input_shape)
    state = state_of(network, data.train_x.astype(np.float64), data.train_y)
    for level in (0.3, 0.7):
        masks = network.masks()
        solution = LOBS(0.7, samples=24, **settings).solve(state, level)
        for name, (mask, values) in solution.items():
            assert mask.shape == values.shape == masks[name].shape
            assert not (mask & ~masks[name]).any() and np.isfinite(values).all()
            network.prunable()[name].weight.rewire(mask)
            network.prunable()[name].weight.assign(values)
        size = sum(m.size for m in masks.values())
        assert sum(m.sum() for m in network.masks().values()) == size - round(level * size)
