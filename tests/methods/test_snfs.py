"""SNFS: momentum of dense gradients, who leaves, how growth is shared by mean momentum, where it happens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, UsageError
from minisparse.methods.dynamic.snfs import MOMENTUM, SNFS, dropped, exchange, mean_momentum
from minisparse.methods.random import Random
from tests.methods.dynamics import (
    Snapshot,
    accuracy,
    assert_growth_is_silent,
    counts_of,
    mask_of,
    masked_exchange,
    positions,
    trained_state,
    watched,
)
from tests.methods.problems import descend, mlp

SHAPE = (4, 5)
NUMBERS = hnp.arrays(float, SHAPE, elements=st.integers(-9, 9))
MASKS = hnp.arrays(bool, SHAPE)


def test_the_mean_is_over_present_entries_only():
    momentum = np.array([[1.0, -3.0, 100.0]])
    assert mean_momentum(momentum, np.array([0, 1])) == 2
    assert mean_momentum(momentum, np.arange(0)) == 0


@pytest.mark.parametrize(
    ("kept", "share", "p", "gone"),
    [
        (40, 2.0, 0.5, 20),  # sparse: p whatever it is about to do
        (90, 2.0, 0.5, 9),  # nearly dense and growing: the empty share, 0.1
        (90, 0.5, 0.5, 45),  # nearly dense and shrinking
        (90, 2.0, 0.05, 4),  # p is the smaller one: round(4.5) = 4
        (80, 2.0, 0.5, 16),  # 1 - 0.8 is a shade below 0.2 in floating point
        (100, 2.0, 0.5, 0),
    ],
)
def test_how_many_leave(kept, share, p, gone):
    assert dropped(kept, 100, share, p) == gone


def masked(weights, masks, momentum, p):
    """The exchange as masks, from matrices."""
    flats = {n: positions(m) for n, m in masks.items()}
    new = exchange(flats, {n: weights[n][m] for n, m in masks.items()}, momentum, p)
    return {n: mask_of(flat, masks[n].shape) for n, flat in new.items()}


def test_growth_is_shared_by_mean_momentum():
    # mean |M| is 0.3 and 0.1, 20 leave each layer: 30 of the 40 enter the first
    rng = np.random.default_rng(0)
    masks = {n: (np.arange(size) < 40)[None, :] for n, size in (("a", 120), ("b", 400))}
    weights = {n: rng.standard_normal(m.shape) for n, m in masks.items()}
    momentum = {n: np.full(masks[n].shape, q) for n, q in (("a", 0.3), ("b", -0.1))}
    new = masked(weights, masks, momentum, 0.5)
    assert [int(new[n].sum()) - 20 for n in "ab"] == [30, 10]


def test_who_grows_is_sorted_by_momentum_and_a_full_layer_passes_on():
    rng = np.random.default_rng(1)
    masks = {"a": np.arange(50)[None, :] < 40, "b": np.arange(300)[None, :] < 60}
    weights = {n: rng.standard_normal(m.shape) * m for n, m in masks.items()}
    momentum = {"a": 9 + rng.random((1, 50)), "b": rng.random((1, 300)) / 100}
    new = masked(weights, masks, momentum, 0.5)
    # a has sparsity 0.2, loses 20 and takes all it has room for, 30 of 50; b loses 30, gets the other 20
    assert new["a"].all() and new["b"].sum() == 30 + 20
    order = np.argsort(-np.abs(weights["b"][0, :60]))
    stay = np.isin(np.arange(300), order[:30])
    worth = np.where(stay, -1, momentum["b"][0])
    grown = np.sort(np.argsort(-worth)[:20])
    np.testing.assert_array_equal(np.flatnonzero(new["b"][0]), np.sort([*np.flatnonzero(stay), *grown]))


@given(NUMBERS, NUMBERS, MASKS, st.floats(0, 0.5))
def test_one_layer_drops_by_magnitude_and_grows_by_momentum_as_rigl_does_by_gradient(w, m, mask, p):
    new = masked({"a": w}, {"a": mask}, {"a": m}, p)["a"]
    gone = dropped(int(mask.sum()), mask.size, 1.0, p)
    np.testing.assert_array_equal(new, masked_exchange(w, m, mask, gone))


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, MASKS), min_size=1, max_size=4),
    st.floats(0, 0.5),
    st.sampled_from([2.0**-20, 4.0, 2.0**30]),
)
def test_the_total_is_conserved_and_only_the_direction_of_momentum_matters(layers, p, scale):
    weights, momentum, masks = ({str(i): x[j] for i, x in enumerate(layers)} for j in range(3))
    new = masked(weights, masks, momentum, p)
    assert sum(m.sum() for m in new.values()) == sum(m.sum() for m in masks.values())
    scaled = masked(weights, masks, {n: scale * m for n, m in momentum.items()}, p)
    for name, mask in new.items():
        np.testing.assert_array_equal(mask, scaled[name])


def test_momentum_is_the_running_mean_of_dense_gradients():
    method = SNFS(0.8, momentum=0.5)
    network = mlp((6, 8, 3), np.random.default_rng(0))
    state = trained_state(method, network)
    expected = {name: np.zeros(x.weight.shape) for name, x in network.prunable().items()}
    for _ in range(4):
        descend(state)
        for name, x in network.prunable().items():
            expected[name] = 0.5 * expected[name] + 0.5 * x.dense_grad()
        method.update(state)
    for name, x in network.prunable().items():
        found = state.memory[MOMENTUM][name]
        np.testing.assert_allclose(found, expected[name], rtol=1e-12)
        if not x.weight.mask.all():
            assert found[~x.weight.mask].any()


def exchanged(seed=0):
    method = SNFS(0.6)
    state = trained_state(method, mlp((8, 10, 10, 3), np.random.default_rng(seed)), seed)
    method.update(state)
    before = Snapshot(state)
    state.step = 5
    method.exchange_all(state)
    return method, state, before


def test_an_exchange_keeps_the_momentum_and_empties_the_slots_of_what_enters():
    method, state, before = exchanged()
    kept = {n: m.copy() for n, m in state.memory[MOMENTUM].items()}
    assert before.assert_moved_to(Snapshot(state)) > 5
    method.exchange_all(state)
    for name, m in state.memory[MOMENTUM].items():
        np.testing.assert_array_equal(m, kept[name])


def test_growing_leaves_the_loss_unchanged():
    _, state, before = exchanged()
    assert_growth_is_silent(state, before)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_total_is_constant_over_a_run_and_layers_trade(kind):
    totals, layers, steps = set(), [], []

    def watch(state):
        counts = counts_of(state.network)
        totals.add(sum(counts.values()))
        if not layers or layers[-1] != tuple(counts.values()):
            layers.append(tuple(counts.values()))
            steps.append(state.step)

    watched(SNFS(0.7), watch, kind)
    assert len(totals) == 1 and len(layers) > 2
    assert all(step % 3 == 0 and step < 18 for step in steps)


def test_without_momentum_it_is_the_last_gradient_that_counts():
    method = SNFS(0.7, momentum=0.0)
    network = mlp((6, 8, 3), np.random.default_rng(0))
    state = trained_state(method, network)
    grads = {n: x.dense_grad() for n, x in network.prunable().items()}
    method.update(state)
    for name, g in grads.items():
        np.testing.assert_array_equal(state.memory[MOMENTUM][name], g)


def test_momentum_that_is_not_finite_is_refused():
    method, state, _ = exchanged()
    state.memory[MOMENTUM]["fc1"][...] = np.nan
    with pytest.raises(NonFiniteError):
        method.exchange_all(state)


@pytest.mark.parametrize("settings", [{"momentum": 1.5}, {"first": -0.1}, {"last": float("nan")}])
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        SNFS(**settings)


def test_it_beats_the_static_mask_it_starts_from():
    assert accuracy(SNFS(0.95)) > accuracy(Random(0.95)) + 0.1
