"""Figures of second order: forecasts that are exact where the loss is quadratic, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import minisparse as ms
from minisparse.curvature import gradient, hessian
from minisparse.errors import UsageError
from minisparse.experiments.curvature_plots import (
    TITLES,
    Scale,
    Spectrum,
    hessian_spectrum,
    prediction,
    removed_by_criterion,
    shared,
    spectrum,
)
from minisparse.experiments.deletions import Deletions, changes, deletions, spearman
from minisparse.experiments.theme import DARK
from minisparse.methods.reconstruct.factors import live_values
from minisparse.nn import MSE, CrossEntropy, Linear, MaskedWeight, Network
from minisparse.nn.lr import Cosine
from tests.curvature.nets import case, mlp


def regression(rng: np.random.Generator, minimum: bool = True, mask=None) -> tuple:
    """y = W x under squared error, with 40 samples, 5 correlated inputs and 3 outputs; W at its minimum."""
    x = rng.standard_normal((40, 5)) @ (np.eye(5) + rng.standard_normal((5, 5)) / 3)
    target = rng.standard_normal((40, 3))
    best = np.linalg.lstsq(x, target, rcond=None)[0].T
    value = best if minimum else best + rng.standard_normal(best.shape)
    return Network({"fc": Linear(MaskedWeight(value, mask=mask))}, (5,)), MSE(), x, target


def draw(figure: Figure) -> Figure:
    figure.canvas.draw()
    return figure


@pytest.mark.parametrize("seed", range(5))
def test_on_a_quadratic_loss_at_its_minimum_both_forecasts_come_true(seed):
    found = deletions(*regression(np.random.default_rng(seed)), damping=0.0)
    for criterion in ("obd", "second order", "obs"):
        np.testing.assert_allclose(found.forecasts[criterion], found.came(criterion), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.forecasts["taylor"], 0, atol=1e-12)
    assert (found.adjusted <= found.alone + 1e-12).all()
    assert (found.adjusted < 0.99 * found.alone).any()


def test_the_update_of_obs_sets_its_own_weight_to_zero():
    """Away from a minimum u and -u differ: the change is g u + u^T H u / 2 with u_q = -w_q."""
    problem = regression(np.random.default_rng(7), minimum=False)
    network, loss, x, target = problem
    h, w = hessian(*problem), network.prunable()["fc"].weight.dense().ravel()
    g = gradient(*problem)["fc.weight"].ravel()
    p = np.linalg.inv(h)
    u = -(w / np.diag(p)) * p
    want = g @ u + np.einsum("iq,ij,jq->q", u, h, u) / 2
    np.testing.assert_allclose(np.diag(u), -w, rtol=1e-12)
    np.testing.assert_allclose(deletions(*problem, damping=0.0).adjusted, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_away_from_the_minimum_the_gradient_must_be_counted(seed):
    found = deletions(*regression(np.random.default_rng(seed), minimum=False))
    np.testing.assert_allclose(found.forecasts["second order"], found.alone, rtol=0, atol=1e-10)
    assert np.abs(found.forecasts["obd"] - found.alone).max() > 1e-3
    np.testing.assert_allclose(
        found.forecasts["obd"] + found.forecasts["taylor"], found.forecasts["second order"], atol=1e-14
    )


def test_damping_adds_its_own_share_to_the_forecast():
    """w^2 / (2 P_qq) = true rise + alpha |u|^2 / 2 when H + alpha I is inverted in place of H."""
    problem = regression(np.random.default_rng(0))
    network, loss, x, target = problem
    h, w = hessian(*problem), network.prunable()["fc"].weight.dense().ravel()
    found = deletions(*problem, damping=0.1)
    alpha = 0.1 * np.trace(h) / len(h)
    p = np.linalg.inv(h + alpha * np.eye(len(h)))
    u = -(w / np.diag(p)) * p
    own = alpha * (u**2).sum(axis=0) / 2
    np.testing.assert_allclose(found.forecasts["obs"], found.adjusted + own, rtol=1e-10)


def test_only_present_weights_take_part_and_the_network_stays_as_it_is():
    rng = np.random.default_rng(1)
    mask = np.arange(15).reshape(3, 5) % 4 != 0
    network, loss, x, target = regression(rng, mask=mask)
    before = network.state()
    found = deletions(network, loss, x, target)
    assert all(len(a) == mask.sum() for a in (found.alone, found.adjusted, found.layer))
    for key, value in network.state().items():
        np.testing.assert_array_equal(value, before[key])
    base = loss.value(network.forward(x), target)
    w = live_values(network)
    for q in range(len(w)):
        without = np.where(np.arange(len(w)) == q, 0, w)
        matrix = np.zeros((3, 5))
        matrix[mask] = without
        rise = ((x @ matrix.T - target) ** 2).sum() / 80 - base
        assert found.alone[q] == pytest.approx(rise, abs=1e-12)
    assert changes(network, loss, x, target, [w, w])[1] == 0


def test_deletions_are_refused_for_large_networks():
    with pytest.raises(UsageError, match="got 15 weights, expected at most 14"):
        deletions(*regression(np.random.default_rng(0)), limit=14)


def test_spearman_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(10):
        a, b = rng.integers(0, 6, 30), rng.standard_normal(30)
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert spearman(np.arange(5), np.arange(5) ** 3) == pytest.approx(1)
    assert np.isnan(spearman(np.ones(4), np.arange(4)))


@pytest.fixture(scope="module")
def trained() -> list[tuple[Network, Deletions]]:
    """Networks of 64-6-10 trained on the digits until the gradient is small, one per seed."""
    data, found = ms.data.load("digits"), []
    for seed in range(3):
        start = ms.models.build("mlp:64-6-10:tanh", data, seed=seed)
        run = ms.train(start, data, ms.Dense(), epochs=15, rate=Cosine(0.1), seed=seed)
        run = ms.train(run.network, data, ms.Dense(), epochs=150, batch=data.n_train, rate=Cosine(0.5))
        x, target = data.train_x[:400], data.train_y[:400]
        found.append((run.network, deletions(run.network, CrossEntropy(), x, target)))
    return found


def test_second_order_ranks_better_than_first_and_that_than_magnitude_or_chance(trained):
    def mean(criterion: str) -> float:
        return float(np.mean([found.correlation(criterion) for _, found in trained]))

    rng = np.random.default_rng(0)
    chance = [spearman(rng.random(len(f.alone)), f.alone) for _, f in trained for _ in range(5)]
    assert abs(np.mean(chance)) < 0.05
    assert mean("second order") > 0.95
    assert mean("second order") > mean("obd") > mean("magnitude") > 0.2


def test_the_update_of_obs_makes_deletions_cheaper(trained):
    for _, found in trained:
        assert found.adjusted.mean() < found.alone.mean() / 2


def test_prediction_draws_every_weight_in_every_panel(trained):
    found = {"first": trained[0][1], "second": trained[1][1]}
    figure = draw(prediction(found))
    assert len(figure.axes) == 2 * len(TITLES)
    at = iter(figure.axes)
    for deleted in found.values():
        for criterion, title in TITLES.items():
            axes = next(at)
            dots = [line for line in axes.lines if line.get_marker() == "."]
            across = np.concatenate([line.get_xdata() for line in dots])
            up = np.concatenate([line.get_ydata() for line in dots])
            np.testing.assert_array_equal(np.sort(up), np.sort(deleted.came(criterion)))
            if criterion != "magnitude":
                np.testing.assert_array_equal(np.sort(across), np.sort(deleted.forecasts[criterion]))
            assert axes.get_title(loc="left") == f"{title}: {deleted.correlation(criterion):.2f}"
            low, high = axes.get_ylim()
            assert (up >= low).all() and (up <= high).all()
            low, high = axes.get_xlim()
            assert (across >= low).all() and (across <= high).all()


def test_a_network_where_nothing_matters_can_be_drawn():
    zero = np.zeros(4)
    nothing = Deletions(np.zeros(4, dtype=int), ("fc",), zero, zero, dict.fromkeys(TITLES, zero))
    draw(prediction({"nothing": nothing}))
    scale = Scale.of(nothing)
    assert scale.low < 0 < scale.high and 0 in scale.ticks


@pytest.fixture(scope="module")
def one_spectrum() -> tuple[np.ndarray, Spectrum]:
    c = case(mlp([5, 6, 4], "tanh", np.random.default_rng(0)), CrossEntropy(), 30, np.random.default_rng(1))
    return hessian(*c), spectrum(*c, np.random.default_rng(2), k=8, probes=60)


def test_spectrum_holds_the_eigenvalues(one_spectrum):
    h, found = one_spectrum
    every = np.linalg.eigvalsh(h)
    np.testing.assert_allclose(found.direct, every, atol=1e-13)
    largest = every[np.argsort(-np.abs(every))][:8]
    np.testing.assert_allclose(found.top, largest, rtol=1e-8)
    count = np.trapezoid(found.density, found.grid)
    assert count == pytest.approx(len(h), rel=0.01)
    z = (found.grid[:, None] - every) / found.sigma
    smeared = np.exp(-(z**2) / 2).sum(axis=1) / (found.sigma * np.sqrt(2 * np.pi))
    wrong = np.trapezoid(np.abs(found.density - smeared), found.grid) / len(h)
    assert wrong < 0.2  # random probes; 2 if curve and eigenvalues had nothing in common


def test_spectra_are_drawn_beside_the_full_matrix(one_spectrum):
    _, found = one_spectrum
    without = Spectrum(found.top, found.grid, found.density, found.sigma, None)
    figure = draw(hessian_spectrum({"a": found, "b": without}))
    assert len(figure.axes) == 3
    first, second, third = figure.axes
    drawn = [line.get_ydata() for line in first.lines]
    assert len(drawn) == 3  # a, its check by the full matrix, b
    np.testing.assert_allclose(drawn[0], drawn[1], rtol=1e-8)
    assert len(second.patches) == 1 and not third.patches
    np.testing.assert_array_equal(second.lines[0].get_ydata(), found.density)
    bars = second.patches[0].get_data()
    assert (bars.values * np.diff(bars.edges)).sum() == pytest.approx(len(found.direct))


def pixel_network(mask: np.ndarray) -> Network:
    layer = Linear(MaskedWeight(np.ones(mask.shape), mask=mask))
    return Network({"fc1": layer}, (mask.shape[1],))


def test_pictures_count_kept_connections_and_those_at_constant_pixels():
    rng = np.random.default_rng(0)
    inputs = rng.random((20, 1, 2, 3))
    inputs[:, 0, 1, 2] = 0.25
    masks = {"low": np.arange(24).reshape(4, 6) < 12, "high": np.arange(24).reshape(4, 6) >= 6}
    figure = draw(removed_by_criterion({k: pixel_network(m) for k, m in masks.items()}, inputs))
    pictures = {at.get_title(loc="left"): at for at in figure.findobj(Axes)}
    np.testing.assert_allclose(pictures["inputs: spread"].images[0].get_array()[1, 2], 0)
    for label, mask in masks.items():
        shown = pictures[label].images[0].get_array()
        np.testing.assert_array_equal(shown, mask.sum(axis=0).reshape(2, 3))
        assert pictures[label].get_xlabel() == f"{mask[:, 5].sum()} kept at constant pixels"
    table = pictures["Share of kept weights in common"].images[0].get_array()
    np.testing.assert_allclose(table, [[1, 6 / 12], [6 / 18, 1]])


def test_shared_of_an_empty_mask_is_not_a_number():
    empty, full = np.zeros((2, 2), dtype=bool), np.ones((2, 2), dtype=bool)
    assert np.isnan(shared(empty, full)) and shared(full, empty) == 0
    draw(removed_by_criterion({"none": pixel_network(np.zeros((2, 4), dtype=bool))}, np.ones((3, 1, 2, 2))))


def test_figures_come_in_the_theme_asked_for(one_spectrum):
    figure = hessian_spectrum({"a": one_spectrum[1]}, theme=DARK)
    assert figure.get_facecolor()[:3] == pytest.approx((0x16 / 255, 0x1B / 255, 0x22 / 255))
