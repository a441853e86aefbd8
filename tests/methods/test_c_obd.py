"""C-OBD: sums of saliencies per row under the Fisher's diagonal."""

import numpy as np
import pytest

from minisparse.curvature import fisher_diagonal
from minisparse.errors import UsageError
from minisparse.methods.reconstruct.cobd import COBD, cobd_importance
from minisparse.methods.saliency.obd import OBD
from tests.methods.kronecker import conv_state, perceptron_state


def test_worked_example():
    """F = [[1, 2], [0, 4]], W = [[2, 1], [5, .5]]: I = (4 + 2) / 2 and 1 / 2."""
    found = cobd_importance(np.array([[2, 1], [5, 0.5]]), np.array([[1.0, 2], [0, 4]]))
    np.testing.assert_array_equal(found, [3, 0.5])


def test_a_row_scores_the_sum_of_its_obd_saliencies():
    """The true Fisher's diagonal is the Gauss-Newton one, which OBD uses."""
    state = perceptron_state(0)
    rows = {n: s.sum(axis=1) for n, s in OBD().score(state).items()}
    for name, score in list(COBD(floor=0.0).score(state).items())[:-1]:
        np.testing.assert_allclose(score, np.tile(rows[name][:, None], (1, score.shape[1])), rtol=1e-10)


def test_sampled_targets_estimate_the_exact_diagonal():
    state = perceptron_state(1)
    x, t = state.calibration(40)
    exact = fisher_diagonal(state.network, state.loss, x, t)["fc1.weight"]
    w = state.network.prunable()["fc1"].weight.dense()
    np.testing.assert_allclose(
        COBD(floor=0.0, expectation="exact").score(state)["fc1"][:, 0], cobd_importance(w, exact)
    )
    sampled = COBD(floor=0.0, expectation="sampled").score(state)["fc1"][:, 0]
    assert 0.5 < sampled.sum() / cobd_importance(w, exact).sum() < 2
    assert (sampled != cobd_importance(w, exact)).all()


@pytest.mark.parametrize("make", [perceptron_state, conv_state])
def test_whole_rows_leave_and_the_output_layer_stays(make):
    state = make(2)
    COBD(0.5).prune_to(state, 0.5)
    masks = state.network.masks()
    assert all((m.all(axis=1) | ~m.any(axis=1)).all() and m.any() for m in masks.values())
    assert list(masks.values())[-1].all()
    size = sum(m.size for m in masks.values())
    assert abs(sum(m.sum() for m in masks.values()) - size / 2) <= max(m.shape[1] for m in masks.values())


def test_removed_rows_are_the_cheapest_of_the_network():
    state = perceptron_state(3)
    scores = {n: s[:, 0] for n, s in list(COBD(0.5).score(state).items())[:-1]}
    COBD(0.5).prune_to(state, 0.5)
    gone = [
        s
        for n, rows in scores.items()
        for s, m in zip(rows, state.network.masks()[n], strict=True)
        if not m.any()
    ]
    kept = [
        s
        for n, rows in scores.items()
        for s, m in zip(rows, state.network.masks()[n], strict=True)
        if m.any()
    ]
    assert gone and max(gone) <= min(kept)


def test_unusable_settings_are_refused():
    for bad in ({"samples": 1.5}, {"expectation": 0}, {"floor": 2}):
        with pytest.raises(UsageError):
            COBD(**bad)
