"""Surgery: the smaller network computes the same, on random networks and in closed form."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from minisparse.errors import UsageError
from minisparse.nn import (
    Activation,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaskedWeight,
    Network,
    Window,
)
from minisparse.nn import models as zoo
from minisparse.sparsity import NM, Block, LayerShape
from minisparse.sparsity.groups import groups_of
from minisparse.sparsity.surgery import removable, remove_dead, shrink
from tests.architectures import EVERYTHING, random_network
from tests.reliability.counts import examples
from tests.strategies import SETTINGS, generators

SMOOTH = replace(EVERYTHING, activations=("identity", "tanh", "softplus"), pools=("avg",))


def parameters(network: Network) -> int:
    return sum(p.value.size for p in network.params().values())


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(np.abs(b).max())))


def mask_out(network: Network, group, unit: int, what: str) -> None:
    """Take one unit's rows, columns or scales away."""
    layers = dict(network.walk())
    for name, index in getattr(group, what):
        if what == "norms":
            layers[name].gamma.value[index[unit]] = 0
            continue
        mask = layers[name].weight.mask
        mask[(index[unit],) if what == "producers" else (slice(None), index[unit])] = False
        layers[name].weight.rewire(mask)


def damaged(rng: np.random.Generator, network: Network) -> Network:
    """A third of the units without rows, without columns or without scales."""
    for group in groups_of(network):
        for unit in np.flatnonzero(rng.random(len(group)) < 0.35):
            mask_out(network, group, unit, rng.choice(["producers", "consumers", "norms"]))
    return network


@settings(SETTINGS, max_examples=examples(60, 200, 2_000))
@given(generators)
def test_removing_dead_units_changes_no_output(rng):
    network = damaged(rng, random_network(rng))
    before = network.state()
    small = remove_dead(network)
    x = rng.standard_normal((4, *network.input_shape))
    close(small.forward(x), network.forward(x))
    assert all((before[key] == value).all() for key, value in network.state().items())
    # nothing is left to remove, but the one unit that stays of each group
    for group, free in removable(small, groups_of(small)).items():
        assert not free.any() or len(group) == 1
    assert parameters(remove_dead(small)) == parameters(small) <= parameters(network) + biases(small)


def biases(network: Network) -> int:
    """A constant may need a bias where there was none."""
    return sum(layer.weight.shape[0] for layer in network.prunable().values())


def without(network: Network, keep, x: np.ndarray) -> Network:
    """The oracle: columns of removed units are 0, and what was the same for all x and positions is a bias."""
    network.forward(x)
    read = {name: layer.rows for name, layer in network.prunable().items()}
    changed = network.copy()
    layers, original = changed.prunable(), network.prunable()
    for group, kept in keep.items():
        for name, columns in group.consumers:
            for unit in np.flatnonzero(~kept):
                at = columns[unit]
                adds = read[name][..., at] @ original[name].weight.dense()[:, at].T
                layers[name].weight.param.value[:, at] = 0
                if np.ptp(adds, axis=(0, 1)).max() < 1e-10:
                    layer = layers[name]
                    old = 0 if layer.bias is None else layer.bias.value
                    layer.bias = Linear(layer.weight, old + adds[0, 0]).bias
    return changed


@SETTINGS
@given(generators)
def test_any_units_can_be_cut_out(rng):
    network = damaged(rng, random_network(rng, SMOOTH))
    keep = {group: rng.random(len(group)) < 0.6 for group in groups_of(network)}
    for kept in keep.values():
        kept[rng.integers(kept.size)] = True
    small = shrink(network, keep)
    x = rng.standard_normal((5, *network.input_shape))
    close(small.forward(x), without(network, keep, x).forward(x), 1e-9)
    assert [len(g) for g in groups_of(small)] == [int(kept.sum()) for kept in keep.values()]


