"""Alignment: planted permutations are found, outputs do not change, masks move as weights do."""

from itertools import permutations

import numpy as np
import pytest

from minisparse.errors import ShapeError
from minisparse.methods.dense import Dense
from minisparse.methods.lottery.alignment import (
    agreement,
    assignment,
    correlations,
    identity,
    match_activations,
    match_weights,
    permuted,
    permuted_masks,
)
from minisparse.nn.models import make
from minisparse.sparsity.groups import groups_of
from minisparse.training.run import train
from tests.methods.problems import clusters, conv_net, mlp

MODELS = {"mlp:12-9-7-10": (12,), "lenet-5": (1, 8, 8), "vgg-small": (1, 8, 8), "resnet-20:0.25": (3, 8, 8)}


def network_of(name, seed=0):
    """float64, with biases and BatchNorm parameters that are no longer those of the beginning."""
    network = make(name, MODELS[name], 10, seed=seed).astype(np.float64)
    rng = np.random.default_rng(seed)
    for p in network.params().values():
        if p.value.ndim == 1:
            p.value[...] = 0.2 + rng.random(p.value.shape)
    for array in network.buffers().values():
        array[...] = 0.2 + rng.random(array.shape)
    return network


def planted(network, seed=1):
    rng = np.random.default_rng(seed)
    return {group.name: rng.permutation(len(group)) for group in groups_of(network)}


@pytest.mark.parametrize("name", MODELS)
def test_a_permuted_network_has_the_same_outputs_and_other_weights(name):
    network = network_of(name)
    other = permuted(network, planted(network))
    x = np.random.default_rng(2).standard_normal((5, *MODELS[name]))
    np.testing.assert_allclose(other.forward(x), network.forward(x), rtol=1e-11, atol=1e-12)
    assert any((a != b).any() for a, b in zip(network.state().values(), other.state().values(), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_weight_matching_finds_the_planted_permutation(name):
    a = network_of(name)
    found = planted(a)
    b = permuted(a, found)
    answer = match_weights(a, b, np.random.default_rng(0))
    assert answer.keys() == found.keys()
    for key, source in found.items():
        np.testing.assert_array_equal(answer[key], source)
    assert agreement(permuted(a, answer), b) == pytest.approx(agreement(a, a))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_activation_matching_finds_the_planted_permutation(kind):
    rng = np.random.default_rng(3)
    a = mlp((8, 7, 6, 3), rng, activation="tanh") if kind == "mlp" else conv_net(rng)
    found = planted(a)
    b = permuted(a, found)
    answer = match_activations(a, b, rng.standard_normal((60, *a.input_shape)))
    for key, source in found.items():
        np.testing.assert_array_equal(answer[key], source)


def test_the_direction_is_from_the_first_to_the_second():
    a = mlp((5, 3, 2), np.random.default_rng(0))
    source = np.array([2, 0, 1])
    b = permuted(a, {"fc1": source})
    (a1, a2), (b1, b2) = ([x.weight.dense() for x in n.prunable().values()] for n in (a, b))
    np.testing.assert_array_equal(b1, a1[source])
    np.testing.assert_array_equal(b2, a2[:, source])
    np.testing.assert_array_equal(match_weights(a, b, np.random.default_rng(0))["fc1"], source)
    np.testing.assert_array_equal(match_weights(b, a, np.random.default_rng(0))["fc1"], np.argsort(source))


@pytest.mark.parametrize("name", MODELS)
def test_masks_move_with_the_weights(name):
    network, rng = network_of(name), np.random.default_rng(4)
    masks = {n: rng.random(x.weight.shape) < 0.4 for n, x in network.prunable().items()}
    moves = planted(network)
    sparse = network.copy()
    for n, layer in sparse.prunable().items():
        layer.weight.rewire(masks[n])
    moved, dense = permuted_masks(network, masks, moves), permuted(network, moves)
    both = permuted(sparse, moves)
    for n, mask in moved.items():
        np.testing.assert_array_equal(both.masks()[n], mask)
        np.testing.assert_array_equal(
            both.prunable()[n].weight.dense(), dense.prunable()[n].weight.dense() * mask
        )
        assert sorted(mask.sum(axis=1)) == sorted(masks[n].sum(axis=1))
    x = rng.standard_normal((4, *MODELS[name]))
    np.testing.assert_allclose(both.forward(x), sparse.forward(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_training_a_permuted_twin_is_training_up_to_the_names_of_units(kind):
    rng = np.random.default_rng(5)
    a = mlp((6, 8, 3), rng) if kind == "mlp" else conv_net(rng)
    masks = {n: rng.random(x.weight.shape) < 0.6 for n, x in a.prunable().items()}
    moves, data = planted(a), clusters(rng, a.input_shape)
    b, moved = permuted(a, moves), permuted_masks(a, masks, moves)
    for network, own in ((a, masks), (b, moved)):
        for n, layer in network.prunable().items():
            layer.weight.rewire(own[n])
    first, second = (train(n, data, Dense(), epochs=2, batch=16).network for n in (a, b))
    again = permuted(first, moves)
    for key, value in second.state().items():
        np.testing.assert_allclose(value, again.state()[key], rtol=1e-7, atol=1e-9)


def test_matching_never_lowers_the_agreement():
    for name in ("lenet-5", "resnet-20:0.25"):
        a, b = network_of(name, 0), network_of(name, 10)
        after = agreement(permuted(a, match_weights(a, b, np.random.default_rng(0))), b)
        assert after > agreement(a, b)


def test_an_identity_changes_nothing_and_a_network_is_its_own_match():
    a = network_of("lenet-5")
    for key, value in permuted(a, identity(a)).state().items():
        np.testing.assert_array_equal(value, a.state()[key])
    for key, source in match_weights(a, a, np.random.default_rng(0)).items():
        np.testing.assert_array_equal(source, identity(a)[key])


def test_the_assignment_is_the_best_of_all_permutations():
    rng = np.random.default_rng(6)
    for _ in range(5):
        gain = rng.standard_normal((5, 5))
        best = max(permutations(range(5)), key=lambda p: sum(gain[i, j] for i, j in enumerate(p)))
        assert tuple(assignment(gain)) == best


def test_correlations_are_those_of_numpy_and_0_for_a_constant_unit():
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((3, 50)), rng.standard_normal((4, 50))
    np.testing.assert_allclose(correlations(a, b), np.corrcoef(a, b)[:3, 3:], atol=1e-12)
    a[1] = 2.0
    assert not correlations(a, b)[1].any()


def test_networks_of_other_shapes_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError, match="cannot be aligned"):
        match_weights(mlp((6, 8, 3), rng), mlp((6, 9, 3), rng), rng)
