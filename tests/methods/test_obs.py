"""Optimal Brain Surgeon: closed forms, the constrained minimum, backward elimination, and whole networks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.curvature import ggn_matrix, remove
from minisparse.errors import MethodError, UsageError
from minisparse.methods.reconstruct import factors
from minisparse.methods.reconstruct.block_inverse import DenseInverse, LowRankInverse
from minisparse.methods.reconstruct.deletion import deletions, prune, saliency
from minisparse.methods.reconstruct.factors import block_sizes, ggn_factors, live_values
from minisparse.methods.reconstruct.obs import OBS, compensation, rise
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.methods.saliency.obd import OBD, obd_saliency
from minisparse.nn.loss import LOSSES
from minisparse.sparsity.allocation import Global, Uniform
from minisparse.sparsity.count import kept_count
from minisparse.sparsity.schedule import Exponential, OneShot
from tests.methods.problems import chain, clusters, conv_net, descend, mlp, state_of
from tests.methods.quadratics import best_rise, constrained, cost, greedy, spd
from tests.strategies import SETTINGS, seeds

sizes = st.integers(2, 8)


def everything(w, p, count, per_solve=1):
    """`prune` with one block, one group and no limits."""
    n = len(w)
    return prune(w, [DenseInverse(p.copy())], np.zeros(n, int), np.array([n]), count, per_solve)


def test_worked_example():
    """H = [[2, 1], [1, 2]], w = (1, 2): L = (3/4, 3); deleting 0 gives (0, 5/2) and costs 3/4, OBD says 1."""
    h, w = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, 2.0])
    p = np.linalg.inv(h)
    np.testing.assert_allclose(saliency(w, np.diag(p)), [0.75, 3], rtol=1e-14)
    u = compensation(w, p, np.array([0]))
    np.testing.assert_allclose(u, [-1, 0.5], rtol=1e-14)
    assert cost(h, u) == pytest.approx(0.75, rel=1e-14) == rise(w, p, np.array([0]))
    assert obd_saliency(w, np.diag(h))[0] == 1.0


def test_correlated_weights_hide_each_other_from_obd():
    """H = [[1, -.9], [-.9, 1]], w = (1, 1): OBD 1/2 each, OBS .095 each, both together cost .1."""
    h, w = np.array([[1, -0.9], [-0.9, 1]]), np.ones(2)
    p = np.linalg.inv(h)
    np.testing.assert_allclose(saliency(w, np.diag(p)), 0.095, rtol=1e-12)
    assert rise(w, p, np.arange(2)) == pytest.approx(0.1) == cost(h, -w)
    assert obd_saliency(w, np.diag(h)).sum() == 1.0


@SETTINGS
@given(sizes, seeds, st.data())
def test_set_formula_is_the_constrained_minimum(n, seed, data):
    rng = np.random.default_rng(seed)
    h, w = spd(n, rng), rng.standard_normal(n)
    at = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True)))
    p = np.linalg.inv(h)
    u = compensation(w, p, at)
    np.testing.assert_allclose(u, constrained(h, w, at), rtol=0, atol=1e-11)
    np.testing.assert_allclose(u[at], -w[at], rtol=0, atol=1e-12)
    assert rise(w, p, at) == pytest.approx(cost(h, u), rel=1e-10, abs=1e-12)


@SETTINGS
@given(sizes, seeds, st.data())
def test_one_at_a_time_with_downdates_ends_where_the_set_formula_does(n, seed, data):
    rng = np.random.default_rng(seed)
    h, w = spd(n, rng), rng.standard_normal(n)
    order = data.draw(st.permutations(range(n)))[: data.draw(st.integers(1, n))]
    p, values, total = np.linalg.inv(h), w.copy(), 0.0
    for q in order:
        total += rise(values, p, np.array([q]))
        values = values + compensation(values, p, np.array([q]))
        p = remove(p, q)
    at = np.array(order)
    np.testing.assert_allclose(values, w + compensation(w, np.linalg.inv(h), at), rtol=0, atol=1e-11)
    assert total == pytest.approx(rise(w, np.linalg.inv(h), at), rel=1e-10, abs=1e-12)
    assert cost(h, values - w) == pytest.approx(total, rel=1e-9, abs=1e-12)


@SETTINGS
@given(sizes, seeds, st.data())
def test_independent_updates_once_masked_cost_no_less(n, seed, data):
    rng = np.random.default_rng(seed)
    h, w = spd(n, rng), rng.standard_normal(n)
    at = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True)))
    p = np.linalg.inv(h)
    values = w + sum(compensation(w, p, np.array([q])) for q in at)
    values[at] = 0
    assert cost(h, values - w) >= rise(w, p, at) - 1e-12


@SETTINGS
@given(sizes, seeds)
def test_never_more_than_obd_says_and_as_much_without_correlation(n, seed):
    rng = np.random.default_rng(seed)
    h, w = spd(n, rng), rng.standard_normal(n)
    obd = obd_saliency(w, np.diag(h))
    assert (saliency(w, np.diag(np.linalg.inv(h))) <= obd + 1e-12).all()
    diagonal = np.diag(np.diag(h))
    p = np.linalg.inv(diagonal)
    np.testing.assert_allclose(saliency(w, np.diag(p)), obd, rtol=1e-12)
    others = np.delete(compensation(w, p, np.array([0])), 0)
    assert not others.any()


@SETTINGS
@given(st.integers(3, 9), seeds)
def test_single_deletion_is_the_best_of_all_masks_and_greedy_never_beats_the_best(n, seed):
    rng = np.random.default_rng(seed)
    h, w = spd(n, rng), rng.standard_normal(n)
    p = np.linalg.inv(h)
    least, (q,) = best_rise(h, w, 1)
    assert saliency(w, np.diag(p)).min() == pytest.approx(least, rel=1e-9)
    assert deletions(w, p, np.zeros(n, int), np.array([n]), 1)[0] == q
    alive, values = everything(w, p, n // 2)
    assert cost(h, values - w) >= best_rise(h, w, n // 2)[0] - 1e-12
    at = np.flatnonzero(~alive)
    assert cost(h, values - w) == pytest.approx(rise(w, p, at), rel=1e-9)


@SETTINGS
@given(st.integers(3, 9), seeds)
def test_deletion_order_is_that_of_solving_every_candidate_anew(n, seed):
    rng = np.random.default_rng(seed)
    h, w = spd(n, rng), rng.standard_normal(n)
    order, values = greedy(h, w, n - 1)
    p = np.linalg.inv(h)
    np.testing.assert_array_equal(deletions(w, p, np.zeros(n, int), np.array([n]), n - 1), order)
    alive, found = everything(w, p, n - 1)
    assert set(np.flatnonzero(~alive)) == set(order)
    np.testing.assert_allclose(found, values, rtol=0, atol=1e-9)
    assert not found[~alive].any()


@SETTINGS
@given(st.integers(6, 40), st.integers(1, 20), seeds, st.integers(1, 7), st.booleans())
def test_values_are_the_set_formula_whatever_the_batch_and_the_form(n, k, seed, per_solve, low_rank):
    rng = np.random.default_rng(seed)
    f, w, alpha = rng.standard_normal((n, k)), rng.standard_normal(n), 0.2
    h = alpha * np.eye(n) + f @ f.T
    inverse = LowRankInverse(f.copy(), alpha) if low_rank else DenseInverse(np.linalg.inv(h))
    count = int(rng.integers(1, n + 1))
    alive, values = prune(w, [inverse], np.zeros(n, int), np.array([n]), count, per_solve)
    gone = np.flatnonzero(~alive)
    assert len(gone) == count and not values[gone].any()
    np.testing.assert_allclose(values, w + constrained(h, w, gone), rtol=0, atol=1e-7)


def test_blocks_prune_as_one_block_diagonal_matrix_and_groups_keep_their_room():
    rng = np.random.default_rng(3)
    parts, w = [spd(n, rng) for n in (4, 3, 5)], rng.standard_normal(12)
    h = np.zeros((12, 12))
    for part, at in zip(parts, (0, 4, 7), strict=True):
        h[at : at + len(part), at : at + len(part)] = part
    inverses = [DenseInverse(np.linalg.inv(part)) for part in parts]
    group = np.repeat([0, 1], [6, 6])
    alive, values = prune(w, inverses, group, np.array([12, 12]), 6, per_solve=2)
    whole, expected = everything(w, np.linalg.inv(h), 6)
    np.testing.assert_array_equal(alive, whole)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-10)
    inverses = [DenseInverse(np.linalg.inv(part)) for part in parts]
    alive, _ = prune(w, inverses, group, np.array([1, 5]), 6, per_solve=4)
    assert (~alive)[:6].sum() == 1 and (~alive)[6:].sum() == 5


def test_equal_scores_keep_the_lower_index():
    alive, _ = everything(np.ones(5), np.eye(5), 3)
    np.testing.assert_array_equal(alive, [True, True, False, False, False])


def regression(rng, features, samples=40, duplicate=False):
    """x, y and the least-squares weights of a linear problem; with `duplicate`, feature 1 is feature 0."""
    x = rng.standard_normal((samples, features)) @ spd(features, rng)
    if duplicate:
        x[:, 1] = x[:, 0]
    y = x @ rng.standard_normal((features, 1)) + 0.3 * rng.standard_normal((samples, 1))
    return x, y, np.linalg.lstsq(x, y, rcond=None)[0][:, 0]


@pytest.mark.parametrize("per_solve", [1, 3])
def test_linear_regression_is_backward_elimination(per_solve):
    """Each deletion is the one of least rise of the squared error, and the rest is refitted."""
    rng = np.random.default_rng(0)
    x, y, w = regression(rng, 7)
    state = state_of(chain([w]), x, y, loss="mse")
    method = OBS(0.0, samples=40, damping=1e-13, refreshes=1, per_solve=per_solve)
    gone: list[int] = []
    for kept in range(6, 0, -1):
        left = [q for q in range(7) if q not in gone]
        refits = {q: np.linalg.lstsq(x[:, [i for i in left if i != q]], y, rcond=None) for q in left}
        gone.append(min(left, key=lambda q: float(refits[q][1][0])))
        mask, values = method.solve(state, 1 - kept / 7)["fc1"]
        stay = [q for q in range(7) if q not in gone]
        np.testing.assert_array_equal(np.flatnonzero(mask[0]), stay)
        np.testing.assert_allclose(values[0, stay], np.linalg.lstsq(x[:, stay], y, rcond=None)[0][:, 0], 1e-6)


def test_predicted_rise_is_the_true_rise_of_a_quadratic_loss():
    rng = np.random.default_rng(1)
    x, y, w = regression(rng, 6)
    network, loss = chain([w]), LOSSES["mse"]()
    p = np.linalg.inv(ggn_matrix(network, loss, x, y))
    before = loss.value(network.forward(x), y)
    for at in (np.array([2]), np.array([0, 3, 5])):
        changed = chain([w + compensation(w, p, at)])
        assert loss.value(changed.forward(x), y) - before == pytest.approx(rise(w, p, at), rel=1e-9)


@pytest.mark.parametrize("per_solve", [1, 64])
@pytest.mark.parametrize("block", ["network", "row"])
def test_the_inverse_is_brought_up_to_date_after_each_deletion(per_solve, block):
    """Of two equal inputs one makes up for the other: either may go, but then the other must stay.

    An inverse that is not downdated calls both of them cheap, and deletes both.
    """
    x, y, _ = regression(np.random.default_rng(2), 4, duplicate=True)
    w = np.linalg.lstsq(x[:, [0, 2, 3]], y, rcond=None)[0][:, 0]
    w = np.array([w[0] / 2, w[0] / 2, w[1], w[2]])
    state = state_of(chain([w]), x, y, loss="mse")
    method = OBS(0.5, samples=40, damping=1e-9, refreshes=1, per_solve=per_solve, block=block)
    mask, values = method.solve(state, 0.5)["fc1"]
    p = np.linalg.inv(x.T @ x / 40 + 1e-9 * np.eye(4))
    assert set(np.argsort(saliency(w, np.diag(p)))[:2]) == {0, 1}
    assert mask[0, :2].sum() == 1
    assert values[0, :2].sum() == pytest.approx(2 * w[0], rel=0.5)


def test_hessian_is_taken_from_the_data_at_each_refresh():
    """Two refreshes are two runs, the second at the weights the first has left: not one run."""
    network = mlp((5, 6, 3), np.random.default_rng(4), activation="tanh")
    data = clusters(np.random.default_rng(5), (5,))
    x, t = data.train_x.astype(np.float64), data.train_y
    state = state_of(network.copy(), x, t)
    once, twice = OBS(0.75, refreshes=1), OBS(0.75, refreshes=2)
    for name, (mask, values) in once.solve(state, 0.5).items():
        layer = state.network.prunable()[name]
        layer.weight.rewire(mask)
        layer.weight.assign(values)
    by_hand = once.solve(state, 0.75)
    fresh = state_of(network, x, t)
    together, at_once = twice.solve(fresh, 0.75), once.solve(fresh, 0.75)
    for name, (mask, values) in together.items():
        np.testing.assert_array_equal(mask, by_hand[name][0])
        np.testing.assert_allclose(values, by_hand[name][1], rtol=0, atol=1e-12)
    assert any((together[n][0] != at_once[n][0]).any() for n in together)


@pytest.mark.parametrize("chunk", [1, 1 << 24])
def test_factors_sum_to_the_gauss_newton_matrix_of_the_live_weights(chunk, monkeypatch):
    """All samples at once, or one by one."""
    monkeypatch.setattr(factors, "CHUNK_NUMBERS", chunk)
    rng = np.random.default_rng(6)
    network = conv_net(rng)
    weight = network.prunable()["block.branch.conv1"].weight
    weight.rewire(rng.random(weight.shape) < 0.5)
    data = clusters(rng, network.input_shape)
    x, t, loss = data.train_x[:7].astype(np.float64), data.train_y[:7], LOSSES["cross-entropy"]()
    q = np.concatenate(list(ggn_factors(network, loss, x, t)))
    assert q.shape == (21, len(live_values(network)))
    whole = ggn_matrix(network, loss, x, t)
    masks = network.masks()
    live = np.concatenate([
        masks[n.removesuffix(".weight")].ravel() if n.removesuffix(".weight") in masks
        else np.zeros(p.value.size, bool)
        for n, p in network.params().items()
    ])  # fmt: skip
    np.testing.assert_allclose(q.T @ q, whole[np.ix_(live, live)], rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", ["network", "layer", "row", "10"])
@pytest.mark.parametrize("allocation", [None, Uniform()])
def test_counts_are_exact_and_nothing_returns_on_a_residual_network(block, allocation):
    network = conv_net(np.random.default_rng(7))
    data = clusters(np.random.default_rng(8), network.input_shape)
    state = state_of(network, data.train_x.astype(np.float64), data.train_y, horizon=4)
    extra = {} if allocation is None else {"allocation": allocation}
    method = OBS(0.8, OneShot(0.0), samples=12, block=block, per_solve=5, refreshes=2, **extra)
    before = network.masks()
    for level in (0.3, 0.8):
        solution = method.solve(state, level)
        for name, (mask, values) in solution.items():
            assert not (mask & ~before[name]).any() and not values[~mask].any() and np.isfinite(values).all()
            network.prunable()[name].weight.rewire(mask)
            network.prunable()[name].weight.assign(values)
        before = network.masks()
        size = sum(mask.size for mask in before.values())
        assert sum(mask.sum() for mask in before.values()) == kept_count(size, level)
        if allocation is not None:
            for mask in before.values():
                assert abs(mask.sum() - (1 - level) * mask.size) < 1


def test_the_loss_rises_less_than_without_compensation():
    """A control on the same masks: the adjusted values against the old ones."""
    gains = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network = mlp((6, 8, 3), rng)
        x = rng.standard_normal((200, 6)) @ spd(6, rng)
        state = state_of(network, x, network.forward(x).argmax(axis=1))
        solution = OBS(0.6, samples=200).solve(state, 0.6)
        losses = []
        for adjusted in (True, False):
            copy = network.copy()
            for name, (mask, values) in solution.items():
                copy.prunable()[name].weight.rewire(mask)
                if adjusted:
                    copy.prunable()[name].weight.assign(values)
            losses.append(state.loss.value(copy.forward(x), state.train_t))
        gains.append(losses[1] - losses[0])
    assert np.mean(gains) > 0


def test_exclusive_or_outlives_deletions_that_obd_and_magnitude_do_not():
    """2-3-1 tanh networks, two deletions one at a time, nothing retrained: mean loss over seeds."""
    x = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1.0]])
    y = np.array([[-0.9], [0.9], [0.9], [-0.9]])
    losses = []
    for seed in range(8):
        state = state_of(mlp((2, 3, 1), np.random.default_rng(seed), "tanh"), x, y, loss="mse", horizon=1)
        for _ in range(400):
            descend(state)
            state.optimizer.step(state.network, 0.1)
        methods = (
            OBS(2 / 9, OneShot(0.0), samples=4, damping=1e-4, per_solve=1, refreshes=2),
            OBD(2 / 9, Exponential(2), samples=4),
            Magnitude(2 / 9, Exponential(2), Global()),
        )
        copies = [state_of(state.network.copy(), x, y, loss="mse", horizon=1) for _ in methods]
        for method, copy in zip(methods, copies, strict=True):
            method.impose(copy)
        losses.append([descend(copy) for copy in copies])
        assert all(sum(m.sum() for m in copy.network.masks().values()) == 7 for copy in copies)
    obs, obd, magnitude = np.mean(losses, axis=0)
    assert obs < obd / 2 and obs < magnitude / 2


def test_blocks_cover_the_live_weights():
    masks = {"a": np.ones((2, 5), bool), "b": np.eye(3, dtype=bool)}
    assert block_sizes("network", masks) == [13]
    assert block_sizes("layer", masks) == [10, 3]
    assert block_sizes("row", masks) == [5, 5, 1, 1, 1]
    assert block_sizes("4", masks) == [4, 4, 2, 3]


def test_unusable_settings_and_too_much_memory_are_refused():
    for bad in ({"block": "unit"}, {"block": 0}, {"refreshes": 0}, {"per_solve": 1.5}, {"damping": 0}):
        with pytest.raises(UsageError):
            OBS(**bad)
    network = mlp((20, 30, 3), np.random.default_rng(0))
    data = clusters(np.random.default_rng(1), (20,))
    state = state_of(network, data.train_x.astype(np.float64), data.train_y)
    with pytest.raises(MethodError, match="block"):
        OBS(0.5, memory=1e-6).solve(state, 0.5)
