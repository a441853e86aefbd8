"""Magnitude: optimal for what it assumes, and what it can do to layers of different scale."""

from itertools import combinations, repeat

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erfc

from minisparse import data as datasets
from minisparse.errors import UsageError
from minisparse.methods.random import Random
from minisparse.methods.saliency.magnitude import Magnitude, magnitude, normalized
from minisparse.nn import models
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD
from minisparse.sparsity import Block, Cubic, FirstLast, Global, OneShot, Row, Steady, Uniform, kept_count
from minisparse.training.loop import fit
from minisparse.training.run import train
from tests.methods.linear_unit import quadratic_state
from tests.methods.problems import chain, clusters, conv_net, mlp, state_of
from tests.methods.quadratics import spd
from tests.strategies import SETTINGS

NOW = OneShot(0.0)


def pruned(network, **settings):
    """Masks of magnitude pruning of a copy before step 0."""
    copy = network.copy()
    x = np.zeros((2, *copy.input_shape))
    Magnitude(**{"schedule": NOW} | settings).setup(state_of(copy, x, np.zeros(2, dtype=int)))
    return copy.masks()


def same(a, b):
    return all((a[name] == b[name]).all() for name in a)


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_no_other_set_of_that_size_is_nearer(values, k, seed):
    w = np.array(values, dtype=float)[None, :]
    k = min(k, w.size - 1)
    mask = pruned(chain(w), sparsity=1 - k / w.size)["fc1"]
    assert mask.sum() == k
    removed = (w[~mask] ** 2).sum()
    assert removed == min((w[0, list(c)] ** 2).sum() for c in combinations(range(w.size), w.size - k))
    # with white inputs, X'X = n I, the squared change of the outputs is the squared distance
    x = np.linalg.qr(np.random.default_rng(seed).standard_normal((16, w.size)))[0] * 4
    np.testing.assert_allclose(((x @ (w * ~mask).T) ** 2).mean(), removed, rtol=1e-9, atol=1e-12)


def test_a_global_ranking_empties_a_layer_of_small_scale():
    network = chain(np.full((5, 2), 0.01), np.ones((2, 5)))
    assert {n: int(m.sum()) for n, m in pruned(network, sparsity=0.5).items()} == {"fc1": 0, "fc2": 10}
    layerwise = pruned(network, sparsity=0.5, allocation=Uniform())
    assert {n: int(m.sum()) for n, m in layerwise.items()} == {"fc1": 5, "fc2": 5}


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**7])
def test_only_the_plain_global_ranking_feels_the_scale_of_a_layer(scale):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 5)), rng.standard_normal((4, 6))
    network, scaled = chain(a, b), chain(scale * a, b)
    for settings in ({"allocation": Uniform()}, {"normalize": True}, {"normalize": True, "norm": 2}):
        assert same(pruned(network, sparsity=0.6, **settings), pruned(scaled, sparsity=0.6, **settings))
    assert not same(pruned(network, sparsity=0.6), pruned(scaled, sparsity=0.6))


def test_normalised_scores():
    w = np.array([[3.0, 0.0], [0.0, -4.0]])
    np.testing.assert_allclose(normalized(w), [[0.6, 0], [0, 0.8]])
    np.testing.assert_allclose(normalized(w, 2), [[0.36, 0], [0, 0.64]])
    assert (normalized(np.zeros((2, 3))) == 0).all()
    np.testing.assert_array_equal(magnitude(w, 2), w * w)


def test_the_norms_agree_on_weights_and_differ_on_rows():
    network = chain(np.array([[3.0, 0.0], [2.0, 2.0]]))
    rows = {norm: pruned(network, sparsity=0.5, norm=norm, pattern=Row())["fc1"] for norm in (1, 2)}
    assert rows[1].tolist() == [[False, False], [True, True]]  # 3 < 4
    assert rows[2].tolist() == [[True, True], [False, False]]  # 9 > 8
    network = mlp((6, 5, 4), np.random.default_rng(0))
    assert same(pruned(network, sparsity=0.7, norm=1), pruned(network, sparsity=0.7, norm=2))


