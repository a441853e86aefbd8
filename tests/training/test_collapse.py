"""Collapse is reported exactly when outputs do not depend on inputs."""

import numpy as np
import pytest

import minisparse as ms
from minisparse.errors import LayerCollapseError
from minisparse.nn import Linear, MaskedWeight, Network
from minisparse.nn.activation import Activation
from minisparse.training.collapse import collapse, cut_layer, silent_layer
from minisparse.training.run import train
from tests.reliability.counts import examples

DATA = ms.data.load("digits").subset(200, 50)


def chain(rng, widths, density, activation):
    """A bias-free chain with random masks; weights away from 0."""
    layers = {}
    for k, (i, o) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        value = rng.uniform(0.5, 1.5, (o, i)) * rng.choice([-1.0, 1.0], (o, i))
        layers[f"fc{k}"] = Linear(MaskedWeight(value, mask=rng.random((o, i)) < density))
        if k < len(widths) - 2:
            layers[f"act{k}"] = Activation(activation)
    return Network(layers, (widths[0],))


def depends(network, rng):
    """Brute force: does any output change with any input?"""
    y = network.forward(rng.standard_normal((64, *network.input_shape)))
    return bool(np.ptp(y, axis=0).any())


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("seed", range(examples(5, 5, 50)))
def test_reported_exactly_when_outputs_do_not_depend_on_inputs(seed, activation):
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(60):
        widths = [int(w) for w in rng.integers(1, 5, rng.integers(2, 6))]
        network = chain(rng, widths, rng.uniform(0.2, 0.8), activation)
        x = rng.standard_normal((64, widths[0]))
        alive = depends(network, rng)
        assert (collapse(network, x) is None) == alive
        if activation == "tanh":  # nothing is silent, so only cut paths matter
            assert (cut_layer(network) is None) == alive
        seen.add(alive)
    assert seen == {True, False}


def test_an_empty_layer_is_named_before_those_it_starves():
    network = ms.models.build("mlp:64-8-6-10", DATA)
    layers = network.prunable()
    layers["fc2"].weight.rewire(np.zeros((6, 8), dtype=bool))
    assert cut_layer(network) == "fc2"
    assert "0 of 48 weights kept" in collapse(network, DATA.train_x)


def test_a_shortcut_keeps_a_network_alive_when_a_branch_is_empty():
    data = ms.data.load("digits")
    network = ms.models.build("resnet-20:0.25", data)
    layers = network.prunable()
    inner = next(n for n in layers if "branch" in n)
    layers[inner].weight.rewire(np.zeros(layers[inner].weight.shape, dtype=bool))
    assert cut_layer(network) is None
    first = next(iter(layers.values())).weight
    first.rewire(np.zeros(first.shape, dtype=bool))
    assert cut_layer(network) == next(iter(layers))


def test_dead_relus_are_a_silent_layer_though_paths_remain():
    network = ms.models.build("mlp:64-8-10", DATA)
    network.params()["fc1.bias"].value -= 1000
    assert cut_layer(network) is None
    assert silent_layer(network, DATA.train_x) == "act1"


def test_a_collapsed_run_says_so_and_strict_raises():
    network = ms.models.build("mlp:64-8-10", DATA)
    method = ms.Random(sparsity=0.995)
    run = train(network, DATA, method, epochs=1)
    assert run.status == "collapsed"
    assert "layer" in run.note
    with pytest.raises(LayerCollapseError):
        train(network, DATA, method, epochs=1, strict=True)
