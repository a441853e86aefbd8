"""The sanity check: which runs it makes, what it says of them, and its figures."""

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
from matplotlib.figure import Figure

from minisparse.errors import UnknownNameError, UsageError
from minisparse.experiments.compare import compare
from minisparse.experiments.pai_plots import accuracy_by_control, layer_densities, survivors
from minisparse.experiments.runner import dataset
from minisparse.experiments.sanity import (
    CONTROLS,
    METHODS,
    Cell,
    cases,
    cells,
    change,
    method_of,
    sentences,
    standardised_survivors,
)
from minisparse.experiments.store import Store
from minisparse.experiments.theme import DARK
from minisparse.nn.models import build
from minisparse.sparsity import kept_count, parse_control

TINY = {"model": "mlp:64-12-10", "epochs": 1, "batch": 256}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Cases of three methods under all controls, their outcomes and their networks."""
    planned = cases(("random", "snip", "ticket"), (0.5, 0.9), CONTROLS, (0, 1), TINY)
    with Store(tmp_path_factory.mktemp("runs")) as store:
        outcomes = compare([case.spec for case in planned], store)
        return planned, outcomes, {c.spec.key: store.network(c.spec.key) for c in planned}


def of(made, label, control, sparsity=0.9, seed=0):
    planned, _, networks = made
    (found,) = [
        c
        for c in planned
        if (c.label, c.control, c.spec.sparsity, c.spec.seed) == (label, control, sparsity, seed)
    ]
    return networks[found.spec.key]


def test_the_grid_has_every_combination_once_and_the_dense_network():
    planned = cases(seeds=(0, 1), sparsities=(0.9, 0.95, 0.98))
    assert len(planned) == 2 * (1 + len(METHODS) * 3 * len(CONTROLS))
    assert len({c.spec.key for c in planned}) == len(planned)
    for case in planned:
        if case.label != "dense":
            assert case.spec.build().control == parse_control(case.control)
    assert [c.label for c in planned if not c.spec.sparsity] == ["dense", "dense"]


def test_all_methods_at_initialisation_prune_before_training_and_the_others_after_one():
    late = {"magnitude-trained", "ticket"}
    for case in cases(controls=("none",), seeds=(0,)):
        method = case.spec.build()
        if case.label in late:
            assert method.length(100) == 200
        elif case.label != "dense":
            assert method.schedule.curve(100, method.sparsity)[-1][0] == 0


def test_labels_are_names_of_methods_too():
    assert method_of("grasp-it") == ("grasp-it", {})
    with pytest.raises(UnknownNameError):
        method_of("magic")
    with pytest.raises(UsageError, match="control"):
        method_of("rigl")


def test_controls_do_to_masks_what_they_say(made):
    """Shuffled: the layers' counts. New weights: the mask. Inverted: none of the best of two halves."""
    for label in ("random", "snip", "ticket"):
        plain, shuffled, reinit = (of(made, label, c).masks() for c in ("none", "shuffle", "reinit"))
        for name, mask in plain.items():
            assert mask.sum() == shuffled[name].sum() and (mask != shuffled[name]).any()
            np.testing.assert_array_equal(mask, reinit[name])
    for label in ("random", "snip"):  # at half the weights the worst are all that the best are not
        plain, inverted = (of(made, label, c, 0.5).masks() for c in ("none", "invert"))
        overlap = sum(int((mask & inverted[name]).sum()) for name, mask in plain.items())
        ties = 64 * 12 if label == "snip" else 0  # weights of blank pixels all score 0
        assert overlap <= ties
    sizes = [w.size for w in of(made, "snip", "none").masks().values()]
    for network in (of(made, "snip", c) for c in CONTROLS):
        assert sum(int(m.sum()) for m in network.masks().values()) == kept_count(sum(sizes), 0.9)


