"""Deep R: who dies and when, that no sign is ever crossed, that the number of the living is constant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import UsageError
from minisparse.methods.dynamic.deep_r import SIGNS, DeepR, active, carried, noise, signs
from minisparse.nn.optim import SGD
from minisparse.training.loop import fit
from tests.methods.dynamics import Snapshot, counts_of, spread, trained_state, watched
from tests.methods.problems import chain, descend, identity_problem, mlp, state_of

ARRAYS = hnp.arrays(float, 12, elements=st.integers(-2, 2))


@given(ARRAYS, st.integers(0, 99))
def test_the_living_are_those_whose_theta_is_not_negative(weight, seed):
    sign = np.where(np.random.default_rng(seed).random(12) < 0.5, -1, 1)
    np.testing.assert_array_equal(active(weight, sign), weight * sign > -0.5)


@given(hnp.arrays(bool, 40), st.integers(0, 99))
def test_signs_go_with_their_positions_and_are_drawn_at_new_ones(stays, seed):
    now = np.arange(0, 80, 2)
    sign = np.where(np.random.default_rng(seed).random(40) < 0.5, -1.0, 1.0)
    moved = carried(sign[stays], now[stays], now, np.random.default_rng(seed))
    np.testing.assert_array_equal(moved[stays], sign[stays])
    assert set(moved) <= {-1.0, 1.0}


def test_signs_drawn_are_fair():
    moved = carried(np.ones(10), np.arange(10), np.arange(4010), np.random.default_rng(0))
    assert (moved[:10] == 1).all() and abs(moved[10:].mean()) < 5 / np.sqrt(4000)


def test_signs_are_those_of_the_weights_and_fair_where_these_are_zero():
    weight = np.zeros(4000, dtype=np.float32)
    weight[:80] = -np.arange(1, 81)
    s = signs(weight, np.random.default_rng(0))
    assert (s[:80] == -1).all() and set(np.unique(s)) == {-1, 1} and s.dtype == weight.dtype
    assert abs(s[80:].mean()) < 5 / np.sqrt(s[80:].size)


def test_the_walk_has_variance_two_eta_t():
    walk = noise(200_000, 0.1, 3.0, np.random.default_rng(0))
    assert abs(walk.var() / 0.6 - 1) < 5 * np.sqrt(2 / walk.size)
    assert abs(walk.mean()) < 5 * np.sqrt(0.6 / walk.size)


def plain(network, x, target, method, lr=0.5, steps=20):
    """A state of plain gradient descent at a constant rate, before its first step."""
    state = state_of(network, x, target, "mse", horizon=steps, optimizer=SGD(0.0))
    state.rate = type(state.rate)(lr)
    return state


def run(state, method, steps):
    """Steps on the state's samples; (mask, weight) after each of them and before the first."""
    seen = []

    def record(s):
        weight = s.network.prunable()["fc1"].weight
        seen.append((weight.mask, weight.dense().copy()))

    fit(state, method, [(state.train_x, state.train_t)] * steps, record)
    return seen


def test_a_weight_without_gradient_drifts_to_zero_and_dies_a_step_later():
    # inputs are 0, so that every gradient is: theta = 0.01 - t eta alpha, eta alpha = 0.005
    network = chain(np.array([[0.01, 0.01, -0.01, -0.01]]))
    method = DeepR(0.5, l1=0.01, temperature=0.0)
    seen = run(plain(network, np.zeros((2, 4)), np.zeros((2, 1)), method), method, 3)
    first = seen[0][0]
    sign = np.array([[1, 1, -1, -1]])
    for t, theta in enumerate((0.01, 0.005, 0.0)):
        mask, weight = seen[t]
        np.testing.assert_array_equal(mask, first)
        np.testing.assert_array_equal((sign * weight)[mask], theta)
    mask, weight = seen[3]
    assert mask.sum() == 2 and not weight.any()


def test_without_drift_and_noise_it_is_projected_descent():
    rng = np.random.default_rng(0)
    w0, target = rng.standard_normal(30), 0.7 * rng.standard_normal(30)
    x, t = identity_problem(target)
    method = DeepR(0.4, l1=0.0, temperature=0.0)
    state = plain(chain(w0[None, :]), x, t, method, lr=0.05)
    seen = run(state, method, 20)
    # the mse gradient of the row is c (w - w*); eta c from the first step of one that survives it
    i = np.flatnonzero(seen[0][0][0] & seen[1][0][0])[0]
    rate = (seen[1][1][0][i] - w0[i]) / (target[i] - w0[i])
    crossed = 0
    for i in np.flatnonzero(seen[0][0][0]):
        free = target[i] + (1 - rate) ** np.arange(21) * (w0[i] - target[i])
        alive = np.cumprod(free * w0[i] >= 0).astype(bool)
        path = np.array([weight[0, i] for _, weight in seen])
        np.testing.assert_allclose(path[alive], free[alive], rtol=1e-9)
        if not alive.all():
            crossed += 1
            assert path[np.argmin(alive)] == 0
    assert 0 < crossed < seen[0][0].sum()


