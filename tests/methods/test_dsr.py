"""DSR: the threshold and its adaptation, quotas by survivors, and a total that never changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, UsageError
from minisparse.methods.dynamic.dsr import DSR, THRESHOLD, adapted, below, fewer
from minisparse.methods.dynamic.rules import share_out
from minisparse.nn.optim import SGD
from tests.methods.dynamics import (
    Snapshot,
    assert_growth_is_silent,
    counts_of,
    network_of,
    spread,
    trained_state,
    watched,
)
from tests.methods.problems import chain, mlp, state_of


@pytest.mark.parametrize(("moved", "factor"), [(130, 0.5), (95, 1), (80, 2), (110, 1), (90, 1), (111, 0.5)])
def test_the_threshold_halves_above_and_doubles_below_the_target(moved, factor):
    assert adapted(0.3, moved, 100, 0.1) == 0.3 * factor


def test_quotas_are_in_proportion_to_survivors():
    assert share_out(8, {"a": 30, "b": 10}, {"a": 99, "b": 99}) == {"a": 6, "b": 2}


@given(hnp.arrays(float, (3, 4), elements=st.integers(-4, 4)), hnp.arrays(bool, (3, 4)), st.floats(0, 6))
def test_who_is_below_the_threshold_leaves_but_the_layers_largest(weight, mask, h):
    present = np.flatnonzero(mask)
    largest = max(present, key=lambda i: (abs(weight.flat[i]), -i), default=-1)
    expected = [i for i in present if abs(weight.flat[i]) < h and i != largest]
    assert present[below(weight[mask], h)].tolist() == expected


def test_the_smallest_over_all_layers():
    weights = {"a": np.array([3.0, -1.0]), "b": np.array([2.0, -0.5, 0.1])}
    leave = {"a": np.array([True, True]), "b": np.array([True, True, False])}
    chosen = fewer(leave, weights, 2)
    assert chosen["a"].tolist() == [False, True] and chosen["b"].tolist() == [False, True, False]


def exchanged(move=0.3, threshold=0.3, seed=0):
    method = DSR(0.6, move=move, threshold=threshold)
    state = trained_state(method, mlp((10, 12, 10, 3), np.random.default_rng(seed)), seed)
    before = Snapshot(state)
    state.step = 5
    method.exchange_all(state)
    return method, state, before, Snapshot(state)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_exchange_follows_the_three_equations(seed):
    method, state, before, after = exchanged(seed=seed)
    assert before.assert_moved_to(after) > 0
    leave = {n: spread(below(before.weights[n][m], 0.3), m) for n, m in before.masks.items()}
    k = sum(int(m.sum()) for m in leave.values())
    survivors = {n: int((m & ~leave[n]).sum()) for n, m in before.masks.items()}
    room = {n: int((~m).sum()) for n, m in before.masks.items()}
    quota = share_out(k, survivors, room)
    for name, old in before.masks.items():
        new = after.masks[name]
        assert not (new & leave[name]).any()  # who just left does not return
        assert (new & old == old & ~leave[name]).all()
        assert (new & ~old).sum() == quota[name]
    target = round(0.3 * sum(int(m.sum()) for m in before.masks.values()))
    assert float(state.memory[THRESHOLD]["H"]) == adapted(0.3, k, target, 0.1)


def test_growing_leaves_the_loss_unchanged():
    _, state, before, _ = exchanged()
    assert_growth_is_silent(state, before)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_total_is_constant_and_no_layer_empties(kind):
    totals, layers, thresholds = set(), set(), []

    def watch(state):
        counts = counts_of(state.network)
        totals.add(sum(counts.values()))
        layers.add(tuple(counts.values()))
        assert min(counts.values()) >= 1
        thresholds.append(float(state.memory[THRESHOLD]["H"]))

    watched(DSR(0.7, every=2, move=0.2, threshold=0.05), watch, kind, epochs=10)
    assert len(totals) == 1 and len(layers) > 2
    powers = np.log2(np.array(thresholds) / 0.05)
    np.testing.assert_allclose(powers, np.rint(powers), atol=1e-12)
    assert (np.abs(np.diff(powers)) <= 1).all() and len(set(thresholds)) > 1


def test_with_frozen_weights_the_threshold_settles_where_the_target_leaves():
    # magnitudes 1..100, N_p = 20: some H = 0.7 2^j has 18 to 22 below it only if the doubling hits it
    weight = np.zeros((1, 400))
    weight[0, :100] = np.arange(1, 101)
    network = chain(weight)
    method = DSR(0.75, move=0.2, threshold=0.65)
    state = state_of(network, np.zeros((1, 400)), np.zeros((1, 1)), optimizer=SGD(0.0))
    method.setup(state)
    state.rewire({"fc1": weight != 0})
    network.prunable()["fc1"].weight.assign(weight)
    seen = []
    for step in range(8):
        state.step = step
        left = int(method.leaving(state)["fc1"].sum())
        h = float(state.memory[THRESHOLD]["H"])
        assert left == np.count_nonzero(np.arange(1, 101) < h)
        seen.append(h)
        state.memory[THRESHOLD]["H"][...] = adapted(h, left, 20, 0.1)
    np.testing.assert_allclose(seen, [0.65, 1.3, 2.6, 5.2, 10.4, 20.8, 20.8, 20.8])


def test_a_nearly_dense_network_moves_what_fits():
    network = network_of("mlp").astype(np.float64)
    method = DSR(0.01, threshold=1e3)
    state = trained_state(method, network)
    free = sum(int((~m).sum()) for m in network.masks().values())
    before = Snapshot(state)
    method.exchange_all(state)
    moved = before.assert_moved_to(Snapshot(state))
    assert moved == free == 2 and sum(counts_of(network).values()) == 207 - 2


def test_a_weight_that_is_not_a_number_is_refused():
    method, state, *_ = exchanged()
    weight = state.network.prunable()["fc1"].weight
    weight.params()["weight"].value[weight.mask] = np.nan
    with pytest.raises(NonFiniteError):
        method.exchange_all(state)


def test_it_is_due_between_the_ends_of_the_run():
    _, state, *_ = exchanged()
    method, due = DSR(0.6, every=25), []
    for t in range(101):
        state.step = t
        if method.due(state):
            due.append(t)
    assert due == [25, 50, 75]


@pytest.mark.parametrize(
    "settings", [{"move": 1.5}, {"threshold": 0}, {"tolerance": -0.1}, {"every": 0}, {"threshold": True}]
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        DSR(**settings)
