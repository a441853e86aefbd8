"""ITOP: the explored share, its expectation, and that exchanges follow the rule it is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, UsageError
from minisparse.methods.dynamic.explored import EVER, expected_share, explored_share, record
from minisparse.methods.dynamic.itop import ITOP
from minisparse.methods.dynamic.rules import cosine, drop_smallest, grow_random
from minisparse.methods.random import Random
from tests.methods.dynamics import (
    Snapshot,
    accuracy,
    assert_growth_is_silent,
    counts_of,
    masked_exchange,
    network_of,
    spread,
    trained_state,
    watched,
)
from tests.methods.problems import chain, mlp, state_of


def test_the_worked_expectations():
    assert expected_share(1000, 100, 30, 50) == pytest.approx(0.82533, abs=5e-6)
    assert expected_share(1000, 100, 30, 50, returns=False) == pytest.approx(0.83477, abs=5e-6)
    assert expected_share(1000, 100, 30, 0) == pytest.approx(0.1)
    assert expected_share(10, 10, 3, 5, returns=False) == 1.0


@pytest.mark.parametrize("returns", [True, False])
def test_random_exchanges_explore_what_is_expected(returns):
    shares = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        flat = ever = grow_random(np.arange(0), 1000, 100, rng)
        for _ in range(50):
            stay = flat[drop_smallest(rng.random(100), 30)]
            flat = grow_random(stay, 1000, 30, rng, excluded=None if returns else flat)
            ever = np.union1d(ever, flat)
        shares.append(explored_share({"a": ever}, 1000))
    error = np.std(shares) / np.sqrt(60)
    assert abs(np.mean(shares) - expected_share(1000, 100, 30, 50, returns)) < 4 * error < 0.009


@given(st.lists(hnp.arrays(bool, (3, 4)), min_size=1, max_size=4))
def test_the_share_counts_each_entry_once(masks):
    network = chain(np.ones((3, 4)), np.ones((2, 3)))
    state = state_of(network, np.zeros((1, 4)), np.zeros(1, dtype=int))
    seen = {("fc2", i) for i in range(6)}
    for mask in masks:
        state.rewire({"fc1": mask})
        record(state)
        seen |= {("fc1", i) for i in np.flatnonzero(mask)}
    ever = state.memory[EVER]
    assert {(name, i) for name, flat in ever.items() for i in flat} == seen
    assert explored_share(ever, 18) == len(seen) / 18
    assert explored_share({}, 0) == 0


@pytest.mark.parametrize("growth", ["gradient", "random"])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_share_never_falls_and_counts_are_constant(growth, kind):
    shares, counts, union = [], set(), {}
    size = sum(x.weight.size for x in network_of(kind).prunable().values())

    def watch(state):
        counts.add(tuple(counts_of(state.network).values()))
        for name, mask in state.network.masks().items():
            union[name] = mask | union.get(name, mask)
        for name, mask in union.items():
            np.testing.assert_array_equal(state.memory[EVER][name], np.flatnonzero(mask))
        shares.append(explored_share(state.memory[EVER], size))

    watched(ITOP(0.7, growth=growth, every=2), watch, kind)
    assert shares[0] == (size - round(0.7 * size)) / size and shares == sorted(shares)
    assert shares[-1] > shares[0] and shares[-1] <= 1 and len(counts) == 1


def test_a_static_mask_explores_its_density_and_any_method_can_be_followed():
    shares = []
    size = sum(x.weight.size for x in network_of("mlp").prunable().values())

    def watch(state):
        record(state)
        shares.append(explored_share(state.memory[EVER], size))

    watched(Random(0.7), watch)
    assert set(shares) == {(size - round(0.7 * size)) / size}


def exchanged(growth, seed=0):
    method = ITOP(0.6, growth=growth, every=5)
    state = trained_state(method, mlp((8, 10, 10, 3), np.random.default_rng(seed)), seed)
    state.step = 5
    before = Snapshot(state)
    grads = {n: x.dense_grad() for n, x in state.network.prunable().items()}
    method.after_update(state)
    return method, state, before, grads


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_an_exchange_drops_the_smallest_and_grows_as_told(growth):
    _, state, before, grads = exchanged(growth)
    after = Snapshot(state)
    assert before.assert_moved_to(after) > 10
    for name, old in before.masks.items():
        k = round(cosine(0.5, 0.005, 0.05) * old.sum())
        if old.all():
            assert after.masks[name].all()
            continue
        stay = spread(drop_smallest(before.weights[name][old], k), old)
        assert after.masks[name].sum() == old.sum() and (after.masks[name] & stay == stay).all()
        by_gradient = masked_exchange(before.weights[name], grads[name], old, k)
        assert (after.masks[name] == by_gradient).all() == (growth == "gradient")


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_growing_leaves_the_loss_unchanged(growth):
    _, state, before, _ = exchanged(growth)
    assert_growth_is_silent(state, before)


def test_a_gradient_that_is_not_finite_is_refused():
    method, state, *_ = exchanged("gradient")
    state.network.prunable()["fc1"].dy[...] = np.nan
    with pytest.raises(NonFiniteError):
        method.exchange_all(state)


@pytest.mark.parametrize("settings", [{"growth": "magic"}, {"every": 0}, {"first": 2}, {"last": "0.1"}])
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        ITOP(**settings)


def test_it_beats_the_static_mask_it_starts_from():
    assert accuracy(ITOP(0.95, every=8)) > accuracy(Random(0.95)) + 0.1
