"""Sanity checks of pruning at initialisation: which part of a sparse network does its accuracy need?

J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin. Pruning Neural Networks at Initialization: Why Are We
Missing the Mark? ICLR 2021. arXiv:2009.08576

Every method prunes before training, and its mask and weights are trained as they are or spoiled in one way:

    none       as the method leaves them
    shuffle    the mask permuted within each layer: only the layers' counts are the method's
    reinit     new weights under the mask: what the mask was computed from is gone
    invert     the method's worst weights stay

A criterion that judges single weights should lose by the first two and by the third most of all. Beside the
methods at initialisation stand random masks, for which the controls change nothing, and magnitude after
training, of which the controls should destroy what is special: `magnitude-trained` goes on from the trained
weights, `ticket` goes back to the first ones. Both train twice as long.

Departure: of `magnitude-trained` under `shuffle`, weights that come back have their value at the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from minisparse.errors import UsageError
from minisparse.experiments.plan import REFERENCE
from minisparse.experiments.runner import Outcome
from minisparse.experiments.settings import Value, fields_of
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import mean, spread
from minisparse.methods.registry import find
from minisparse.nn.network import Network
from minisparse.nn.param import Array

Settings = Mapping[str, Value]

# label -> (method, settings); any other method with a control may be given by its own name
METHODS: dict[str, tuple[str, Settings]] = {
    "random": ("random", {"allocation": "uniform"}),
    "magnitude-init": ("magnitude", {"schedule": "one-shot:0"}),
    "snip": ("snip", {}),
    "iterative-snip": ("iterative-snip", {}),
    "force": ("force", {}),
    "grasp": ("grasp", {}),
    "synflow": ("synflow", {}),
    "magnitude-trained": ("imp", {"rounds": 1, "keep_weights": True}),
    "ticket": ("imp", {"rounds": 1}),
}
CONTROLS = ("none", "shuffle", "reinit", "invert")
SPARSITIES = (0.9, 0.95)
SEEDS = (0, 1, 2)
TRAINING: Mapping[str, Any] = {"epochs": 12, "batch": 32}


@dataclass(frozen=True)
class Case:
    """One run of the check: a method by its label, what was done to it, and the run."""

    label: str
    control: str
    spec: RunSpec


def method_of(label: str) -> tuple[str, Settings]:
    """(method, settings) of a label. UnknownNameError, or UsageError for a method without a control."""
    name, settings = METHODS.get(label, (label, {}))
    if "control" not in [setting.name for setting in fields_of(find(name).cls)]:
        raise UsageError(f"method '{label}': got no setting 'control', expected a method that has one.")
    return name, settings


def cases(
    labels: Sequence[str] = tuple(METHODS),
    sparsities: Sequence[float] = SPARSITIES,
    controls: Sequence[str] = CONTROLS,
    seeds: Sequence[int] = SEEDS,
    training: Mapping[str, Any] = TRAINING,
) -> list[Case]:
    """All runs, seed by seed, the dense network (label 'dense') first; training: parts of a RunSpec."""
    found = []
    for seed in seeds:
        found.append(Case(REFERENCE, "none", RunSpec(REFERENCE, seed=seed, **training)))
        for label in labels:
            method, settings = method_of(label)
            for sparsity in sparsities:
                for control in controls:
                    chosen: dict[str, Any] = {**settings, "sparsity": sparsity, "control": control}
                    spec = RunSpec(method, tuple(chosen.items()), seed=seed, **training)
                    found.append(Case(label, control, spec))
    return found


@dataclass(frozen=True)
class Cell:
    """A method under a control at a sparsity, over its seeds.

    accuracies   of each seed, in their order; NaN for a run without one
    collapsed    how many of the runs ended so
    """

    label: str
    control: str
    sparsity: float
    accuracies: tuple[float, ...]
    collapsed: int

    @property
    def mean(self) -> float:
        """Mean test accuracy."""
        return mean(self.accuracies)

    @property
    def spread(self) -> float:
        """Sample standard deviation of the test accuracy; NaN for fewer than two."""
        return spread(self.accuracies)


def cells(made: Sequence[Case], outcomes: Sequence[Outcome]) -> list[Cell]:
    """One Cell per method, sparsity and control, in the order they appear; outcomes as of the cases."""
    groups: dict[tuple[str, str, float], list[Outcome]] = {}
    for case, outcome in zip(made, outcomes, strict=True):
        groups.setdefault((case.label, case.control, case.spec.sparsity), []).append(outcome)
    return [
        Cell(*key, tuple(o.accuracy for o in own), sum(o.status == "collapsed" for o in own))
        for key, own in groups.items()
    ]


def change(cell: Cell, plain: Cell) -> tuple[float, float]:
    """(mean, standard error) over seeds of the accuracy of `cell` minus that of `plain`; NaN if unknown."""
    pairs = zip(cell.accuracies, plain.accuracies, strict=True)
    differences = [a - b for a, b in pairs if not isnan(a - b)]
    return mean(differences), spread(differences) / np.sqrt(max(1, len(differences)))


def sentences(found: Sequence[Cell]) -> list[str]:
    """What each control costs each method, in points, over all its sparsities."""
    plain = {(c.label, c.sparsity): c for c in found if c.control == "none"}
    told = []
    for control in dict.fromkeys(c.control for c in found if c.control != "none"):
        costs: dict[str, list[float]] = {}
        for cell in found:
            if cell.control == control and (cell.label, cell.sparsity) in plain:
                difference = change(cell, plain[cell.label, cell.sparsity])[0]
                costs.setdefault(cell.label, []).append(100 * difference)
        listed = ", ".join(f"{label} {mean(values):+.1f}" for label, values in costs.items())
        told.append(f"{control}, points of accuracy, mean over sparsities: {listed}")
    return told


def standardised_survivors(initial: Network, pruned: Network) -> Array:
    """Initial values, in units of their layer's standard deviation, of the weights present in `pruned`."""
    masks = pruned.masks()
    parts = []
    for name, layer in initial.prunable().items():
        value = layer.weight.dense().astype(np.float64)
        parts.append(value[masks[name]] / (value.std() or 1.0))
    return np.concatenate(parts)
