"""Sensitivity of layers: one is pruned, the others stay; planted networks whose answer is known."""

import numpy as np
import pytest

from minisparse.data.dataset import Dataset
from minisparse.errors import SparsityError
from minisparse.experiments.sensitivity import Point, sensitivity, sensitivity_curves, tolerated
from minisparse.experiments.theme import DARK
from minisparse.methods.initial.synflow import SynFlow
from minisparse.methods.random import Random
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.methods.saliency.obd import OBD
from minisparse.nn.loss import CrossEntropy
from minisparse.sparsity.count import kept_count
from minisparse.sparsity.pattern import Row
from minisparse.sparsity.select import top_k
from minisparse.training.run import evaluate
from tests.methods.problems import chain, clusters, conv_net, mlp


def problem(seed: int = 0):
    rng = np.random.default_rng(seed)
    data = clusters(rng, (8,))
    return mlp((8, 7, 6, 3), rng, dtype=np.float32), data


@pytest.mark.parametrize("method", [Magnitude(), Random(), OBD(samples=20), SynFlow()])
def test_every_point_is_the_network_with_one_layer_pruned_by_the_methods_scores(method):
    network, data = problem()
    levels = (0.0, 0.3, 0.9)
    points = sensitivity(network, data, data.test_x, data.test_y, method, levels)
    assert [(p.layer, p.sparsity) for p in points] == [(f"fc{k}", s) for k in (1, 2, 3) for s in levels]
    dense = evaluate(network, CrossEntropy(), data.test_x, data.test_y)
    for p in points:
        assert (p.kept, p.total) == (kept_count(p.total, p.sparsity), network.prunable()[p.layer].weight.size)
        assert p.sparsity or (p.loss, p.accuracy) == dense


def test_magnitude_by_hand():
    network, data = problem(1)
    (point,) = [
        p
        for p in sensitivity(network, data, data.test_x, data.test_y, Magnitude(), (0.5,))
        if p.layer == "fc2"
    ]
    twin = network.copy()
    weight = twin.prunable()["fc2"].weight
    weight.rewire(top_k(np.abs(weight.dense()), kept_count(42, 0.5)))
    assert (point.loss, point.accuracy) == evaluate(twin, CrossEntropy(), data.test_x, data.test_y)


def test_the_network_is_not_changed_and_its_own_mask_is_respected():
    network, data = problem(2)
    network.prunable()["fc1"].weight.rewire(np.random.default_rng(0).random((7, 8)) < 0.5)
    before, masks = network.state(), network.masks()
    points = sensitivity(network, data, data.test_x, data.test_y, Magnitude(), (0.6,))
    assert all((network.state()[key] == before[key]).all() for key in before)
    assert all((network.masks()[name] == masks[name]).all() for name in masks)
    assert points[0].kept == kept_count(56, 0.6)


def test_a_layer_whose_weights_do_nothing_is_insensitive_and_one_that_does_all_is_not():
    """fc1 has one weight that matters of 16; every weight of fc2 matters. Regression on its own outputs."""
    first = np.zeros((4, 4))
    first[0, 0] = 1.0
    network = chain(np.eye(4) + first, np.array([[5.0, 1, 1, 1]]), activation="identity")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((30, 4))
    y = network.predict(x)
    data = Dataset("own", x, y, x, y, None)
    points = sensitivity(network, data, x, y, Magnitude(), (0.0, 0.75))
    loss = {(p.layer, p.sparsity): p.loss for p in points}
    assert loss["fc1", 0.0] == loss["fc1", 0.75] == 0.0 < loss["fc2", 0.75]
    assert all(np.isnan(p.accuracy) for p in points)
    assert tolerated(points, 0.01) == {"fc1": 0.75, "fc2": 0.0}


def test_whole_filters_leave_with_a_pattern_of_rows():
    rng = np.random.default_rng(4)
    network, data = conv_net(rng), clusters(rng, (2, 6, 6))
    points = sensitivity(network, data, data.test_x, data.test_y, Magnitude(pattern=Row()), (0.5,))
    assert [(p.layer, p.kept) for p in points][0] == ("conv", 36)


def test_what_is_tolerated_stops_at_the_first_loss_and_compares_with_the_layers_lowest_sparsity():
    accuracies = {"a": (0.90, 0.89, 0.70, 0.95), "b": (0.90, 0.90, 0.895, 0.89), "c": (0.9, 0.5, 0.9, 0.9)}
    levels = (0.0, 0.5, 0.8, 0.9)
    points = [
        Point(name, s, 1, 1, 1.0, a)
        for name, own in accuracies.items()
        for s, a in zip(levels, own, strict=True)
    ]
    assert tolerated(points[::-1], 0.0101) == {"a": 0.5, "b": 0.9, "c": 0.0}
    assert tolerated(points, 0.5) == dict.fromkeys("abc", 0.9)


def test_a_sparsity_out_of_range_is_refused():
    network, data = problem()
    with pytest.raises(SparsityError):
        sensitivity(network, data, data.test_x, data.test_y, Magnitude(), (0.5, 1.0))


def test_the_figure_has_a_line_per_layer_in_percent():
    network, data = problem()
    points = sensitivity(network, data, data.test_x, data.test_y, Magnitude(), (0.0, 0.5, 0.9))
    (axes,) = sensitivity_curves(points, "title", theme=DARK).axes
    assert axes.get_title(loc="left") == "title" and len(axes.lines) == 3
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [100 * p.accuracy for p in points[3:6]])
    np.testing.assert_allclose(axes.lines[1].get_xdata(), [0, 50, 90])
    assert axes.get_ylabel() == "validation accuracy (%)"
    losses = [Point("a", s, 1, 1, 1.0 + s, float("nan")) for s in (0.0, 0.5)]
    (axes,) = sensitivity_curves(losses, "losses").axes
    assert axes.get_ylabel() == "validation loss"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1, 1.5])