@given(st.permutations(range(12)), st.floats(0, 0.95))
def test_permuting_distinct_weights_permutes_the_mask(order, sparsity):
    w = np.linspace(0.1, 1, 12) * np.where(np.arange(12) % 3, 1, -1)
    mask = pruned(chain(w.reshape(3, 4)), sparsity=sparsity)["fc1"].ravel()
    permuted = pruned(chain(w[list(order)].reshape(3, 4)), sparsity=sparsity)["fc1"].ravel()
    np.testing.assert_array_equal(permuted, mask[list(order)])


def test_shares_of_gaussian_layers_follow_the_error_function():
    rng = np.random.default_rng(0)
    sigma, size = np.array([1.0, 0.5]), 160_000
    network = chain(*(s * rng.standard_normal((400, 400)) for s in sigma))
    shares = [m.mean() for m in pruned(network, sparsity=0.8).values()]
    expected = erfc(0.94941 / (sigma * np.sqrt(2)))
    np.testing.assert_allclose(expected, [0.34241, 0.05759], atol=2e-5)
    np.testing.assert_allclose(shares, expected, atol=6 * np.sqrt(0.25 / size))


def test_the_default_follows_the_cubic_curve_and_nothing_returns():
    data = clusters(np.random.default_rng(0), (6,), train=48)
    network = mlp((6, 40, 3), np.random.default_rng(1), dtype=np.float32)
    seen = []

    def watch(state):
        seen.append(state.network.masks())

    method = Magnitude(0.9, Cubic(0.2, 0.7, every=1))
    train(network, data, method, epochs=4, batch=12, progress=watch)
    curve = [0.9 * (1 - (1 - min(max((t - 3) / 8, 0), 1)) ** 3) for t in range(17)]
    for masks, level in zip(seen, curve, strict=True):
        assert sum(int(m.sum()) for m in masks.values()) == kept_count(360, level)
    for a, b in zip(seen, seen[1:], strict=False):
        assert not any((b[name] & ~a[name]).any() for name in a)


def test_blocks_are_ranked_by_their_mean():
    w = np.array([[1.0, 1, 0, 9], [1, 1, 0, 0]])  # block means 1 and 2.25
    mask = pruned(chain(w), sparsity=0.5, pattern=Block(2, 2))["fc1"]
    assert mask.tolist() == [[False, False, True, True]] * 2


def alternate(a, b, start, keep, rate, steps, every, regrow=1):
    """Weights after each step of w'Aw/2 - b'w with `regrow`, pruned at every `every`-th step."""
    state = quadratic_state(a, b, start)
    state.optimizer, state.rate, state.horizon = SGD(0.0), Constant(rate), steps
    method, seen = Magnitude(1 - keep / len(b), Steady(every), regrow=regrow), []
    fit(
        state, method, repeat((state.train_x, state.train_t), steps),
        lambda s: seen.append(s.network.prunable()["fc1"].weight.dense()[0].copy()),
    )  # fmt: skip
    return np.array(seen)


def thresholded(w, keep):
    """H_k by sorting."""
    return np.where(np.isin(np.arange(w.size), np.argsort(-np.abs(w), kind="stable")[:keep]), w, 0)


