"""Intrinsic dimension: the numbers that are counted are the numbers that move."""

import numpy as np
import pytest

from minisparse.data.digits import load
from minisparse.experiments.theory.intrinsic import MODEL, WAYS, Curve, study, weights
from minisparse.nn.lr import Cosine
from minisparse.nn.models import build
from minisparse.training.run import train
from minisparse.weights.dct import DCTWeight

DATA = load()


def moved(label, d):
    """How many numbers one epoch changes, for ways that train single ones."""
    network, way = build(MODEL, DATA, 0), WAYS[label]
    run = train(network, DATA, way.method(network, d), epochs=1, optimizer=way.optimizer(), rate=Cosine(0.1))
    start, count = network.state(), 0
    for key, value in run.network.state().items():
        layer = run.network.prunable()[key.partition(".")[0]]
        offset = isinstance(layer.weight, DCTWeight) and key.endswith((".weight", ".scale"))
        before = (1.0 if key.endswith("scale") else 0.0) if offset else start[key]
        count += np.count_nonzero((value != before) & (value != 0))
    return count


@pytest.mark.parametrize("label", ["single parameters", "random masks", "dct plus sparse"])
@pytest.mark.parametrize("d", [150, 300])
def test_trained_numbers_are_counted_as_they_move(label, d):
    network = build(MODEL, DATA, 0)
    counted = WAYS[label].trained(network, d)
    extra = {"single parameters": 0, "random masks": 42, "dct plus sparse": 44}[label]
    assert counted == d + extra
    # weights of pixels that are always 0, and of units nothing is read from, have no gradient
    assert 0.25 * counted < moved(label, d) <= counted


def test_weights_are_those_of_the_matrices():
    assert weights(build(MODEL, DATA, 0)) == 64 * 32 + 32 * 10


def test_needed_is_the_smallest_from_which_on_it_is_reached():
    curve = Curve("a", {10: [0.95], 20: [0.5], 50: [0.9, 0.92], 90: [0.97]}, {10: 1, 20: 2, 50: 5, 90: 9})
    assert curve.needed(0.9) == 5 and curve.needed(0.95) == 9
    assert curve.needed(0.1) == 1 and curve.needed(0.99) == float("inf")


def test_the_study_finds_more_accuracy_with_more_directions():
    ways = {name: WAYS[name] for name in ("subspace, dense P", "single parameters")}
    made = study((0, 1), grid=(5, 300), epochs=6, ways=ways)
    assert [(row["way"], row["d"]) for row in made.rows] == [(name, d) for name in ways for d in (5, 300)]
    few, many = made.rows[:2]
    assert few["accuracy"] + 0.3 < many["accuracy"] and many["of_full"] > 0.8
    assert made.words[0].startswith("All 2410 parameters")
