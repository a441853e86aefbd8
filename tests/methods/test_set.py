"""SET: how many of each sign leave, that the smallest do, and that growth is uniform."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import UsageError
from minisparse.methods.dynamic.rules import grow_random
from minisparse.methods.dynamic.set import SET, survivors
from minisparse.sparsity import ErdosRenyi, kept_count
from minisparse.training.run import train
from tests.methods.dynamics import mask_of, spread
from tests.methods.problems import chain, clusters, descend, mlp, state_of

SHAPE = (4, 6)


def signed(positives, negatives, rng):
    """Weights of distinct magnitude at random places of a layer with some absent entries."""
    n = positives + negatives
    values = (1 + rng.permutation(n)) * np.array([1.0] * positives + [-1.0] * negatives)
    weight = np.zeros(n + 10)
    places = rng.permutation(n + 10)[:n]
    weight[places] = values
    mask = np.zeros(n + 10, dtype=bool)
    mask[places] = True
    return weight[None, :], mask[None, :]


@pytest.mark.parametrize(
    ("positives", "negatives", "zeta", "gone"),
    [
        (10, 10, 0.3, (3, 3)),
        (20, 0, 0.3, (6, 0)),
        (0, 7, 0.5, (0, 4)),
        (5, 3, 0.5, (2, 2)),
        (9, 1, 0.3, (3, 0)),
    ],
)
def test_each_sign_loses_its_own_share(positives, negatives, zeta, gone):
    weight, mask = signed(positives, negatives, np.random.default_rng(0))
    left = mask & ~spread(survivors(weight[mask], zeta), mask)
    assert ((left & (weight > 0)).sum(), (left & (weight < 0)).sum()) == gone


@given(
    hnp.arrays(float, SHAPE, elements=st.integers(-4, 4)),
    hnp.arrays(bool, SHAPE),
    st.floats(0, 1),
)
def test_what_leaves_is_nearer_to_zero_than_what_stays(weight, mask, zeta):
    stay = spread(survivors(weight[mask], zeta), mask)
    for side in (mask & (weight >= 0), mask & (weight < 0)):
        count = int(side.sum())
        left, kept = np.abs(weight[side & ~stay]), np.abs(weight[side & stay])
        assert len(left) == round(zeta * count)
        assert not len(left) or not len(kept) or left.max() <= kept.min()


def test_ranking_magnitudes_jointly_would_be_another_method():
    weight = np.array([0.1, 0.2, 0.3, 0.4, -5.0, -6, -7, -8])
    assert survivors(weight, 0.5).tolist() == [False, False, True, True, False, False, True, True]


def test_weights_that_are_still_zero_leave_first():
    assert survivors(np.array([0.0, 0.0, 1.0, 2.0, -1.0]), 0.5).tolist() == [False, False, True, True, True]


def test_growth_is_uniform_over_what_is_empty_those_just_left_included():
    draws, k = 4000, 3
    rng = np.random.default_rng(0)
    stay = rng.random(SHAPE) < 0.4
    empty = int((~stay).sum())
    seen = np.zeros(SHAPE)
    for seed in range(draws):
        grown = grow_random(np.flatnonzero(stay), stay.size, k, np.random.default_rng(seed))
        new = mask_of(grown, SHAPE)
        assert (new & stay).sum() == stay.sum() and new.sum() == stay.sum() + k
        seen += new & ~stay
    p = k / empty
    assert np.abs(seen[~stay] / draws - p).max() < 5 * np.sqrt(p * (1 - p) / draws)


def exchange_once(seed=0, zeta=0.3):
    """A trained-looking layer before and after one exchange: (state, masks, weights before)."""
    rng = np.random.default_rng(seed)
    network = mlp((10, 10, 10, 3), rng)
    state = state_of(network, rng.standard_normal((8, 10)), rng.integers(0, 3, 8), seed=seed)
    method = SET(0.6, zeta=zeta)
    method.setup(state)
    for _ in range(3):
        descend(state)
        state.optimizer.step(network, 0.1)
    state.step = state.steps_per_epoch
    before = network.masks(), {n: x.weight.dense().copy() for n, x in network.prunable().items()}
    method.after_update(state)
    return state, *before


def test_an_exchange_keeps_every_layers_count_and_starts_new_entries_at_zero():
    state, masks, weights = exchange_once()
    changed = 0
    for name, layer in state.network.prunable().items():
        mask, now = layer.weight.mask, layer.weight.dense()
        assert mask.sum() == masks[name].sum()
        entered = mask & ~masks[name]
        changed += entered.sum()
        assert (now[entered] == 0).all() and (now[~mask] == 0).all()
        np.testing.assert_array_equal(now[mask & masks[name]], weights[name][mask & masks[name]])
        slot = state.optimizer.slots[f"{name}.weight"]["u"]
        assert (slot[~mask] == 0).all() and (slot[entered] == 0).all()
        assert (slot[mask & ~entered] != 0).any()
    assert changed > 10


def test_growing_leaves_the_function_unchanged():
    state, masks, _ = exchange_once()
    network = state.network
    value = descend(state)
    without = network.copy()
    for name, layer in without.prunable().items():
        layer.weight.rewire(layer.weight.mask & masks[name])
    assert value == descend(state_of(without, state.train_x, state.train_t))


def test_layers_alike_in_everything_grow_apart():
    rng = np.random.default_rng(0)
    weight, mask = rng.standard_normal((10, 10)), rng.random((10, 10)) < 0.4
    network = chain(weight, weight)
    state = state_of(network, np.zeros((2, 10)), np.zeros(2, dtype=int))
    state.rewire({"fc1": mask, "fc2": mask})
    first, second = (
        mask_of(SET(0.6).rewired(n, layer, state), mask.shape) for n, layer in network.prunable().items()
    )
    assert (first != second).any()
    stay = spread(survivors(weight[mask], 0.3), mask)
    assert (first & stay == stay).all() and (second & stay == stay).all()


def test_no_share_is_static_training():
    state, masks, _ = exchange_once(zeta=0.0)
    for name, mask in state.network.masks().items():
        np.testing.assert_array_equal(mask, masks[name])


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_it_exchanges_after_every_epoch_but_the_last(epochs):
    data = clusters(np.random.default_rng(0), (6,), train=20)
    network = mlp((6, 8, 3), np.random.default_rng(1), dtype=np.float32)
    steps, last = [], []

    def watch(state):
        if state.step == 0 or state.topology > last[-1]:
            steps.append(state.step)
        last.append(state.topology)

    train(network, data, SET(0.5), epochs=epochs, batch=8, progress=watch)
    assert steps == [3 * e for e in range(epochs)]  # 0 is the first mask


def test_first_masks_follow_erdos_renyi():
    network = mlp((100, 50, 40, 10), np.random.default_rng(0))
    method = SET(0.9)
    method.setup(state_of(network, np.zeros((2, 100)), np.zeros(2, dtype=int)))
    raw = {n: sum(x.weight.shape) for n, x in network.prunable().items()}  # (n_in + n_out)/(n_in n_out) n_l
    kept = {n: x.weight.kept for n, x in network.prunable().items()}
    total = kept_count(7400, 0.9)
    assert sum(kept.values()) == total and method.allocation == ErdosRenyi()
    for name, share in raw.items():
        assert abs(kept[name] - total * share / sum(raw.values())) < 1


@pytest.mark.parametrize("zeta", [-0.1, 1.5, float("nan"), True, "0.3"])
def test_the_share_is_checked(zeta):
    with pytest.raises(UsageError):
        SET(zeta=zeta)