def test_cells_are_means_over_seeds_of_their_own_runs(made):
    planned, outcomes, _ = made
    found = cells(planned, outcomes)
    assert len(found) == 1 + 3 * 2 * len(CONTROLS)
    accuracy = {o.spec.key: o.accuracy for o in outcomes}
    for cell in found:
        own = [c for c in planned if (c.label, c.control) == (cell.label, cell.control)]
        own = [accuracy[c.spec.key] for c in own if c.spec.sparsity == cell.sparsity]
        assert cell.accuracies == tuple(own) and len(own) == 2
        assert cell.mean == pytest.approx(sum(own) / 2)
        assert cell.spread == pytest.approx(abs(own[0] - own[1]) / np.sqrt(2))


def test_changes_are_paired_by_seed():
    plain = Cell("a", "none", 0.9, (0.8, 0.9, 0.7), 0)
    worse = Cell("a", "shuffle", 0.9, (0.7, 0.8, nan), 1)
    difference, error = change(worse, plain)
    assert difference == pytest.approx(-0.1) and error == pytest.approx(0, abs=1e-12)
    uneven = replace(worse, accuracies=(0.8, 0.8, 0.9))
    difference, error = change(uneven, plain)
    assert difference == pytest.approx(0.1 / 3)
    assert error == pytest.approx(np.std([0, -0.1, 0.2], ddof=1) / np.sqrt(3))
    assert isnan(change(replace(worse, accuracies=(nan, nan, nan)), plain)[0])


def test_sentences_tell_what_each_control_costs():
    found = [
        Cell("a", "none", 0.9, (0.8, 0.9), 0),
        Cell("a", "shuffle", 0.9, (0.7, 0.8), 0),
        Cell("a", "none", 0.95, (0.5, 0.5), 0),
        Cell("a", "shuffle", 0.95, (0.2, 0.2), 0),
        Cell("b", "none", 0.9, (0.8, 0.8), 0),
        Cell("b", "shuffle", 0.9, (0.81, 0.81), 0),
    ]
    (told,) = sentences(found)
    assert told == "shuffle, points of accuracy, mean over sparsities: a -20.0, b +1.0"


def test_survivors_are_initial_values_in_units_of_their_layer():
    initial = build("mlp:64-12-10", dataset("digits", None), 0).astype(np.float64)
    pruned = initial.copy()
    mask = np.zeros((12, 64), dtype=bool)
    mask[3, 5] = mask[7, 60] = True
    pruned.prunable()["fc1"].weight.rewire(mask)
    pruned.prunable()["fc2"].weight.rewire(np.zeros((10, 12), dtype=bool))
    first = initial.prunable()["fc1"].weight.dense()
    found = standardised_survivors(initial, pruned)
    np.testing.assert_allclose(found, [first[3, 5] / first.std(), first[7, 60] / first.std()])
    everything = standardised_survivors(initial, initial)
    assert len(everything) == 64 * 12 + 12 * 10 and abs((everything**2).mean() - 1) < 0.01


@pytest.mark.parametrize("theme", [{}, {"theme": DARK}])
def test_figures_show_every_method(made, theme):
    planned, outcomes, networks = made
    found = cells(planned, outcomes)
    figure = accuracy_by_control(found, 0.1, **theme)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["random", "snip", "ticket"]
    assert [at.get_title(loc="left") for at in figure.axes] == ["50 % sparsity", "90 % sparsity"]
    figure = layer_densities(planned, outcomes, **theme)
    assert [at.get_title(loc="left") for at in figure.axes] == ["'fc1'", "'fc2'"]
    for at, name in zip(figure.axes, ("fc1", "fc2"), strict=True):
        (line,) = [line for line in at.lines if line.get_label() == "snip"]
        masks = [[of(made, "snip", "none", s, seed).masks()[name] for seed in (0, 1)] for s in (0.5, 0.9)]
        np.testing.assert_allclose(line.get_ydata(), [np.mean(pair) for pair in masks])
    initial = build("mlp:64-12-10", dataset("digits", None), 0)
    shown = {label: standardised_survivors(initial, of(made, label, "none")) for label in ("random", "snip")}
    figure = survivors(shown, standardised_survivors(initial, initial), **theme)
    assert figure.axes[0].get_title(loc="left") == "random: 89 kept"
    for drawn in (accuracy_by_control([], nan), layer_densities([], []), figure):
        assert isinstance(drawn, Figure)
        drawn.canvas.draw()