def test_the_constant_of_a_dead_neuron_goes_into_the_next_bias():
    first = Linear(MaskedWeight(np.array([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0]])), np.array([0.5, 2.0, 0.0]))
    second = Linear(MaskedWeight(np.array([[1.0, 10.0, 2.0]])))
    small = shrink(Network({"a": first, "act": Activation("relu"), "b": second}, (2,)))
    layers = small.prunable()
    assert layers["a"].weight.dense().tolist() == [[1.0, 2.0], [3.0, -1.0]]
    assert layers["a"].bias.value.tolist() == [0.5, 0.0]
    assert layers["b"].weight.dense().tolist() == [[1.0, 2.0]]
    assert layers["b"].bias.value.tolist() == [20.0]  # 10 relu(2)


def test_units_nobody_reads_leave_with_all_that_served_only_them():
    eye = [MaskedWeight(np.eye(3)) for _ in range(3)]
    layers = {f"fc{k}": Linear(weight) for k, weight in enumerate(eye)}
    network = Network({**layers, "out": Linear(MaskedWeight(np.array([[1.0, 0.0, 0.0]])))}, (3,))
    small = remove_dead(network)
    assert [layer.weight.shape for layer in small.prunable().values()] == [(1, 3), (1, 1), (1, 1), (1, 1)]


def two_convolutions(beta: list[float], padding: int) -> Network:
    """The first has dead channels wherever its scale is 0; the second reads them, padded or not."""
    rng = np.random.default_rng(0)
    width = len(beta)
    norm = BatchNorm2d(width)
    norm.gamma.set(np.array([1.0] + [0.0] * (width - 1)))
    norm.beta.set(np.array(beta))
    weights = [
        MaskedWeight(rng.standard_normal((o, 9 * c)), (o, c, 3, 3)) for o, c in ((width, 1), (2, width))
    ]
    layers = {
        "a": Conv2d(weights[0], Window.of(3, padding=1)),
        "bn": norm,
        "act": Activation("relu"),
        "b": Conv2d(weights[1], Window.of(3, padding=padding)),
        "flatten": Flatten(),
    }
    return Network(layers, (1, 5, 5)).astype(np.float64)


@pytest.mark.parametrize(
    ("beta", "padding", "free"),
    [
        ([0.1, 2.0, 0.0], 0, [False, True, True]),  # without padding any constant is a bias
        ([0.1, 2.0, 0.0], 1, [False, False, True]),  # with it only 0 is
        ([0.1, -2.0, 1.0], 1, [False, True, False]),  # relu(-2) = 0
    ],
)
def test_a_constant_meets_the_border_only_where_there_is_padding(beta, padding, free):
    network = two_convolutions(beta, padding)
    (group,) = groups_of(network)
    assert removable(network, (group,))[group].tolist() == free
    x = np.random.default_rng(1).standard_normal((3, 1, 5, 5))
    close(remove_dead(network).forward(x), network.forward(x))
    assert (remove_dead(network).prunable()["b"].bias is not None) == (padding == 0)


def test_constants_at_a_border_are_brought_together_in_one_unit():
    network = two_convolutions([0.1, 2.0, 3.0, 0.5], 1)
    reader = network.prunable()["b"].weight
    reader.rewire(np.arange(36) % 8 != 1 + np.zeros((2, 1), int))  # half of the taps of unit 1 are absent
    small = remove_dead(network)
    assert small.prunable()["b"].weight.mask.all()
    assert small.prunable()["a"].weight.shape[0] == 2
    w, v = network.prunable()["b"].weight.dense(), small.prunable()["b"].weight.dense()
    taps = w.reshape(2, 9, 4)
    np.testing.assert_allclose(
        v.reshape(2, 9, 2)[..., 1], taps[..., 1] + 1.5 * taps[..., 2] + 0.25 * taps[..., 3]
    )
    x = np.random.default_rng(1).standard_normal((3, 1, 5, 5))
    close(small.forward(x), network.forward(x))


def test_shares_of_inputs_and_outputs_multiply():
    network = zoo.make("conv-2", (1, 8, 8), 10)
    keep = {
        group: np.arange(len(group)) < len(group) // (2 if group.name == "conv1" else 4)
        for group in groups_of(network)
    }
    small = shrink(network, keep)
    before, after = network.prunable(), small.prunable()
    assert after["conv2"].weight.size * 8 == before["conv2"].weight.size
    assert after["conv2"].weight.geometry == (16, 32, 3, 3)
    assert after["conv1"].weight.size * 2 == before["conv1"].weight.size  # inputs stay


