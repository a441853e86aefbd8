"""Importance pruning: who is removed, that nothing changes by it but what was said, and that SET goes on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, UsageError
from minisparse.methods.dynamic.importance_pruning import (
    REMOVED,
    ImportancePruning,
    importance,
    unimportant,
)
from minisparse.methods.dynamic.set import SET, survivors
from minisparse.methods.dynamic.silence import silence
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.weight import MaskedWeight
from minisparse.training.run import train
from tests.methods.dynamics import Snapshot, counts_of, network_of, spread, trained_state, watched
from tests.methods.problems import clusters, conv_net, mlp


def test_importance_is_the_sum_of_incoming_magnitudes():
    matrix = np.array([[1.0, -2.0, 0.0], [0.5, 0.0, 0.25], [0.0, 0.0, 0.0]])
    assert importance(MaskedWeight(matrix, mask=matrix != 0)).tolist() == [3.0, 0.75, 0.0]
    assert importance(MaskedWeight(matrix)).tolist() == [3.0, 0.75, 0.0]


@pytest.mark.parametrize(("share", "gone"), [(0.0, 0), (0.2, 2), (0.25, 2), (0.5, 5), (1.0, 10)])
def test_a_share_of_the_units_leaves(share, gone):
    # a quarter of ten is 2.5, rounded half to even
    left = unimportant(np.arange(10.0)[::-1], np.zeros(10, bool), share)
    assert np.flatnonzero(left).tolist() == list(range(10 - gone, 10))


@given(
    hnp.arrays(float, 9, elements=st.integers(0, 5)),
    hnp.arrays(bool, 9),
    st.floats(0, 1),
)
def test_the_least_important_of_the_living_leave(worth, removed, share):
    leaves = unimportant(worth, removed, share)
    alive = [i for i in range(9) if not removed[i]]
    order = sorted(alive, key=lambda i: (-worth[i], i))
    assert sorted(np.flatnonzero(leaves)) == sorted(order[len(alive) - round(share * len(alive)) :])


def state_with(method, kind="mlp", seed=0):
    rng = np.random.default_rng(seed)
    network = conv_net(rng, width=6) if kind == "conv" else mlp((8, 14, 12, 3), rng)
    state = trained_state(method, network, seed)
    state.step = 5
    return state


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_removal_takes_whole_units_of_hidden_layers_and_nothing_else(kind):
    method = ImportancePruning(0.5, begin=0.0, every=1)
    state = state_with(method, kind)
    before = Snapshot(state)
    method.remove(state)
    after = Snapshot(state)
    assert before.assert_moved_to(after) == 0
    names = list(before.masks)
    for name, old in before.masks.items():
        gone = state.memory[REMOVED][name]
        np.testing.assert_array_equal(after.masks[name], old & ~gone[:, None])
        worth = np.abs(before.weights[name]).sum(axis=1)
        assert gone.sum() == (0 if name == names[-1] else round(0.2 * len(gone)))
        assert worth[gone].max(initial=0) <= worth[~gone].min()


def test_an_exchange_removes_then_exchanges_what_is_left():
    method = ImportancePruning(0.5, begin=0.0, every=1, zeta=0.4)
    state, twin = state_with(method), state_with(method)
    before = Snapshot(state)
    method.after_update(state)
    method.remove(twin)
    counts = counts_of(twin.network)
    assert before.assert_moved_to(Snapshot(state)) > 5
    for name, layer in state.network.prunable().items():
        mask, gone = layer.weight.mask, state.memory[REMOVED][name]
        weight = twin.network.prunable()[name].weight
        stay = spread(survivors(weight.values, 0.4), weight.mask)
        assert mask.sum() == counts[name] and not mask[gone].any()
        assert mask.all() or (mask & stay == stay).all()


def test_without_removal_it_is_set():
    data = clusters(np.random.default_rng(0), (6,))
    settings = {"epochs": 5, "batch": 16, "seed": 3}
    ours = train(network_of("mlp"), data, ImportancePruning(0.7, share=0.0), **settings).network
    theirs = train(network_of("mlp"), data, SET(0.7), **settings).network
    for key, value in ours.state().items():
        np.testing.assert_array_equal(value, theirs.state()[key])


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_removed_units_are_silent_for_good_and_weights_only_get_fewer(kind):
    totals, gone = [], {}

    def watch(state):
        totals.append(sum(counts_of(state.network).values()))
        for name, layer in state.network.prunable().items():
            removed = state.memory[REMOVED][name]
            assert (removed & gone.get(name, removed) == gone.get(name, removed)).all()
            gone[name] = removed.copy()
            assert not layer.weight.mask[removed].any()
            if layer.bias is not None:
                assert not layer.bias.value[removed].any()
        first = next(iter(gone.values()))
        for mode in (EVAL, Mode(training=True)):
            y = state.train_x[:20].reshape(20, *state.network.input_shape)
            for name, layer in state.network.copy().layers.items():
                y = layer.forward(y, mode)
                if name in ("act1", "relu"):
                    assert not y[:, first].any()

    watched(ImportancePruning(0.5, begin=0.0, every=1, share=0.3), watch, kind)
    assert totals == sorted(totals, reverse=True) and totals[-1] < totals[0]
    assert all(mask.any() for mask in list(gone.values())[:-1]) and not list(gone.values())[-1].any()


def test_units_leave_every_so_many_epochs_from_the_begin_on():
    sums = []
    method = ImportancePruning(0.5, begin=0.5, every=2)
    watched(method, lambda s: sums.append(sum(int(m.sum()) for m in s.memory[REMOVED].values())), epochs=8)
    jumps = [t for t in range(1, len(sums)) if sums[t] > sums[t - 1]]
    assert jumps == [12, 18]  # three steps an epoch: after epochs 4 and 6, not after the last


def test_silencing_empties_slots_and_leaves_the_others():
    state = state_with(ImportancePruning(0.5))
    bias = state.network.prunable()["fc1"].bias
    slot, value = state.optimizer.slots["fc1.bias"]["u"].copy(), bias.value.copy()
    mute = np.arange(14) < 3
    silence(state, {"fc1": mute})
    now = state.optimizer.slots["fc1.bias"]["u"]
    assert not now[mute].any() and not bias.value[mute].any()
    np.testing.assert_array_equal(now[~mute], slot[~mute])
    np.testing.assert_array_equal(bias.value[~mute], value[~mute])


def test_a_weight_that_is_not_finite_is_refused():
    method = ImportancePruning(0.5, begin=0.0, every=1)
    state = state_with(method)
    weight = state.network.prunable()["fc1"].weight
    weight.params()["weight"].value[weight.mask] = np.inf
    with pytest.raises(NonFiniteError):
        method.remove(state)


@pytest.mark.parametrize("settings", [{"zeta": 1.1}, {"share": -0.1}, {"begin": 2}, {"every": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        ImportancePruning(**settings)
