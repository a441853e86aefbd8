"""Layer collapse: numbers of paths, the steps of compression, and where the last path is cut."""

from itertools import product
from math import isnan, nan

import numpy as np
import pytest

from minisparse.experiments.compare import compare
from minisparse.experiments.layer_collapse import (
    Point,
    collapse_cases,
    collapse_figure,
    compressions,
    critical,
    maximal_compression,
    paths,
    points,
)
from minisparse.experiments.runner import dataset
from minisparse.experiments.store import Store
from minisparse.experiments.theme import DARK
from minisparse.nn.models import build
from tests.methods.problems import conv_net, mlp

TINY = {"model": "mlp:64-12-8-10", "epochs": 1, "batch": 512}


@pytest.mark.parametrize("seed", range(4))
def test_paths_are_counted_one_by_one(seed):
    rng = np.random.default_rng(seed)
    network = mlp((4, 5, 6, 3), rng)
    for layer in network.prunable().values():
        layer.weight.rewire(rng.random(layer.weight.shape) < 0.5)
    before = network.state()
    a, b, c = network.masks().values()
    ways = product(range(4), range(5), range(6), range(3))
    assert paths(network) == sum(a[j, i] and b[k, j] and c[o, k] for i, j, k, o in ways)
    for key, value in network.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_whole_and_broken_networks():
    network = mlp((4, 5, 6, 3), np.random.default_rng(0))
    assert paths(network) == 4 * 5 * 6 * 3
    network.prunable()["fc2"].weight.rewire(np.zeros((6, 5), dtype=bool))
    assert paths(network) == 0
    convolutional = conv_net(np.random.default_rng(0))
    assert paths(convolutional) > 0
    convolutional.prunable()["fc"].weight.rewire(np.zeros((3, 36), dtype=bool))
    assert paths(convolutional) == 0


def test_compression_is_maximal_with_one_weight_a_layer():
    network = mlp((4, 5, 6, 3), np.random.default_rng(0))
    assert maximal_compression(network) == (20 + 30 + 18) / 3
    steps = compressions(network, 2)
    np.testing.assert_allclose(steps, [10**0.5, 10, 68 / 3])
    round_one = mlp((10, 10), np.random.default_rng(0))  # the maximum itself is a step: once
    np.testing.assert_allclose(compressions(round_one, 1), [10, 100])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """SynFlow and magnitude on a narrow network."""
    network = build(TINY["model"], dataset("digits", None))
    made = collapse_cases(network, ("magnitude-init", "synflow"), (0, 1), TINY, 2)
    with Store(tmp_path_factory.mktemp("runs")) as store:
        outcomes = compare([case.spec for case in made], store)
        networks = {case.spec.key: store.network(case.spec.key) for case in made}
    return points(made, outcomes, networks), network, made, outcomes


def test_synflow_reaches_the_maximal_compression_and_magnitude_does_not(found):
    told, network, _, _ = found
    first, second = critical(told)
    top = maximal_compression(network)
    assert (first.label, second.label) == ("magnitude-init", "synflow")
    assert second.compression == pytest.approx(top) and second.cut == ""
    assert first.compression < top / 2 and first.cut in network.prunable()
    last = [p for p in told if p.label == "synflow" and p.compression == pytest.approx(top)]
    assert [p.paths for p in last] == [1, 1]  # one weight a layer, one path


def test_points_are_the_pruned_runs_and_unknown_without_a_network(found):
    _, _, made, outcomes = found
    told = points(made, outcomes, {})
    assert len(told) == len([c for c in made if c.spec.sparsity]) == 2 * 2 * 5
    assert all(isnan(p.paths) and p.cut == "" for p in told)


def point(compression, count, cut="", label="a", seed=0):
    return Point(label, seed, compression, 0.5, 0.1, count, cut)


def test_critical_is_the_last_step_before_the_first_break_of_any_seed():
    told = [point(2, 9), point(4, 5), point(8, 0, "fc2"), point(16, 3)]  # alive again is too late
    assert [(c.compression, c.cut) for c in critical(told)] == [(4, "fc2")]
    told += [point(2, 9, seed=1), point(4, 0, "fc1", seed=1)]
    assert [(c.compression, c.cut) for c in critical(told)] == [(2, "fc1")]
    assert [c.compression for c in critical([point(2, 0, "fc1")])] == [1.0]
    assert [(c.compression, c.cut) for c in critical([point(2, nan), point(4, 1)])] == [(4, "")]


@pytest.mark.parametrize("theme", [{}, {"theme": DARK}])
def test_the_figure_shows_paths_and_accuracy(found, theme):
    told, network, _, _ = found
    figure = collapse_figure(told, maximal_compression(network), **theme)
    left, right = figure.axes
    figure.canvas.draw()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:2] == ["magnitude-init", "synflow"] and "no path left" in names
    means = [np.mean([p.paths for p in told if p.label == "synflow"][k::5]) for k in range(5)]
    assert any(len(line.get_ydata()) == 5 and np.allclose(line.get_ydata(), means) for line in left.lines)
    collapse_figure([], 10.0).canvas.draw()
