"""Scratch: what the second training starts from, its pace, and the arms of the protocol."""

import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.methods.dense import Dense
from minisparse.methods.lottery.scratch import Scratch
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.lr import Cosine
from minisparse.sparsity import Reinit, Shuffle, Untouched
from minisparse.training.run import train
from tests.methods.problems import clusters, conv_net, mlp

HORIZON = 12
RATE = Cosine(0.1)


def follow(method, kind="mlp"):
    """(run, snapshots by step): masks, state, clock, lr."""
    rng = np.random.default_rng(0)
    network = conv_net(rng, np.float32) if kind == "conv" else mlp((6, 8, 3), rng, dtype=np.float32)
    data, seen = clusters(rng, network.input_shape), {}

    def watch(state):
        seen[state.step] = (state.network.masks(), state.network.state(), state.clock, state.lr)

    return train(network, data, method, epochs=4, batch=16, rate=RATE, progress=watch), seen


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_lottery_is_the_mask_of_gradual_pruning_on_the_first_weights(kind):
    run, seen = follow(Scratch(0.7, control=Untouched()), kind)
    _, during = follow(Magnitude(0.7), kind)
    assert run.steps == 2 * HORIZON
    for step in range(HORIZON):
        for key, value in during[step][1].items():
            np.testing.assert_array_equal(seen[step][1][key], value)
    masks, state, clock, lr = seen[HORIZON]
    assert clock == 0 and lr == RATE.at(0, HORIZON)
    for key, value in seen[0][1].items():
        name = key.removesuffix(".weight")
        expected = value * during[HORIZON][0][name] if name in masks else value
        np.testing.assert_array_equal(state[key], expected)
    for step in range(HORIZON, 2 * HORIZON + 1):
        for name, mask in during[HORIZON][0].items():
            np.testing.assert_array_equal(seen[step][0][name], mask)


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_a_longer_second_training_goes_through_the_same_rates_more_slowly(budget):
    run, seen = follow(Scratch(0.7, budget=budget))
    assert run.steps == (1 + budget) * HORIZON
    for t in range(budget * HORIZON):
        assert seen[HORIZON + t][2] == t // budget
        assert seen[HORIZON + t][3] == RATE.at(t // budget, HORIZON)


def test_scratch_keeps_the_mask_and_draws_the_weights_augmented_or_not():
    plain, wide = (follow(Scratch(0.7, control=Reinit(a)))[1][HORIZON] for a in (False, True))
    lottery = follow(Scratch(0.7, control=Untouched()))[1][HORIZON]
    for name, mask in lottery[0].items():
        key = f"{name}.weight"
        np.testing.assert_array_equal(plain[0][name], mask)
        assert (plain[1][key] != lottery[1][key])[mask].all()
        np.testing.assert_allclose(wide[1][key], plain[1][key] / np.sqrt(mask.mean()), rtol=1e-6)


def test_a_shuffled_lottery_has_the_first_weights_where_its_new_mask_is():
    _, seen = follow(Scratch(0.7, control=Shuffle()))
    lottery = follow(Scratch(0.7, control=Untouched()))[1][HORIZON][0]
    masks, state, _, _ = seen[HORIZON]
    assert any((masks[name] != lottery[name]).any() for name in masks)
    for name, mask in masks.items():
        assert mask.sum() == lottery[name].sum()
        np.testing.assert_array_equal(state[f"{name}.weight"], seen[0][1][f"{name}.weight"] * mask)


def test_the_optimiser_starts_anew():
    rng = np.random.default_rng(0)
    network = mlp((6, 8, 3), rng, dtype=np.float32)
    slots = {}
    train(
        network, clusters(rng, (6,)), Scratch(0.7), epochs=4, batch=16,
        progress=lambda s: slots.update({s.step: len(s.optimizer.slots)}),
    )  # fmt: skip
    assert slots[HORIZON - 1] and slots[HORIZON] == 0 and slots[HORIZON + 1]


def test_nothing_to_prune_is_one_dense_training():
    run, _ = follow(Scratch(0.0))
    dense, _ = follow(Dense())
    assert run.steps == HORIZON
    for key, value in dense.network.state().items():
        np.testing.assert_array_equal(run.network.state()[key], value)


@pytest.mark.parametrize("bad", [0, 1.5, True])
def test_the_budget_is_whole(bad):
    with pytest.raises(UsageError, match="budget"):
        Scratch(budget=bad)
