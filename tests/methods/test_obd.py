"""Optimal Brain Damage: exactness, invariances, reductions, and the true change of the loss."""

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import spearmanr

from minisparse.curvature import hessian_diagonal
from minisparse.errors import UsageError
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.methods.saliency.obd import OBD, obd_saliency, taylor_saliency
from minisparse.nn.loss import LOSSES
from minisparse.sparsity.allocation import Global
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.schedule import OneShot
from minisparse.sparsity.select import select
from minisparse.sparsity.shape import LayerShape
from tests.methods.problems import chain, clusters, conv_net, descend, mlp, state_of
from tests.methods.quadratics import cost, spd
from tests.strategies import SETTINGS, seeds

ALL = {"exact", "ggn", "lecun", "hutchinson"}


@SETTINGS
@given(seeds)
def test_a_diagonal_hessian_predicts_any_set_exactly(seed):
    rng = np.random.default_rng(seed)
    h, w = rng.uniform(0.1, 3, 8), rng.standard_normal(8)
    gone = rng.random(8) < 0.5
    assert obd_saliency(w, h)[gone].sum() == pytest.approx(cost(np.diag(h), np.where(gone, -w, 0)))


@SETTINGS
@given(seeds)
def test_with_the_gradient_a_quadratic_loss_is_predicted_exactly_anywhere(seed):
    rng = np.random.default_rng(seed)
    h, w, centre = spd(6, rng), rng.standard_normal(6), rng.standard_normal(6)
    g = h @ (w - centre)
    predicted = taylor_saliency(w, g, np.diag(h))
    for q in range(6):
        less = w.copy()
        less[q] = 0
        assert predicted[q] == pytest.approx(cost(h, less - centre) - cost(h, w - centre), abs=1e-10)
    np.testing.assert_array_equal(taylor_saliency(w, 0 * g, np.diag(h)), obd_saliency(w, np.diag(h)))


def test_constant_curvature_is_magnitude():
    w = np.random.default_rng(0).standard_normal((5, 7))
    shapes = {"a": LayerShape(5, 7)}
    masks = [
        select({"a": s}, shapes, 0.6, Global(), Unstructured())["a"]
        for s in (obd_saliency(w, np.full_like(w, 2.5)), magnitude(w))
    ]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("diagonal", sorted(ALL - {"hutchinson"}))
def test_scores_are_those_of_the_engine(diagonal):
    network = mlp((6, 5, 3), np.random.default_rng(1), activation="tanh")
    data = clusters(np.random.default_rng(2), (6,))
    x, t = data.train_x.astype(np.float64), data.train_y
    state = state_of(network, x, t)
    h = hessian_diagonal(network, state.loss, x, t, diagonal)
    for name, score in OBD(diagonal=diagonal, negative="keep").score(state).items():
        w = network.prunable()[name].weight.dense()
        np.testing.assert_allclose(score, h[f"{name}.weight"] * w * w / 2, rtol=1e-12)


def test_all_engines_agree_on_softmax_regression_but_hutchinson_only_nearly():
    """One linear layer: H = mean p (1 - p) x^2, for all four."""
    network = mlp((5, 3), np.random.default_rng(3))
    data = clusters(np.random.default_rng(4), (5,))
    state = state_of(network, data.train_x.astype(np.float64), data.train_y)
    scores = {d: OBD(diagonal=d, negative="keep").score(state)["fc1"] for d in ALL}
    np.testing.assert_allclose(scores["exact"], scores["ggn"], rtol=1e-12)
    np.testing.assert_allclose(scores["exact"], scores["lecun"], rtol=1e-12)
    assert spearmanr(scores["exact"].ravel(), scores["hutchinson"].ravel())[0] > 0.9
    assert (scores["exact"] != scores["hutchinson"]).any()


