"""Conservation of scores, unit by unit and layer by layer, and the figure that shows it."""

import numpy as np
import pytest

from minisparse.experiments.conservation import balance, balances
from minisparse.experiments.pai_plots import conservation
from minisparse.experiments.theme import DARK
from minisparse.methods.initial.synflow import flow, positive
from minisparse.nn.loss import LOSSES
from tests.methods.problems import conv_net, descend, mlp, state_of


def problem(seed, sparsity=0.0):
    rng = np.random.default_rng(seed)
    network = mlp((6, 9, 7, 3), rng, biases=False)
    for layer in network.prunable().values():
        layer.weight.rewire(rng.random(layer.weight.shape) >= sparsity)
    return network, LOSSES["cross-entropy"](), rng.standard_normal((10, 6)), rng.integers(0, 3, 10)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_synflow_is_conserved_in_every_unit_and_every_layer_is_all_of_it(seed, sparsity):
    network, *rest = problem(seed, sparsity)
    told = balances(network, *rest)["synflow"]
    assert list(told.units) == ["fc1", "fc2"]
    for into, out in told.units.values():
        np.testing.assert_allclose(into, out, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(list(told.layers.values()), flow(positive(network)), rtol=1e-10)
    np.testing.assert_allclose(told.mean, flow(positive(network)), rtol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_signed_snip_is_conserved_and_its_absolute_values_are_not(seed):
    network, loss, x, target = problem(seed)
    state = state_of(network, x, target)
    descend(state)
    signed = {name: layer.weight.dense() * layer.dense_grad() for name, layer in network.prunable().items()}
    for into, out in balance(signed).units.values():
        np.testing.assert_allclose(into, out, rtol=1e-8, atol=1e-12)
    told = balances(network, loss, x, target)["snip"]
    assert sum(told.layers.values()) == pytest.approx(1)
    assert max(np.abs(into - out).max() for into, out in told.units.values()) > 1e-3
    assert np.ptp(list(told.layers.values())) > 1e-3


def test_other_networks_are_left_out():
    network = conv_net(np.random.default_rng(0))
    x, target = np.zeros((4, 2, 6, 6)), np.array([0, 1, 2, 0])
    assert balances(network, LOSSES["cross-entropy"](), x, target) == {}


@pytest.mark.parametrize("theme", [{}, {"theme": DARK}])
def test_the_figure_has_a_panel_for_each_criterion_and_one_for_layers(theme):
    told = balances(*problem(0))
    figure = conservation(told, **theme)
    figure.canvas.draw()
    first, second, last = figure.axes
    into, out = told["synflow"].units["fc1"]
    np.testing.assert_array_equal(first.lines[0].get_xdata(), into[into > 0])
    assert [line.get_label() for line in last.lines[:2]] == ["synflow", "snip"]
    np.testing.assert_allclose(last.lines[0].get_ydata(), 1, rtol=1e-10)
    assert second.get_title(loc="left").startswith("snip")
