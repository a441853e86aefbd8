"""Controls in methods: before training at initialisation, at the last level of a gradual schedule, in IMP."""

import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.methods.base import Scored
from minisparse.methods.initial.snip import SNIP
from minisparse.methods.initial.synflow import SynFlow, synaptic_flow
from minisparse.methods.learned.movement import Movement
from minisparse.methods.lottery.imp import IMP
from minisparse.methods.random import Random
from minisparse.methods.registry import catalogue
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.optim import SGD
from minisparse.sparsity import (
    Invert,
    OneShot,
    Reinit,
    Rounds,
    Row,
    Shuffle,
    Uniform,
    Untouched,
    combine,
    kept_count,
)
from minisparse.training.run import train
from tests.methods.problems import clusters, conv_net, mlp, state_of

SCORED = sorted(
    name
    for name, entry in catalogue().items()
    if issubclass(entry.cls, Scored)
    and entry.cls.settles
    and entry.family in ("initial", "saliency", "control")
)


def network_of(kind="mlp", seed=0):
    rng = np.random.default_rng(seed)
    return conv_net(rng, np.float32) if kind == "conv" else mlp((8, 12, 10, 3), rng, dtype=np.float32)


def pruned(method, network=None):
    """A network as `method` leaves it before the first step, and its dense original."""
    network = network or network_of()
    data = clusters(np.random.default_rng(2), network.input_shape)
    copy = network.copy()
    state = state_of(copy, data.train_x, data.train_y)
    method.setup(state)
    return copy, network


def counts(network):
    return [int(m.sum()) for m in network.masks().values()]


def values(network):
    return {name: layer.weight.dense() for name, layer in network.prunable().items()}


@pytest.mark.parametrize("name", SCORED)
def test_before_training_counts_per_layer_stay_and_the_rest_is_as_the_control_says(name):
    make = lambda control: catalogue()[name].cls(0.6, OneShot(0.0), control=control)  # noqa: E731
    plain, dense = pruned(make(Untouched()))
    moved, _ = pruned(make(Shuffle()))
    fresh, _ = pruned(make(Reinit()))
    assert counts(moved) == counts(plain) == counts(fresh)
    whole = values(dense)
    assert any((m != plain.masks()[key]).any() for key, m in moved.masks().items())
    for key, mask in plain.masks().items():
        # weights that came back have the value they were drawn with
        np.testing.assert_array_equal(values(moved)[key], whole[key] * moved.masks()[key])
        np.testing.assert_array_equal(fresh.masks()[key], mask)
        assert (values(fresh)[key] != whole[key])[mask].all()


def test_inverted_magnitude_keeps_the_smallest_weights():
    inverted, dense = pruned(Magnitude(0.7, OneShot(0.0), Uniform(), control=Invert()))
    for name, mask in inverted.masks().items():
        size = np.abs(values(dense)[name])
        assert size[mask].max() < size[~mask].min()


def test_an_inverted_half_is_the_complement():
    plain, _ = pruned(SNIP(0.5, allocation=Uniform()))
    inverted, _ = pruned(SNIP(0.5, allocation=Uniform(), control=Invert()))
    for name, mask in plain.masks().items():
        np.testing.assert_array_equal(inverted.masks()[name], ~mask)


def test_inversion_acts_in_the_first_of_many_rounds():
    # of 100 rounds the first takes the weight of largest flow; inverted at the last alone it would be there
    inverted, dense = pruned(SynFlow(0.5, control=Invert()))
    flows = synaptic_flow(dense)
    name = max(flows, key=lambda key: flows[key].max())
    assert not inverted.masks()[name].ravel()[flows[name].argmax()]
    assert sum(counts(inverted)) == sum(counts(pruned(SynFlow(0.5))[0]))


def test_rows_are_shuffled_as_rows():
    moved, _ = pruned(Magnitude(0.5, OneShot(0.0), Uniform(), Row(), Shuffle()))
    plain, _ = pruned(Magnitude(0.5, OneShot(0.0), Uniform(), Row()))
    assert counts(moved) == counts(plain)
    for mask in moved.masks().values():
        assert (mask == mask[:, :1]).all()


def run(method, network=None, **settings):
    network = network or network_of()
    data = clusters(np.random.default_rng(2), network.input_shape)
    return train(network, data, method, epochs=4, batch=16, optimizer=SGD(0.9), **settings)


