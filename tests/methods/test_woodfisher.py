"""WoodFisher: the worked inverse, its limits, updates one by one and joint, WoodTaylor, and the lattice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.curvature import (
    empirical_fisher_diagonal,
    empirical_fisher_matrix,
    ggn_matrix,
    gradient,
)
from minisparse.errors import MethodError, UsageError
from minisparse.methods.reconstruct import factors
from minisparse.methods.reconstruct.block_inverse import DenseInverse, invert_blocks
from minisparse.methods.reconstruct.deletion import saliency
from minisparse.methods.reconstruct.factors import fisher_factors, ggn_factors, live_values
from minisparse.methods.reconstruct.obs import compensation, rise
from minisparse.methods.reconstruct.woodfisher import WoodFisher, independent_update, joint_update
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.methods.saliency.obd import obd_saliency
from minisparse.sparsity.select import top_k
from tests.methods.problems import chain, clusters, conv_net, mlp, state_of
from tests.methods.quadratics import constrained, cost, spd
from tests.strategies import SETTINGS, seeds


def problem(seed=0, widths=(5, 3)):
    """A state whose network has no biases, with 30 samples."""
    rng = np.random.default_rng(seed)
    network = chain(*(rng.standard_normal((o, i)) for i, o in zip(widths, widths[1:], strict=False)))
    x, t = rng.standard_normal((30, widths[0])), rng.integers(0, widths[-1], 30)
    return state_of(network, x, t)


def fisher(state, damping):
    f = empirical_fisher_matrix(state.network, state.loss, *state.calibration(30))
    return f + damping * np.eye(len(f))


def test_one_gradient():
    """diag P = (1 - g^2 / (lambda + |g|^2)) / lambda: g = (1, 2, 2), lambda = 1/2."""
    (block,) = invert_blocks(iter([np.array([[1.0, 2.0, 2.0]])]), [3], 1, 0.5, relative=False)
    np.testing.assert_allclose(block.diagonal, [1.789474, 1.157895, 1.157895], atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 1 << 24])
def test_factors_sum_to_the_empirical_fisher_matrix(chunk, monkeypatch):
    """All samples at once, or one by one."""
    monkeypatch.setattr(factors, "CHUNK_NUMBERS", chunk)
    state = problem()
    q = np.concatenate(list(fisher_factors(state.network, state.loss, state.train_x, state.train_t)))
    whole = empirical_fisher_matrix(state.network, state.loss, state.train_x, state.train_t)
    np.testing.assert_allclose(q.T @ q, whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("joint", [True, False])
def test_one_block_is_the_direct_inverse(joint):
    state = problem(1)
    w = state.network.prunable()["fc1"].weight.dense().ravel()
    h = fisher(state, 0.01)
    p = np.linalg.inv(h)
    mask, values = WoodFisher(0.6, damping=0.01, block="network", joint=joint).solve(state, 0.6)["fc1"]
    np.testing.assert_array_equal(mask.ravel(), top_k(saliency(w, np.diag(p)), 6))
    gone = np.flatnonzero(~mask.ravel())
    single = w + sum(compensation(w, p, np.array([q])) for q in gone)
    expected = w + constrained(h, w, gone) if joint else single
    np.testing.assert_allclose(values[mask], expected[mask.ravel()], rtol=1e-8)


@SETTINGS
@given(st.integers(2, 8), seeds)
def test_updates_one_by_one_are_a_sum_and_joint_is_the_constrained_minimum(n, seed):
    rng = np.random.default_rng(seed)
    h, w, leaving = spd(n, rng), rng.standard_normal(n), rng.random(n) < 0.5
    p, at = np.linalg.inv(h), np.flatnonzero(leaving)
    single = independent_update(w, DenseInverse(p.copy()), leaving)
    summed = sum((compensation(w, p, np.array([q])) for q in at), np.zeros(n))
    np.testing.assert_allclose(single, summed, rtol=0, atol=1e-10)
    joint = joint_update(w, DenseInverse(p.copy()), leaving)
    np.testing.assert_allclose(joint, constrained(h, w, at), rtol=0, atol=1e-9)
    masked = np.where(leaving, 0, w + single)
    assert cost(h, joint) <= cost(h, masked - w) + 1e-10


def test_blocks_of_one_weight_are_obd_with_the_empirical_fisher():
    """rho = w^2 (lambda + mean g^2) / 2, and nothing is compensated."""
    state = problem(2, (5, 4, 3))
    h = empirical_fisher_diagonal(state.network, state.loss, *state.calibration(30))
    names = list(state.network.prunable())
    weights = {n: state.network.prunable()[n].weight.dense() for n in names}
    scores = np.concatenate([obd_saliency(weights[n], 0.3 + h[f"{n}.weight"]).ravel() for n in names])
    solution = WoodFisher(0.5, damping=0.3, block="1").solve(state, 0.5)
    found = np.concatenate([solution[n][0].ravel() for n in names])
    np.testing.assert_array_equal(found, top_k(scores, 16))
    for name, (mask, values) in solution.items():
        np.testing.assert_allclose(values[mask], weights[name][mask], rtol=1e-12)


def test_heavy_damping_and_fitted_samples_are_magnitude():
    state = problem(3, (5, 4, 3))
    names = list(state.network.prunable())
    sizes = np.concatenate([magnitude(state.network.prunable()[n].weight.dense()).ravel() for n in names])
    found = np.concatenate([m.ravel() for m, _ in WoodFisher(0.5, damping=1e9).solve(state, 0.5).values()])
    np.testing.assert_array_equal(found, top_k(sizes, 16))
    x = state.train_x
    fitted = state_of(state.network, x, state.network.forward(x), loss="mse")
    found = np.concatenate([m.ravel() for m, _ in WoodFisher(0.5).solve(fitted, 0.5).values()])
    np.testing.assert_array_equal(found, top_k(sizes, 16))


def test_with_the_factors_of_the_gauss_newton_matrix_it_is_obs():
    state = problem(4, (4, 5, 3))
    x, t = state.calibration(30)
    h = ggn_matrix(state.network, state.loss, x, t)
    p = np.linalg.inv(h + 0.1 * np.eye(len(h)))
    w, leaving = live_values(state.network), np.arange(len(h)) % 3 == 0
    (block,) = invert_blocks(ggn_factors(state.network, state.loss, x, t), [len(h)], 90, 0.1, relative=False)
    np.testing.assert_allclose(saliency(w, block.diagonal), saliency(w, np.diag(p)), rtol=1e-9)
    at = np.flatnonzero(leaving)
    np.testing.assert_allclose(joint_update(w, block, leaving), compensation(w, p, at), rtol=0, atol=1e-9)


def test_residuals_of_one_size_make_the_empirical_fisher_a_multiple_of_the_hessian():
    """Squared error of a linear model with residuals +-s: F = s^2 H."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((50, 4)) @ spd(4, rng)
    w = rng.standard_normal((1, 4))
    y = x @ w.T + rng.choice([-0.5, 0.5], (50, 1))
    state = state_of(chain(w), x, y, loss="mse")
    f = empirical_fisher_matrix(state.network, state.loss, x, y)
    np.testing.assert_allclose(f, 0.25 * ggn_matrix(state.network, state.loss, x, y), rtol=1e-9)


