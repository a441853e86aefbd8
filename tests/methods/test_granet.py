"""GraNet: the cubic schedule and its counts, global pruning, regeneration that changes no count."""

import numpy as np
import pytest

from minisparse.errors import NonFiniteError, UsageError
from minisparse.methods.dynamic.granet import GraNet
from minisparse.methods.dynamic.rules import cosine
from minisparse.methods.random import Random
from minisparse.sparsity import kept_count
from tests.methods.dynamics import (
    Snapshot,
    accuracy,
    assert_growth_is_silent,
    counts_of,
    masked_exchange,
    network_of,
    trained_state,
    watched,
)
from tests.methods.problems import mlp


def total_size(kind):
    return sum(x.weight.size for x in network_of(kind).prunable().values())


def state_at(step, method, seed=0):
    state = trained_state(method, mlp((8, 20, 15, 3), np.random.default_rng(seed)), seed, horizon=100)
    state.step = step
    return state


def test_densities_of_the_worked_schedule():
    # d: 0.5 -> 0.1 over T = 4 updates
    method, found = GraNet(0.9, every=10, until=0.4), {}
    state = state_at(0, method)
    for step in range(101):
        state.step = step
        if method.levels(state):
            (found[step],) = method.levels(state)
    assert list(found) == [0, 10, 20, 30, 40]
    np.testing.assert_allclose(1 - np.array(list(found.values())), [0.5, 0.26875, 0.15, 0.10625, 0.1])


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("initial", [0.0, 0.5, 0.9])
def test_the_total_follows_the_schedule_at_every_step(kind, initial):
    size, masks = total_size(kind), set()

    def watch(state):
        # 18 steps, every 3, until 0.7 -> T = 13
        start, t = min(initial, 0.8), min(state.step, 13)
        t = t if t == 13 else 3 * (t // 3)
        level = 0.8 if t == 13 else 0.8 + (start - 0.8) * (1 - t / 13) ** 3
        assert sum(counts_of(state.network).values()) == kept_count(size, level)
        masks.add(b"".join(m.tobytes() for m in state.network.masks().values()))

    watched(GraNet(0.8, initial=initial, every=3), watch, kind)
    assert len(masks) > 4


def test_pruning_keeps_the_largest_of_all_layers_together():
    method = GraNet(0.9, every=10)
    state = state_at(0, method)
    before = Snapshot(state)
    method.prune_to(state, 0.8)
    after = Snapshot(state)
    assert before.assert_moved_to(after) == 0
    stay, gone = [], []
    for name, old in before.masks.items():
        stay += list(np.abs(before.weights[name][after.masks[name]]))
        gone += list(np.abs(before.weights[name][old & ~after.masks[name]]))
    size = 8 * 20 + 20 * 15 + 15 * 3
    assert min(stay) >= max(gone) and len(stay) == kept_count(size, 0.8)


def test_regeneration_is_an_exchange_by_magnitude_and_gradient():
    method = GraNet(0.8, every=10)
    state = state_at(10, method)
    before = Snapshot(state)
    grads = {n: x.dense_grad() for n, x in state.network.prunable().items()}
    p = cosine(0.5, 0.005, 0.1)
    method.exchange_all(state)
    after = Snapshot(state)
    assert before.assert_moved_to(after) > 10
    for name, old in before.masks.items():
        k = round(p * old.sum())
        expected = old if old.all() else masked_exchange(before.weights[name], grads[name], old, k)
        np.testing.assert_array_equal(after.masks[name], expected)
        assert after.masks[name].sum() == old.sum()


def test_growing_leaves_the_loss_unchanged():
    method = GraNet(0.8, every=10)
    state = state_at(10, method)
    before = Snapshot(state)
    method.exchange_all(state)
    assert_growth_is_silent(state, before)


def test_pruning_comes_before_regeneration():
    method = GraNet(0.9, every=10, until=0.4)
    state, twin = state_at(10, method), state_at(10, method)
    method.after_update(state)
    method.prune_to(twin, 1 - 0.26875)
    assert sum(counts_of(twin.network).values()) == sum(counts_of(state.network).values())
    method.exchange_all(twin)
    for name, mask in state.network.masks().items():
        np.testing.assert_array_equal(mask, twin.network.masks()[name])


def test_without_regeneration_masks_only_shrink():
    last = {}

    def watch(state):
        for name, mask in state.network.masks().items():
            assert not (mask & ~last.get(name, mask)).any()
            last[name] = mask

    watched(GraNet(0.8, every=2, first=0.0, last=0.0), watch)


def test_from_its_final_sparsity_it_only_regenerates():
    counts = set()
    watched(GraNet(0.7, initial=0.7, every=2), lambda s: counts.add(tuple(counts_of(s.network).values())))
    assert len(counts) == 1


@pytest.mark.parametrize("until", [0.0, 0.01, 1.0])
def test_the_final_sparsity_is_reached_whatever_the_window(until):
    last = {}
    watched(GraNet(0.8, every=100, until=until), lambda s: last.update(counts_of(s.network)))
    assert sum(last.values()) == kept_count(total_size("mlp"), 0.8)


def test_a_gradient_that_is_not_finite_is_refused():
    method = GraNet(0.8, every=10)
    state = state_at(10, method)
    state.network.prunable()["fc1"].dy[...] = np.inf
    with pytest.raises(NonFiniteError), np.errstate(invalid="ignore"):
        method.exchange_all(state)


@pytest.mark.parametrize(
    "settings", [{"initial": 1.0}, {"every": 0}, {"until": 2}, {"first": -1}, {"last": True}, {"sparsity": 1}]
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        GraNet(**settings)


def test_it_beats_a_static_mask_of_its_final_sparsity():
    assert accuracy(GraNet(0.95, every=8)) > accuracy(Random(0.95)) + 0.1