def test_rescaling_a_hidden_unit_leaves_every_saliency_unchanged_but_not_the_magnitude():
    """ReLU networks: incoming weights times c, outgoing divided by c."""
    rng = np.random.default_rng(5)
    first, second = rng.standard_normal((7, 5)), rng.standard_normal((3, 7))
    c = rng.uniform(0.2, 5, 7)
    x, t = rng.standard_normal((30, 5)), rng.integers(0, 3, 30)
    scores, sizes = [], []
    for a, b in ((first, second), (first * c[:, None], second / c)):
        network = chain(a, b)
        scores.append(OBD(diagonal="exact").score(state_of(network, x, t)))
        sizes.append(
            np.concatenate([magnitude(layer.weight.dense()).ravel() for layer in network.prunable().values()])
        )
    for name in scores[0]:
        np.testing.assert_allclose(scores[0][name], scores[1][name], rtol=1e-10, atol=1e-18)
    assert (np.argsort(sizes[0]) != np.argsort(sizes[1])).any()


def test_negative_saliencies_count_as_asked():
    network = mlp((4, 6, 2), np.random.default_rng(6), activation="tanh")
    rng = np.random.default_rng(7)
    state = state_of(network, rng.standard_normal((9, 4)), rng.standard_normal((9, 2)) * 5, loss="mse")
    found = {n: OBD(diagonal="exact", negative=n).score(state)["fc1"] for n in ("absolute", "clip", "keep")}
    assert (found["keep"] < 0).any()
    np.testing.assert_array_equal(found["absolute"], np.abs(found["keep"]))
    np.testing.assert_array_equal(found["clip"], np.maximum(found["keep"], 0))
    assert (OBD(diagonal="ggn", negative="keep").score(state)["fc1"] >= 0).all()


def test_predictions_follow_the_true_loss_of_every_single_deletion_better_than_magnitude():
    """All n leave-one-out losses of a small trained network are the ground truth."""
    network = mlp((6, 10, 3), np.random.default_rng(8))
    data = clusters(np.random.default_rng(9), (6,), train=120)
    x = (data.train_x * np.array([3, 1, 1, 0.3, 0.3, 0.1], np.float32)).astype(np.float64)
    state = state_of(network, x, data.train_y)
    for _ in range(150):
        descend(state)
        state.optimizer.step(network, 0.05)
    base = descend(state)
    truth, sizes = [], []
    saliency = OBD(samples=120, taylor=True).score(state)
    for layer in network.prunable().values():
        value = layer.weight.param.value
        for q in np.ndindex(value.shape):
            old, value[q] = value[q], 0.0
            truth.append(abs(descend(state) - base))
            value[q] = old
        sizes.append(np.abs(value).ravel())
    obd = spearmanr(np.concatenate([s.ravel() for s in saliency.values()]), truth)[0]
    assert obd > 0.8 and obd > spearmanr(np.concatenate(sizes), truth)[0] + 0.05


def test_runs_on_a_residual_network_with_absent_weights():
    network = conv_net(np.random.default_rng(10))
    data = clusters(np.random.default_rng(11), network.input_shape)
    state = state_of(network, data.train_x.astype(np.float64), data.train_y, horizon=4)
    method = OBD(0.8, OneShot(0.0), samples=20)
    method.prune_to(state, 0.4)
    before = network.masks()
    method.prune_to(state, 0.8)
    assert sum(m.sum() for m in network.masks().values()) == round(0.2 * sum(m.size for m in before.values()))
    assert all(not (mask & ~before[name]).any() for name, mask in network.masks().items())


def test_unusable_settings_are_refused():
    for bad in ({"diagonal": "kfac"}, {"negative": "flip"}, {"taylor": 1}, {"samples": 0}, {"samples": True}):
        with pytest.raises(UsageError):
            OBD(**bad)


def test_the_loss_of_the_state_is_used():
    rng = np.random.default_rng(12)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    state = state_of(mlp((4, 2), rng), x, y, loss="mse")
    w = state.network.prunable()["fc1"].weight.dense()
    expected = np.tile((x * x).mean(axis=0), (2, 1)) * w * w / 2
    np.testing.assert_allclose(OBD().score(state)["fc1"], expected, rtol=1e-12)
    assert isinstance(state.loss, LOSSES["mse"])