@pytest.mark.parametrize("joint", [True, False])
def test_woodtaylor_starts_from_the_minimum_of_the_quadratic_model(joint):
    state = problem(5)
    x, t = state.calibration(30)
    w = state.network.prunable()["fc1"].weight.dense().ravel()
    g = gradient(state.network, state.loss, x, t)["fc1.weight"].ravel()
    h = fisher(state, 0.5)
    p = np.linalg.inv(h)
    bottom = w - p @ g
    method = WoodFisher(0.4, damping=0.5, block="network", taylor=True, joint=joint)
    mask, values = method.solve(state, 0.4)["fc1"]
    np.testing.assert_array_equal(mask.ravel(), top_k(bottom**2 / np.diag(p), 9))
    gone = np.flatnonzero(~mask.ravel())
    update = (
        constrained(h, bottom, gone) if joint else sum(compensation(bottom, p, np.array([q])) for q in gone)
    )
    np.testing.assert_allclose(values[mask], (bottom + update)[mask.ravel()], rtol=1e-8)
    if joint:
        change = np.where(mask, values, 0).ravel() - w
        assert g @ change + cost(h, change) == pytest.approx(rise(bottom, p, gone) - g @ p @ g / 2)


def test_without_gradient_woodtaylor_is_woodfisher():
    """Samples in pairs of opposite residuals: every gradient is there twice, with both signs."""
    rng = np.random.default_rng(6)
    w, half = rng.standard_normal((1, 5)), rng.standard_normal((20, 5))
    x = np.concatenate([half, half])
    y = x @ w.T + np.repeat([[0.3], [-0.3]], 20, axis=0)
    found = [
        WoodFisher(0.6, damping=0.01, taylor=taylor).solve(state_of(chain(w), x, y, loss="mse"), 0.6)["fc1"]
        for taylor in (False, True)
    ]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("settings", [{}, {"joint": True, "block": "7"}, {"taylor": True, "damping": 0.5}])
def test_runs_on_a_residual_network_level_after_level(settings):
    network = conv_net(np.random.default_rng(7))
    data = clusters(np.random.default_rng(8), network.input_shape)
    state = state_of(network, data.train_x.astype(np.float64), data.train_y)
    for level in (0.3, 0.7):
        masks = network.masks()
        solution = WoodFisher(0.7, samples=24, **settings).solve(state, level)
        for name, (mask, values) in solution.items():
            assert not (mask & ~masks[name]).any() and np.isfinite(values).all()
            network.prunable()[name].weight.rewire(mask)
            network.prunable()[name].weight.assign(values)
        size = sum(m.size for m in masks.values())
        assert sum(m.sum() for m in network.masks().values()) == size - round(level * size)


def test_unusable_settings_and_too_much_memory_are_refused():
    for bad in ({"block": "0"}, {"joint": 1}, {"damping": 0.0}, {"memory": -1}):
        with pytest.raises(UsageError):
            WoodFisher(**bad)
    state = state_of(mlp((20, 20), np.random.default_rng(9)), np.ones((4, 20)), np.zeros(4, int))
    with pytest.raises(MethodError):
        WoodFisher(0.5, memory=1e-6).solve(state, 0.5)