def test_only_the_living_are_shaken():
    network = chain(np.random.default_rng(0).standard_normal((20, 30)))
    method = DeepR(0.5, l1=0.0, temperature=0.5)
    state = plain(network, np.zeros((2, 30)), np.zeros((2, 20)), method, lr=0.01)
    method.setup(state)
    weight = network.prunable()["fc1"].weight
    before, mask = weight.dense().copy(), weight.mask
    descend(state)
    method.update(state)
    walk = (weight.dense() - before)[mask]
    assert not weight.dense()[~mask].any()
    assert abs(walk.var() / 0.01 - 1) < 5 * np.sqrt(2 / walk.size)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_no_sign_is_crossed_and_every_layers_count_is_constant(kind):
    counts, masks, topologies = set(), set(), []
    last: dict = {}

    def watch(state):
        counts.add(tuple(counts_of(state.network).values()))
        masks.add(b"".join(m.tobytes() for m in state.network.masks().values()))
        topologies.append(state.topology)
        for name, layer in state.network.prunable().items():
            weight, mask = layer.weight.dense(), layer.weight.mask
            if mask.all():
                continue
            assert (state.memory[SIGNS][name] * weight[mask] >= 0).all()
            if name in last:
                flipped = (np.sign(weight) * np.sign(last[name]) < 0).any()
                assert not flipped
            last[name] = weight.copy()

    watched(DeepR(0.7, l1=1e-2, temperature=1e-3), watch, kind)
    assert len(counts) == 1 and len(masks) > 3


def test_what_dies_is_replaced_by_zeros_with_empty_slots_even_where_it_returns():
    method = DeepR(0.6, l1=0.0)
    state = trained_state(method, mlp((8, 10, 10, 3), np.random.default_rng(0)))
    for layer in state.network.prunable().values():
        weight = layer.weight.dense().copy()
        weight[:, ::2] *= -1  # half of the living cross
        if not layer.weight.mask.all():
            layer.weight.assign(weight)
    before = Snapshot(state)
    signs_before = {n: spread(s, before.masks[n]) for n, s in state.memory[SIGNS].items()}
    dead = {n: m & (before.weights[n] * signs_before[n] < 0) for n, m in before.masks.items() if not m.all()}
    state.step = 4
    assert method.exchange_all(state)
    after = Snapshot(state)
    returned = 0
    for name, lost in dead.items():
        mask, old = after.masks[name], before.masks[name]
        assert lost.any() and mask.sum() == old.sum() and (mask & ~old).any()
        fresh = mask & (~old | lost)
        assert not after.weights[name][fresh].any() and not after.slots[name][fresh].any()
        survived = old & ~lost
        assert (mask & survived == survived).all()
        signs_now = spread(state.memory[SIGNS][name], mask)
        np.testing.assert_array_equal(signs_now[survived], signs_before[name][survived])
        np.testing.assert_array_equal(after.weights[name][survived], before.weights[name][survived])
        returned += (mask & lost).sum()
    assert returned > 0  # the case the second rewiring is for


def test_nothing_changes_where_nobody_dies():
    method = DeepR(0.6, l1=0.0, temperature=0.0)
    state = trained_state(method, mlp((8, 10, 3), np.random.default_rng(0)))
    for name, layer in state.network.prunable().items():
        sign = spread(state.memory[SIGNS][name], layer.weight.mask)
        layer.weight.assign(np.abs(layer.weight.dense()) * sign)
    topology = state.topology
    assert not method.exchange_all(state) and state.topology == topology


def test_the_penalty_is_alpha_times_the_sum_of_theta_with_its_gradient():
    method = DeepR(0.5, l1=0.25)
    network = mlp((6, 8, 3), np.random.default_rng(0))
    state = trained_state(method, network)
    grads = {n: x.weight.params()["weight"].grad.copy() for n, x in network.prunable().items()}
    value, total = method.penalty(state), 0.0
    for name, layer in network.prunable().items():
        mask = layer.weight.mask
        sign = spread(state.memory[SIGNS][name], mask)
        if not mask.all():
            total += (sign * layer.weight.dense())[mask].sum()
            pushed = layer.weight.params()["weight"].grad - grads[name]
            np.testing.assert_allclose(pushed, 0.25 * sign * mask, atol=1e-15)
    assert value == pytest.approx(0.25 * total)


@pytest.mark.parametrize("settings", [{"l1": -1}, {"temperature": float("nan")}, {"l1": True}])
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        DeepR(**settings)