@pytest.mark.parametrize("pattern", [NM(1, 2), Block(2, 3)])
def test_masks_of_what_stays_are_kept(pattern):
    rng = np.random.default_rng(3)
    network = zoo.make("mlp:12-8-6-4", (12,), 4)
    for layer in network.prunable().values():
        shape = LayerShape(*layer.weight.geometry)
        mask = pattern.eligible(rng.random(shape.matrix), shape, np.ones(shape.matrix, bool))
        kept = rng.random(pattern.sizes(shape).shape) < 0.7
        layer.weight.rewire(mask & pattern.spread(kept, shape) if pattern.fixed_sparsity is None else mask)
    first, second = groups_of(network)
    keep = {first: np.arange(8) != 3, second: np.arange(6) % 2 == 0}
    small = shrink(network, keep)
    rows, columns = keep[second], keep[first]
    np.testing.assert_array_equal(small.masks()["fc2"], network.masks()["fc2"][rows][:, columns])
    np.testing.assert_array_equal(
        small.prunable()["fc2"].weight.dense(), network.prunable()["fc2"].weight.dense()[rows][:, columns]
    )


def test_inputs_and_outputs_are_never_removed():
    weight = MaskedWeight(np.array([[0.0, 1.0], [0.0, 2.0]]))
    network = Network(
        {"a": Linear(weight), "b": Linear(MaskedWeight(np.array([[1.0, 1.0], [0.0, 0.0]])))}, (2,)
    )
    small = remove_dead(network)
    assert small.input_shape == (2,) and small.outputs == 2
    assert [layer.weight.shape for layer in small.prunable().values()] == [(2, 2), (2, 2)]


def test_a_network_whose_outputs_are_constant_keeps_one_unit_a_layer():
    network = Network(
        {"a": Linear(MaskedWeight(np.zeros((3, 2))), np.ones(3)), "b": Linear(MaskedWeight(np.ones((2, 3))))},
        (2,),
    )
    small = remove_dead(network)
    assert [layer.weight.shape for layer in small.prunable().values()] == [(1, 2), (2, 1)]
    assert small.forward(np.ones((1, 2))).tolist() == [[3.0, 3.0]]


MODELS = {
    "lenet-300-100": (1, 28, 28),
    "lenet-5": (1, 28, 28),
    "resnet-20:0.25": (3, 16, 16),
    "vgg-small": (1, 8, 8),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_become_smaller_and_compute_the_same(name):
    """Half of the filters of every layer masked, biases and shifts as training might leave them."""
    rng = np.random.default_rng(0)
    network = zoo.make(name, MODELS[name], 10)
    for key, p in network.params().items():
        if key.endswith("bias"):
            p.value[...] = 0.1 * rng.standard_normal(p.value.shape)
    for layer in list(network.prunable().values())[:-1]:
        mask = layer.weight.mask
        mask[::2] = False
        layer.weight.rewire(mask)
    small = remove_dead(network)
    assert small.dtype == np.float32 and parameters(small) < 0.75 * parameters(network)
    x = rng.standard_normal((4, *network.input_shape)).astype(np.float32)
    close(small.forward(x), network.forward(x), 1e-5)
    exact, twin = remove_dead(network.astype(np.float64)), network.astype(np.float64)
    close(exact.forward(x.astype(np.float64)), twin.forward(x.astype(np.float64)))


def test_groups_and_masks_that_do_not_fit_are_refused():
    network, other = zoo.make("mlp:6-5-4", (6,), 4), zoo.make("mlp:6-7-4", (6,), 4)
    (group,), (foreign,) = groups_of(network), groups_of(other)
    for keep, message in (
        ({foreign: np.ones(7, bool)}, "does not belong"),
        ({group: np.zeros(5, bool)}, "at least 1"),
        ({group: np.ones(4, bool)}, "expected bool"),
        ({group: np.ones(5)}, "expected bool"),
    ):
        with pytest.raises(UsageError, match=message):
            shrink(network, keep)
