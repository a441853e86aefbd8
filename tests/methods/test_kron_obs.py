"""Kron-OBS: worked example, Optimal Brain Surgeon on whole rows, and the set formula for several."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UsageError
from minisparse.methods.reconstruct.kron_obd import kron_obd_importance
from minisparse.methods.reconstruct.kron_obs import KronOBS, kron_obs_importance, kron_obs_update
from minisparse.methods.reconstruct.obs import compensation, rise
from tests.methods.kronecker import conv_state, factors, perceptron_state, rows_as_coordinates
from tests.strategies import SETTINGS, seeds

sizes = st.integers(2, 4)


def test_worked_example():
    """S = [[2, 1], [1, 2]], A = I, row 0 = (1, 2): Kron-OBS 3.75 (Kron-OBD 5), row 1 receives row 0 / 2."""
    s, w = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 2.0], [0.0, 0.0]])
    inverse = np.linalg.inv(s)
    assert kron_obs_importance(w, np.eye(2), inverse)[0] == pytest.approx(3.75)
    assert kron_obd_importance(w, np.eye(2), s)[0] == pytest.approx(5.0)
    change = kron_obs_update(w, inverse, np.array([True, False]))
    np.testing.assert_allclose(change, [[-1, -2], [0.5, 1]], atol=1e-15)


@SETTINGS
@given(sizes, sizes, seeds)
def test_a_row_is_a_block_of_obs(out, columns, seed):
    """I_r = w_B^T ([H^-1]_BB)^-1 w_B / 2 for H = S (x) A and B the row."""
    w, a, s, _ = factors(out, columns, seed)
    p = np.linalg.inv(np.kron(s, a))
    importance = kron_obs_importance(w, a, np.linalg.inv(s))
    for r in range(out):
        at = rows_as_coordinates(np.arange(out) == r, columns)
        assert importance[r] == pytest.approx(rise(w.ravel(), p, at), rel=1e-10)


@SETTINGS
@given(sizes, sizes, seeds)
def test_several_rows_are_the_set_formula(out, columns, seed):
    w, a, s, rng = factors(out, columns, seed)
    leaving = rng.random(out) < 0.5
    at = rows_as_coordinates(leaving, columns)
    expected = compensation(w.ravel(), np.linalg.inv(np.kron(s, a)), at).reshape(w.shape)
    found = kron_obs_update(w, np.linalg.inv(s), leaving)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose((w + found)[leaving], 0, atol=1e-12)


def test_uncorrelated_outputs_are_kron_obd():
    w, a, s, _ = factors(4, 3, 0)
    s = np.diag(np.diag(s))
    np.testing.assert_allclose(
        kron_obs_importance(w, a, np.linalg.inv(s)), kron_obd_importance(w, a, s), rtol=1e-12
    )
    change = kron_obs_update(w, np.linalg.inv(s), np.array([True, False, False, True]))
    np.testing.assert_allclose(change[1:3], 0, atol=1e-15)


@pytest.mark.parametrize("make", [perceptron_state, conv_state])
@pytest.mark.parametrize("expectation", ["exact", "sampled"])
def test_whole_rows_leave_level_after_level_and_the_output_layer_stays(make, expectation):
    state = make(1)
    network = state.network
    for level in (0.3, 0.6):
        before = network.masks()
        for name, (mask, values) in KronOBS(0.6, expectation=expectation).solve(state, level).items():
            assert (mask.all(axis=1) | ~mask.any(axis=1)).all() and np.isfinite(values).all()
            assert not (mask & ~before[name]).any()
            network.prunable()[name].weight.rewire(mask)
            network.prunable()[name].weight.assign(values)
        masks = network.masks()
        size, rows = sum(m.size for m in masks.values()), max(m.shape[1] for m in masks.values())
        assert abs(sum(m.sum() for m in masks.values()) - (1 - level) * size) <= rows
        *hidden, output = masks.values()
        assert output.all() and all(mask.any() for mask in hidden)


def test_unusable_settings_are_refused():
    for bad in ({"expectation": "empirical"}, {"damping": -1.0}, {"floor": 1.5}):
        with pytest.raises(UsageError):
            KronOBS(**bad)
