"""Ranked units: counts against all counts there are, the masked network against the smaller one."""

from dataclasses import dataclass, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UsageError
from minisparse.methods.base import Scored
from minisparse.methods.dense import Dense
from minisparse.methods.registry import catalogue
from minisparse.methods.structured.filter_norm import FilterNorm, unit_norms
from minisparse.methods.structured.ranked import (
    Ranked,
    lowest_removed,
    masks_without,
    nearest_removed,
    normalized,
    present,
    remove,
)
from minisparse.nn.lr import Constant
from minisparse.nn.optim import Adam
from minisparse.sparsity import Cubic, Explicit, Global, OneShot, Row, Uniform, kept_count
from minisparse.sparsity.groups import groups_of
from minisparse.sparsity.surgery import remove_dead
from minisparse.training.run import train
from tests.contracts.test_every_method import CASES
from tests.methods.problems import clusters, conv_net, mlp, state_of

NETWORKS = {"mlp": lambda rng: mlp((8, 14, 10, 3), rng), "conv": lambda rng: conv_net(rng, width=6)}
SETTINGS = ("sparsity", "schedule", "pattern")


def kept(network):
    return sum(layer.weight.kept for layer in network.prunable().values())


def size(network):
    return sum(layer.weight.size for layer in network.prunable().values())


def parameters(network):
    return sum(p.value.size for p in network.params().values())


def live(scores, network):
    return {group: present(network, group) for group in scores}


def state_for(network):
    x = np.random.default_rng(1).standard_normal((12, *network.input_shape))
    return state_of(network, x, np.arange(12) % 3)


@given(st.sampled_from(list(NETWORKS)), st.integers(0, 2**32 - 1), st.floats(0, 0.97), st.booleans())
def test_the_weights_left_are_as_near_as_units_can_make_them(kind, seed, sparsity, uniform):
    rng = np.random.default_rng(seed)
    network, rule = NETWORKS[kind](rng), Uniform() if uniform else Global()
    scores = {group: rng.integers(0, 4, len(group)).astype(float) for group in groups_of(network)}
    wanted = kept_count(size(network), sparsity)
    found = masks_without(network, nearest_removed(network, scores, wanted, rule))
    units = sum(len(group) for group in scores)
    everything = live(scores, network)
    possible = [
        sum(m.sum() for m in masks_without(network, lowest_removed(scores, everything, r, rule)).values())
        for r in range(units)
    ]
    left = sum(m.sum() for m in found.values())
    assert abs(left - wanted) == min(abs(count - wanted) for count in possible)


@given(st.integers(0, 2**32 - 1), st.integers(0, 23))
def test_units_of_lowest_score_leave_and_of_ties_the_later_ones(seed, count):
    rng = np.random.default_rng(seed)
    network = mlp((8, 14, 10, 3), rng)
    scores = {group: rng.integers(0, 5, len(group)).astype(float) for group in groups_of(network)}
    keep = lowest_removed(scores, live(scores, network), count, Global())
    flat = np.concatenate(list(scores.values()))
    stay = set(np.argsort(-flat, kind="stable")[: 24 - count])
    stay |= {int(np.argmax(flat[:14])), 14 + int(np.argmax(flat[14:]))}  # one unit of each group stays
    assert set(np.flatnonzero(np.concatenate(list(keep.values())))) == stay


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.8])
def test_share_of_units_is_the_share_of_every_layer(sparsity):
    network = mlp((8, 14, 10, 3), np.random.default_rng(0))
    state = state_for(network)
    FilterNorm(sparsity, schedule=OneShot(0.0), share_of="units").setup(state)
    for group in groups_of(network):
        assert present(network, group).sum() in (
            int(np.floor((1 - sparsity) * len(group))),
            int(np.ceil((1 - sparsity) * len(group))),
        )
    assert sum(present(network, g).sum() for g in groups_of(network)) == kept_count(24, sparsity)


def test_groups_can_be_given_their_own_shares():
    network = mlp((8, 14, 10, 3), np.random.default_rng(0))
    rule = Explicit({"fc1": 0.5, "fc2": 0.2})
    FilterNorm(0.375, schedule=OneShot(0.0), share_of="units", allocation=rule).setup(state_for(network))
    assert [int(present(network, group).sum()) for group in groups_of(network)] == [7, 8]
    with pytest.raises(UsageError, match="share_of units"):
        FilterNorm(0.375, allocation=rule)