@SETTINGS
@given(st.integers(3, 9), st.integers(1, 8), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_regrowth_is_hard_thresholding_with_the_mask_fixed_in_between(n, keep, every, regrow, seed):
    rng, keep = np.random.default_rng(seed), min(keep, n - 1)
    a, b, w = spd(n, rng), rng.standard_normal(n), rng.standard_normal(n)
    rate = 0.5 / np.linalg.eigvalsh(a)[-1]
    found = alternate(a, b, w, keep, rate, 12, every, regrow)
    w = thresholded(w, keep)
    np.testing.assert_array_equal(found[0], w)
    free = np.zeros(n, dtype=bool)
    for t in range(1, 13):
        left = min(-t % every, 12 - t)  # steps to go to the next pruning, once this one is done
        free = free | (left < regrow)
        w = np.where((w != 0) | free, w - rate * (a @ w - b), 0)
        if left == 0:
            w, free = thresholded(w, keep), np.zeros(n, dtype=bool)
        np.testing.assert_allclose(found[t], w, rtol=1e-9, atol=1e-11)


def test_with_unit_curvature_one_step_finds_the_best_network_of_its_size():
    # w'w/2 - b'w: from any w the step of rate 1 ends at b, and H_k(b) is the minimum over k weights
    b = np.array([0.3, -2.0, 1.5, 0.1])
    found = alternate(np.eye(4), b, np.array([9.0, 0.1, 0.1, 8.0]), 2, 1.0, 3, 1)
    np.testing.assert_allclose(found[1:], np.tile([0, -2.0, 1.5, 0], (3, 1)), atol=1e-12)
    # without regrowth the mask of the start stays
    state = quadratic_state(np.eye(4), b, np.array([9.0, 0.1, 0.1, 8.0]))
    Magnitude(0.5, NOW).setup(state)
    assert state.network.masks()["fc1"].tolist() == [[True, False, False, True]]


@hypothesis.settings(SETTINGS, max_examples=12)
@given(st.integers(3, 8), st.integers(1, 7), st.sampled_from((1, 5)), st.integers(0, 2**32 - 1))
def test_it_ends_where_no_weight_wants_to_move_or_to_enter(n, keep, every, seed):
    rng, keep = np.random.default_rng(seed), min(keep, n - 1)
    a, b, w = spd(n, rng, ridge=0.5), rng.standard_normal(n), rng.standard_normal(n)
    rate = 0.9 / np.linalg.eigvalsh(a)[-1]
    seen = alternate(a, b, w, keep, rate, 600, every)
    w, grad = seen[-1], a @ seen[-1] - b
    present = w != 0
    value = 0.5 * ((seen @ a) * seen).sum(axis=1) - seen @ b
    assert (np.diff(value) <= 1e-12).all()  # below 1/L every step lowers the loss, the projected ones too
    assert np.abs(grad[present]).max(initial=0) < 1e-6
    assert rate * np.abs(grad[~present]).max(initial=0) <= np.abs(w[present]).min(initial=np.inf) + 1e-6
    again = alternate(a, b, w, keep, rate, 4, every)
    np.testing.assert_allclose(again, np.tile(w, (5, 1)), atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"norm": 3}, {"norm": 0}, {"norm": True}, {"normalize": 1}, {"regrow": -1}, {"regrow": True}]
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        Magnitude(**settings)


def test_it_beats_chance_on_the_digits():
    data = datasets.load("digits")
    scores = {Magnitude: [], Random: []}
    for seed in range(3):
        network = models.build("mlp:64-100-10", data, seed=seed)
        for method, found in scores.items():
            schedule = Cubic(0.2, 0.7)
            run = train(network, data, method(0.97, schedule, Global()), epochs=6, seed=seed)
            found.append(run.accuracy)
    assert np.mean(scores[Magnitude]) > np.mean(scores[Random]) + 0.05


def test_dense_first_and_spared_last_layer_are_an_allocation():
    network = conv_net(np.random.default_rng(0))
    masks = pruned(network, sparsity=0.7, allocation=FirstLast(last=0.8))
    sizes, kept = ({n: f(m) for n, m in masks.items()} for f in (np.size, np.count_nonzero))
    assert kept["conv"] == sizes["conv"]
    assert kept["fc"] == kept_count(sizes["fc"], 0.8)
    assert sum(kept.values()) == kept_count(sum(sizes.values()), 0.7)
    for name, mask in masks.items():
        w = np.abs(network.prunable()[name].weight.dense())
        assert mask.all() or w[mask].min() >= w[~mask].max()