def test_a_gradual_schedule_is_controlled_at_its_last_level_and_frozen_then():
    # levels at steps 3, 6 and 9 of 12
    method = Magnitude(0.7, Rounds(3, 0.25, 0.75), control=combine(Shuffle(), Reinit()))
    seen = {}

    def watch(state):
        seen[state.step] = (state.network.masks(), dict(values(state.network.copy())))
        if state.step == 9:
            assert not state.optimizer.slots

    run(method, progress=watch)
    plain = {}
    run(Magnitude(0.7, Rounds(3, 0.25, 0.75)), progress=lambda s: plain.update({s.step: s.network.masks()}))
    for step in range(9):
        for name, mask in plain[step].items():
            np.testing.assert_array_equal(seen[step][0][name], mask)
    assert any((seen[9][0][name] != mask).any() for name, mask in plain[9].items())
    for name, mask in plain[9].items():
        assert seen[9][0][name].sum() == mask.sum()
        np.testing.assert_array_equal(seen[12][0][name], seen[9][0][name])


def test_a_weight_that_comes_back_has_its_value_of_step_0():
    network, seen = network_of(), {}
    run(
        Magnitude(0.6, OneShot(0.5), control=Shuffle()),
        network,
        progress=lambda s: seen.update({s.step: (s.network.masks(), values(s.network.copy()))}),
    )
    before = {}
    run(
        Magnitude(0.6, OneShot(0.5)),
        network,
        progress=lambda s: before.update({s.step: (s.network.masks(), values(s.network.copy()))}),
    )
    for name, first in values(network).items():
        old, new = before[6][0][name], seen[6][0][name]
        assert (new & ~old).any()
        np.testing.assert_array_equal(seen[6][1][name][new & old], before[6][1][name][new & old])
        np.testing.assert_array_equal(seen[6][1][name][new & ~old], first[new & ~old])


@pytest.mark.parametrize("rewind", [0.0, 0.25])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_a_ticket_is_found_untouched_and_controlled_before_its_last_training(kind, rewind):
    network = network_of(kind)
    data = clusters(np.random.default_rng(2), network.input_shape)
    seen = {}
    for control in (Untouched(), Reinit(), Shuffle()):
        snapshots = seen[control] = {}
        method = IMP(0.75, rounds=2, rewind=rewind, control=control)
        train(
            network, data, method, epochs=4, batch=16,
            progress=lambda s, kept=snapshots: kept.update({s.step: (s.network.masks(), s.network.state())}),
        )  # fmt: skip
    k = round(rewind * 12)
    last = 12 + 12 - k
    plain = seen[Untouched()]
    for control, snapshots in seen.items():
        for step in range(last):
            for key, value in plain[step][1].items():
                np.testing.assert_array_equal(snapshots[step][1][key], value)
        masks, state = snapshots[last]
        for name, mask in plain[last][0].items():
            assert masks[name].sum() == mask.sum()
            early, now = plain[k][1][f"{name}.weight"], state[f"{name}.weight"]
            if control == Reinit():
                np.testing.assert_array_equal(masks[name], mask)
                assert (now != early)[mask].all()
            else:  # exactly the weights of step k, also where the shuffle brought them back
                np.testing.assert_array_equal(now, early * masks[name])
        assert sum(int(m.sum()) for m in masks.values()) == kept_count(
            sum(m.size for m in masks.values()), 0.75
        )


def test_an_inverted_one_shot_ticket_keeps_the_smallest_trained_weights():
    network = network_of()
    data, seen = clusters(np.random.default_rng(2), network.input_shape), {}
    method = IMP(0.5, rounds=1, control=Invert(), allocation=Uniform())
    train(
        network, data, method, epochs=4, batch=16, progress=lambda s: seen.update({s.step: s.network.masks()})
    )
    plain = {}
    method = IMP(0.5, rounds=1, allocation=Uniform())
    train(
        network,
        data,
        method,
        epochs=4,
        batch=16,
        progress=lambda s: plain.update({s.step: s.network.masks()}),
    )
    for name, mask in plain[12].items():
        np.testing.assert_array_equal(seen[12][name], ~mask)


def test_controlled_runs_keep_to_the_seed_and_differ_between_seeds():
    method = Random(0.7, control=combine(Shuffle(), Reinit()))
    a, b, c = (run(method, seed=s).network.state() for s in (1, 1, 2))
    for key, value in a.items():
        np.testing.assert_array_equal(b[key], value)
    assert any((c[key] != value).any() for key, value in a.items())


def test_a_method_that_never_settles_refuses():
    with pytest.raises(UsageError, match="chosen anew"):
        Movement(control=Reinit())
