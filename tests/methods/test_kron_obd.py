"""Kron-OBD: the Kronecker-factored quadratic form of a row, and its ranking of whole rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.curvature import kfac
from minisparse.errors import UsageError
from minisparse.methods.reconstruct.cobd import cobd_importance
from minisparse.methods.reconstruct.kron_factors import kron_factors, ranked, spread_rows
from minisparse.methods.reconstruct.kron_obd import KronOBD, kron_obd_importance
from tests.methods.kronecker import conv_state, factors, perceptron_state, rows_as_coordinates
from tests.methods.problems import mlp, state_of
from tests.methods.quadratics import cost
from tests.strategies import SETTINGS, seeds

sizes = st.integers(1, 4)


@SETTINGS
@given(sizes, sizes, seeds)
def test_it_is_what_removing_the_row_costs(out, columns, seed):
    w, a, s, _ = factors(out, columns, seed)
    h = np.kron(s, a)
    for r, found in enumerate(kron_obd_importance(w, a, s)):
        u = np.zeros(w.size)
        at = rows_as_coordinates(np.arange(out) == r, columns)
        u[at] = -w.ravel()[at]
        assert found == pytest.approx(cost(h, u), rel=1e-10)


def test_squares_are_not_taken_before_the_product():
    """w = (1, -1), A = [[1, .9], [.9, 1]]: w^T A w = .2, where sum w_j^2 A_jk would be 3.8."""
    a = np.array([[1, 0.9], [0.9, 1]])
    assert kron_obd_importance(np.array([[1.0, -1.0]]), a, np.eye(1))[0] == pytest.approx(0.1)


def test_uncorrelated_inputs_are_cobd_with_the_kronecker_diagonal():
    w, a, s, _ = factors(4, 5, 0)
    a = np.diag(np.diag(a))
    np.testing.assert_allclose(
        kron_obd_importance(w, a, s), cobd_importance(w, np.outer(np.diag(s), np.diag(a))), rtol=1e-12
    )


def test_factors_are_those_of_the_whole_sample_without_the_bias():
    rng = np.random.default_rng(1)
    network = mlp((5, 4, 3), rng)
    x, t = rng.standard_normal((150, 5)), rng.integers(0, 3, 150)
    state = state_of(network, x, t)
    whole = kfac(network, state.loss, x, t)
    for name, (a, s) in kron_factors(state, 150, "exact").items():
        np.testing.assert_allclose(a, whole[name].a[:-1, :-1], rtol=1e-10)
        np.testing.assert_allclose(s, whole[name].s, rtol=1e-10)
    sampled = kron_factors(state, 150, "sampled")
    again = kron_factors(state, 150, "sampled")
    assert (sampled["fc1"][1] == again["fc1"][1]).all() and (sampled["fc1"][1] != s[0, 0]).any()
    np.testing.assert_allclose(sampled["fc2"][1].trace(), whole["fc2"].s.trace(), rtol=0.3)


def test_the_best_rows_and_all_outputs_leave_last():
    importance = {"a": np.array([5.0, 1.0, 3.0, 0.0]), "b": np.array([0.5, 0.1])}
    found = ranked(importance, 0.3)
    assert found["a"][1] == 1.0 and found["a"][3] == 0.0
    assert min(found["a"][0], found["a"][2], found["b"].min()) > 5.0
    assert found["a"][0] > found["a"][2] and found["b"][0] > found["b"][1]
    zeros = ranked({"a": np.zeros(3), "b": np.zeros(2)}, 0.0)
    assert not zeros["a"].any() and (zeros["b"] > 0).all()


def test_scores_are_the_rows_importance_at_each_entry():
    state = perceptron_state(2)
    factors_of = kron_factors(state, 40, "exact")
    layers = state.network.prunable()
    for name, score in list(KronOBD(samples=40, floor=0.0).score(state).items())[:-1]:
        rows = kron_obd_importance(layers[name].weight.dense(), *factors_of[name])
        np.testing.assert_array_equal(score, np.tile(rows[:, None], (1, score.shape[1])))
    spread = spread_rows({name: np.zeros(x.weight.shape[0]) for name, x in layers.items()}, state.network)
    assert all(score.shape == layers[name].weight.shape for name, score in spread.items())


@pytest.mark.parametrize("make", [perceptron_state, conv_state])
def test_whole_rows_leave_and_masks_nest(make):
    state = make(3)
    masks = []
    for level in (0.3, 0.6):
        KronOBD(0.6).prune_to(state, level)
        masks.append(state.network.masks())
    for name in masks[0]:
        assert not (masks[1][name] & ~masks[0][name]).any()
        assert (masks[1][name].all(axis=1) | ~masks[1][name].any(axis=1)).all()
    assert list(masks[1].values())[-1].all()
    assert sum(m.sum() for m in masks[1].values()) < sum(m.sum() for m in masks[0].values())


def test_unusable_settings_are_refused():
    for bad in ({"samples": 0}, {"expectation": "none"}, {"floor": -0.1}):
        with pytest.raises(UsageError):
            KronOBD(**bad)