def test_one_unit_of_each_group_stays_whatever_is_asked():
    network = conv_net(np.random.default_rng(0))
    state = state_for(network)
    FilterNorm(0.999, schedule=OneShot(0.0), allocation=Global()).setup(state)
    assert [int(present(network, group).sum()) for group in groups_of(network)] == [1, 1]
    assert np.isfinite(network.forward(state.train_x)).all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_masked_network_is_the_smaller_network(kind):
    """Weight for weight: the same numbers kept, the same outputs, and no unit more or less."""
    rng = np.random.default_rng(5)
    network = NETWORKS[kind](rng)
    data = clusters(np.random.default_rng(2), network.input_shape)
    run = train(network, data, FilterNorm(0.6, schedule=OneShot(0.5)), epochs=4, batch=16, optimizer=Adam())
    small = remove_dead(run.network)
    units = [int(present(run.network, group).sum()) for group in groups_of(run.network)]
    assert [len(group) for group in groups_of(small)] == units
    assert size(small) == kept(small) == kept(run.network) < 0.5 * size(network)
    x = rng.standard_normal((6, *network.input_shape))
    np.testing.assert_allclose(small.forward(x), run.network.forward(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", NETWORKS)
def test_training_on_and_cutting_out_commute(kind):
    """The masked and the smaller network take the same steps, BatchNorm in training mode included."""
    network = NETWORKS[kind](np.random.default_rng(5))
    data = clusters(np.random.default_rng(2), network.input_shape)
    FilterNorm(0.6, schedule=OneShot(0.0)).setup(state_for(network))
    settings = {"epochs": 3, "batch": 16, "rate": Constant(0.05)}
    masked, small = (train(n, data, Dense(), **settings).network for n in (network, remove_dead(network)))
    x = np.random.default_rng(0).standard_normal((6, *network.input_shape))
    assert parameters(small) < parameters(masked)
    np.testing.assert_allclose(small.forward(x), masked.forward(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", NETWORKS)
def test_removing_takes_rows_columns_biases_scales_and_slots(kind):
    rng = np.random.default_rng(3)
    network = NETWORKS[kind](rng)
    state = state_for(network)
    state.optimizer = Adam()
    for p in network.params().values():
        p.grad[...] = rng.standard_normal(p.value.shape)
    for layer in network.prunable().values():
        layer.weight.param.grad[~layer.weight.mask] = 0
    state.optimizer.step(network, 0.01)
    before = network.copy()
    keep = {group: rng.random(len(group)) < 0.5 for group in groups_of(network)}
    remove(state, keep)
    gone = {}
    for group, stays in keep.items():
        for role in ("producers", "norms"):
            for name, index in getattr(group, role):
                gone.setdefault(name, []).extend(index[~stays].ravel())
    layers = dict(network.walk())
    for name, old in before.params().items():
        layer, key = name.rsplit(".", 1)
        now, slots = layers[layer].params()[key].value, state.optimizer.slots[name]
        left = np.setdiff1d(np.arange(len(now)), gone.get(layer, []))
        lost = np.array(gone.get(layer, []), dtype=int)
        assert not now[lost].any() and not any(slot[lost].any() for slot in slots.values())
        if key == "bias" or layer not in network.prunable():
            np.testing.assert_array_equal(now[left], old.value[left])
    assert {g.name: present(network, g).tolist() for g in keep} == {
        g.name: k.tolist() for g, k in keep.items()
    }


def test_levels_only_ever_remove():
    network = mlp((8, 14, 10, 3), np.random.default_rng(0))
    data, seen = clusters(np.random.default_rng(2), (8,)), []
    method = FilterNorm(0.7, schedule=Cubic(0.0, 0.8, every=2), allocation=Global())
    train(
        network, data, method, epochs=4, batch=16, progress=lambda state: seen.append(state.network.masks())
    )
    counts = [sum(m.sum() for m in masks.values()) for masks in seen]
    assert len(set(counts)) > 3
    for earlier, later in zip(seen, seen[1:], strict=False):
        assert all((later[name] <= earlier[name]).all() for name in earlier)


def test_normalized_scores_have_mean_one_or_are_all_zero():
    assert normalized(np.array([1.0, 3.0])).tolist() == [0.5, 1.5]
    assert normalized(np.zeros(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("settings", [{"share_of": "rows"}, {"share_of": 1}, {"sparsity": 1.0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError):
        FilterNorm(**settings)


def test_a_new_criterion_is_one_function():
    @dataclass(frozen=True)
    class Last(Ranked):
        """Keep the units of highest index."""

        def score(self, state):
            return {group: np.arange(len(group)) for group in groups_of(state.network)}

    network = mlp((4, 6, 3), np.random.default_rng(0))
    Last(0.5, schedule=OneShot(0.0), share_of="units").setup(state_for(network))
    (group,) = groups_of(network)
    assert present(network, group).tolist() == [False] * 3 + [True] * 3
    assert not unit_norms(network, group)[:3].any()


ROWS = [
    name
    for name, entry in catalogue().items()
    if issubclass(entry.cls, Scored) and all(f in {g.name for g in fields(entry.cls)} for f in SETTINGS)
]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_rows_that_any_method_masks_can_be_cut_out(name, kind):
    """A masked row leaves its bias behind: constants are folded, or brought together at a border."""
    network = NETWORKS[kind](np.random.default_rng(5))
    given_ = CASES[name].settings if name in CASES else {}
    method = catalogue()[name].cls(**(given_ | {"sparsity": 0.6, "pattern": Row()}))
    data = clusters(np.random.default_rng(2), network.input_shape)
    run = train(network, data, method, epochs=4, batch=16)
    small = remove_dead(run.network)
    x = np.random.default_rng(0).standard_normal((6, *network.input_shape))
    np.testing.assert_allclose(small.forward(x), run.network.forward(x), rtol=0, atol=1e-11)
    assert parameters(small) < parameters(network)
