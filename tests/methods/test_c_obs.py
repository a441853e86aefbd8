"""C-OBS: sums of single-weight Optimal Brain Surgeon, and where they part from the exact forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UsageError
from minisparse.methods.reconstruct.cobd import cobd_importance
from minisparse.methods.reconstruct.cobs import COBS, cobs_importance, cobs_update
from minisparse.methods.reconstruct.deletion import saliency
from minisparse.methods.reconstruct.kron_obs import kron_obs_importance, kron_obs_update
from minisparse.methods.reconstruct.obs import compensation
from tests.methods.kronecker import conv_state, factors, perceptron_state, rows_as_coordinates
from tests.methods.quadratics import cost
from tests.strategies import SETTINGS, seeds

sizes = st.integers(1, 4)


@SETTINGS
@given(sizes, sizes, seeds)
def test_both_are_sums_of_single_weight_obs(out, columns, seed):
    w, a, s, rng = factors(out, columns, seed)
    p = np.linalg.inv(np.kron(s, a))
    inverses = np.linalg.inv(a), np.linalg.inv(s)
    single = saliency(w.ravel(), np.diag(p)).reshape(w.shape)
    np.testing.assert_allclose(cobs_importance(w, *inverses), single.sum(axis=1), rtol=1e-9)
    leaving = rng.random(out) < 0.5
    at = rows_as_coordinates(leaving, columns)
    summed = sum((compensation(w.ravel(), p, np.array([q])) for q in at), np.zeros(w.size))
    found = cobs_update(w, *inverses, leaving)
    np.testing.assert_allclose(found, summed.reshape(w.shape), rtol=0, atol=1e-9)


@SETTINGS
@given(sizes, sizes, seeds)
def test_once_masked_it_costs_no_less_than_kron_obs(out, columns, seed):
    w, a, s, rng = factors(out, columns, seed)
    leaving, h = rng.random(out) < 0.5, np.kron(s, a)
    values = w + cobs_update(w, np.linalg.inv(a), np.linalg.inv(s), leaving)
    values[leaving] = 0
    best = kron_obs_update(w, np.linalg.inv(s), leaving)
    assert cost(h, best.ravel()) <= cost(h, (values - w).ravel()) + 1e-10


def test_importances_are_not_ordered():
    """S = 1, w = (1, 1): A_01 = -.9 gives C-OBS .19 > Kron-OBS .10, A_01 = .9 gives .19 < 1.90."""
    w, one = np.ones((1, 2)), np.eye(1)
    for c, exact in ((-0.9, 0.10), (0.9, 1.90)):
        a = np.array([[1, c], [c, 1]])
        assert cobs_importance(w, np.linalg.inv(a), one)[0] == pytest.approx(0.19)
        assert kron_obs_importance(w, a, one)[0] == pytest.approx(exact)


def test_uncorrelated_factors_are_cobd_without_compensation():
    w, a, s, _ = factors(4, 3, 0)
    a, s = np.diag(np.diag(a)), np.diag(np.diag(s))
    fisher = np.outer(np.diag(s), np.diag(a))
    found = cobs_importance(w, np.linalg.inv(a), np.linalg.inv(s))
    np.testing.assert_allclose(found, cobd_importance(w, fisher), rtol=1e-12)
    change = cobs_update(w, np.linalg.inv(a), np.linalg.inv(s), np.array([True, False, False, False]))
    np.testing.assert_allclose(change[0], -w[0], rtol=1e-12)
    np.testing.assert_allclose(change[1:], 0, atol=1e-15)


@pytest.mark.parametrize("make", [perceptron_state, conv_state])
def test_whole_rows_leave_level_after_level(make):
    state = make(1)
    network = state.network
    for level in (0.3, 0.6):
        before = network.masks()
        for name, (mask, values) in COBS(0.6).solve(state, level).items():
            assert (mask.all(axis=1) | ~mask.any(axis=1)).all() and np.isfinite(values).all()
            assert not (mask & ~before[name]).any()
            network.prunable()[name].weight.rewire(mask)
            network.prunable()[name].weight.assign(values)
    *hidden, output = network.masks().values()
    assert output.all() and all(mask.any() for mask in hidden)


def test_unusable_settings_are_refused():
    for bad in ({"expectation": "all"}, {"damping": "1"}, {"floor": True}):
        with pytest.raises(UsageError):
            COBS(**bad)
