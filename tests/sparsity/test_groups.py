"""Groups: by hand on small networks, and by what has no effect on random ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from minisparse.nn import (
    Activation,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    MaskedWeight,
    Network,
    Residual,
    Sequence,
    SubsamplePad,
    Window,
)
from minisparse.nn import models as zoo
from minisparse.sparsity.groups import groups_of
from tests.architectures import EVERYTHING, random_network
from tests.strategies import SETTINGS, generators

SAME = Window.of(3, padding=1)
SMOOTH = replace(EVERYTHING, activations=("identity", "tanh"), pools=("avg",), masked=0.0)


def linear(inputs: int, out: int) -> Linear:
    return Linear(MaskedWeight(np.ones((out, inputs))), np.zeros(out))


def conv(channels: int, out: int, window: Window = SAME) -> Conv2d:
    kernel = window.kernel
    return Conv2d(
        MaskedWeight(np.ones((out, channels * kernel[0] * kernel[1])), (out, channels, *kernel)), window
    )


def parts(group) -> dict[str, dict[str, list]]:
    """The arrays of a group as lists."""
    return {
        role: {name: index.tolist() for name, index in getattr(group, role)}
        for role in ("producers", "norms", "consumers", "paddings")
    }


def test_a_plain_network_has_one_group_per_hidden_layer():
    network = Network(
        {"a": linear(4, 3), "act": Activation("relu"), "b": linear(3, 2), "c": linear(2, 5)}, (4,)
    )
    first, second = groups_of(network)
    assert (first.name, len(first), second.name, len(second)) == ("a", 3, "b", 2)
    assert parts(first) == {
        "producers": {"a": [[0], [1], [2]]},
        "norms": {},
        "consumers": {"b": [[0], [1], [2]]},
        "paddings": {},
    }


def test_columns_of_a_convolution_are_taps_and_of_a_flattened_image_pixels():
    layers = {
        "a": conv(1, 2),
        "bn": BatchNorm2d(2),
        "b": conv(2, 3),
        "flatten": Flatten(),
        "c": linear(12, 2),
    }
    first, second = groups_of(Network(layers, (1, 2, 2)))
    assert parts(first)["norms"] == {"bn": [[0], [1]]}
    # tap by tap, the channel fastest
    assert parts(first)["consumers"] == {"b": [list(range(0, 18, 2)), list(range(1, 18, 2))]}
    assert parts(second)["consumers"] == {"c": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]}


def residual(branch: dict, shortcut: dict | None = None) -> Residual:
    return Residual(Sequence(branch), None if shortcut is None else Sequence(shortcut))


def test_all_that_write_into_a_stream_share_its_units():
    layers = {
        "in": linear(2, 3),
        "one": residual({"a": linear(3, 4), "b": linear(4, 3)}),
        "two": residual({"a": linear(3, 5), "b": linear(5, 3)}, {"way": linear(3, 3)}),
        "out": linear(3, 2),
    }
    stream, inner, inside, after = groups_of(Network(layers, (2,)))
    assert set(parts(stream)["producers"]) == {"in", "one.branch.b"}
    # a shortcut with weights ends one stream and begins another
    assert set(parts(stream)["consumers"]) == {"one.branch.a", "two.branch.a", "two.shortcut.way"}
    assert set(parts(after)["producers"]) == {"two.branch.b", "two.shortcut.way"}
    assert [g.name for g in (inner, inside)] == ["one.branch.a", "two.branch.a"]


def test_a_padded_shortcut_ties_the_channels_that_came_in_and_adds_others():
    layers = {
        "in": conv(1, 2),
        "block": residual({"a": conv(2, 4), "b": conv(4, 5)}, {"pad": SubsamplePad(1, 5)}),
        "out": conv(5, 1),
        "flatten": Flatten(),
    }
    old, inner, new = groups_of(Network(layers, (1, 3, 3)))
    assert parts(old)["producers"] == {"in": [[0], [1]], "block.branch.b": [[0], [1]]}
    assert parts(old)["paddings"] == {"block.shortcut.pad": [[0], [1]]}
    assert parts(new)["producers"] == {"block.branch.b": [[2], [3], [4]]}
    assert parts(new)["paddings"] == {"block.shortcut.pad": [[2], [3], [4]]}
    assert set(parts(new)["consumers"]) == {"out"} and inner.name == "block.branch.a"


def test_inputs_and_outputs_stay():
    assert groups_of(Network({"only": linear(3, 2)}, (3,))) == ()
    around = Network({"block": residual({"a": linear(3, 4), "b": linear(4, 3)}), "out": linear(3, 2)}, (3,))
    assert [g.name for g in groups_of(around)] == ["block.branch.a"]  # the stream is the input's
    behind = Network({"in": linear(2, 3), "block": residual({"a": linear(3, 4), "b": linear(4, 3)})}, (2,))
    assert [g.name for g in groups_of(behind)] == ["block.branch.a"]  # the stream is the output's


def test_a_sum_with_a_flattened_image_ties_the_rows_of_its_pixels():
    layers = {
        "conv": conv(1, 2),
        "flatten": Flatten(),
        "block": residual({"a": linear(8, 8)}),
        "out": linear(8, 1),
    }
    (group,) = groups_of(Network(layers, (1, 2, 2)))
    assert parts(group)["producers"] == {"conv": [[0], [1]], "block.branch.a": [[0, 1, 2, 3], [4, 5, 6, 7]]}


@pytest.mark.parametrize("name", ["lenet-5", "conv-2", "vgg-small", "resnet-20:0.25"])
def test_every_row_of_a_model_but_the_last_layers_is_in_one_group(name):
    network = zoo.make(name, (1, 8, 8), 10)
    rows = {n: np.zeros(layer.weight.shape[0], dtype=int) for n, layer in network.prunable().items()}
    for group in groups_of(network):
        for producer, index in group.producers:
            np.add.at(rows[producer], index, 1)
    *hidden, last = rows.values()
    assert all((count == 1).all() for count in hidden) and not last.any()


def scramble(network: Network, group, unit: int, rng) -> None:
    """New rows, biases, scales, shifts and statistics for one unit."""
    layers = dict(network.walk())
    for name, index in (*group.producers, *group.norms):
        for p in layers[name].params().values():
            p.value[index[unit]] = rng.standard_normal(p.value[index[unit]].shape)
        for buffer in layers[name].buffers().values():
            buffer[index[unit]] = rng.random(buffer[index[unit]].shape) + 0.5


@SETTINGS
@given(generators)
def test_what_a_unit_consists_of_reaches_the_outputs_by_its_columns_alone(rng):
    network = random_network(rng)
    groups = groups_of(network)
    units = np.concatenate([np.zeros(0, dtype=int), *(g.units for g in groups)])
    assert len(set(units)) == units.size and len({g.name for g in groups}) == len(groups)
    x = rng.standard_normal((3, *network.input_shape))
    for group in groups:
        unit, changed = int(rng.integers(len(group))), network.copy()
        for name, columns in group.consumers:
            changed.prunable()[name].weight.param.value[:, columns[unit]] = 0
        y = changed.forward(x)
        scramble(changed, group, unit, rng)
        np.testing.assert_array_equal(changed.forward(x), y)


@SETTINGS
@given(generators)
def test_columns_belong_to_one_unit_at_most_and_do_read_it(rng):
    network = random_network(rng, SMOOTH)
    layers = network.prunable()
    owners = {name: np.zeros(layer.weight.shape[1], dtype=int) for name, layer in layers.items()}
    x = rng.standard_normal((3, *network.input_shape))
    network.forward(x)
    before = {name: layer.rows for name, layer in layers.items()}
    for group in groups_of(network):
        unit, changed = int(rng.integers(len(group))), network.copy()
        scramble(changed, group, unit, rng)
        changed.forward(x)
        for name, columns in group.consumers:
            np.add.at(owners[name], columns, 1)
            after = changed.prunable()[name].rows[..., columns[unit]]
            # a column that is padding at every place reads nothing
            read = before[name][..., columns[unit]].any(axis=(0, 1))
            assert (after != before[name][..., columns[unit]]).any(axis=(0, 1))[read].all()
    assert all(count.max() <= 1 for count in owners.values())
