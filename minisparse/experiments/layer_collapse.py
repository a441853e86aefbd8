"""Layer collapse: how far can each method compress before nothing connects inputs with outputs?

H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli. Pruning neural networks without any data by iteratively
conserving synaptic flow. NeurIPS 2020. arXiv:2006.05467

With n prunable weights in L layers of which n / rho are kept,

    maximal compression    rho_max = n / L: one weight a layer, one path                     (1)
    critical compression   the largest rho at which, and below which, the method's network
                           still has a path of kept weights from inputs to outputs           (2)

A method of which both agree wastes nothing. A single ranking by magnitude, SNIP or GraSP empties the layer
whose scores are smallest long before; SynFlow shares one total flow R among the weights of every layer, so
that a layer's few last weights have large scores and stay.

Compression is taken at steps of the same factor, up to (1). The masks of methods at initialisation are those
of the trained networks, so both accuracy and paths are read off the same runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isnan, log10
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from minisparse.experiments.runner import Outcome
from minisparse.experiments.sanity import Case, cases
from minisparse.experiments.summary import mean
from minisparse.experiments.theme import LIGHT, Look, Theme, looks, themed
from minisparse.nn.network import Network
from minisparse.rng import generator
from minisparse.training.collapse import cut_layer

LABELS = ("random", "magnitude-init", "snip", "iterative-snip", "force", "grasp", "synflow")
PER_DECADE = 3


def maximal_compression(network: Network) -> float:
    """Equation (1)."""
    weights = [layer.weight for layer in network.prunable().values()]
    return sum(w.size for w in weights) / len(weights)


def compressions(network: Network, per_decade: int = PER_DECADE) -> list[float]:
    """10^(k / per_decade) for k = 1, 2, ... below the maximal compression, and that."""
    top = maximal_compression(network)
    steps = floor(per_decade * log10(top) * (1 - 1e-12))
    return [*(10 ** (k / per_decade) for k in range(1, steps + 1)), top]


def collapse_cases(
    network: Network,
    labels: Sequence[str] = LABELS,
    seeds: Sequence[int] = (0, 1, 2),
    training: Mapping[str, Any] | None = None,
    per_decade: int = PER_DECADE,
) -> list[Case]:
    """The runs; network: one of the model, for its sizes."""
    sparsities = [1 - 1 / rho for rho in compressions(network, per_decade)]
    return cases(labels, sparsities, ("none",), seeds, training or {})


def paths(network: Network) -> float:
    """Number of paths of kept weights from an input to an output, 0 if there is none.

    Computed by passing ones through a copy whose present weights are 1 and all else as when made. Exact for
    chains of linear layers; max pooling counts one position of each window.
    """
    work = network.astype(np.float64)
    work.reinitialise(generator(0, "paths"))
    for layer in work.prunable().values():
        layer.weight.assign(np.ones(layer.weight.shape))
    return float(work.forward(np.ones((1, *work.input_shape))).sum())


@dataclass(frozen=True)
class Point:
    """One run. paths: NaN if its network was not kept; cut: the layer where the last path ends, or ''."""

    label: str
    seed: int
    compression: float
    accuracy: float
    chance: float
    paths: float
    cut: str


def points(made: Sequence[Case], outcomes: Sequence[Outcome], networks: Mapping[str, Network]) -> list[Point]:
    """A Point for each pruned run; networks: the trained ones, by the spec's key."""
    found = []
    for case, outcome in zip(made, outcomes, strict=True):
        if not case.spec.sparsity:
            continue
        network = networks.get(case.spec.key)
        count = float("nan") if network is None else paths(network)
        cut = "" if network is None else cut_layer(network) or ""
        rho = 1 / (1 - case.spec.sparsity)
        found.append(Point(case.label, case.spec.seed, rho, outcome.accuracy, outcome.chance, count, cut))
    return found


@dataclass(frozen=True)
class Critical:
    """Equation (2), in every seed: 1 if the first step is too much; and the layer that gives way after it."""

    label: str
    compression: float
    cut: str


def critical(found: Sequence[Point]) -> list[Critical]:
    """One Critical per method, over the compressions that were tried."""
    told = []
    for label in dict.fromkeys(p.label for p in found):
        own = sorted((p for p in found if p.label == label), key=lambda p: p.compression)
        broken = [p for p in own if p.paths == 0]
        first = broken[0].compression if broken else float("inf")
        last = max((p.compression for p in own if p.compression < first), default=1.0)
        told.append(Critical(label, last, broken[0].cut if broken else ""))
    return told


@themed
def collapse_figure(found: Sequence[Point], maximum: float, *, theme: Theme = LIGHT) -> Figure:
    """Left paths against compression, right test accuracy; means over seeds.

    Hollow: no path is left in one of the seeds. The vertical line is the maximal compression.
    """
    figure, axes = theme.figure(10.2, 4.8, 1, 2)
    left, right = axes[0]
    labels = list(dict.fromkeys(p.label for p in found))
    styles = looks(dict(zip(labels, labels, strict=True)), theme)
    for label in labels:
        _lines(left, right, [p for p in found if p.label == label], styles[label], theme)
    for at in (left, right):
        at.axvline(maximum, color=theme.ink, linewidth=1)
        at.set_xscale("log")
        at.set_xlabel("compression: weights in all / weights kept")
    left.set_yscale("symlog", linthresh=1)
    left.set_ylim(-0.25, 3 * max((p.paths for p in found if not isnan(p.paths)), default=1.0))
    left.set_ylabel("paths from inputs to outputs")
    left.set_title("Paths of kept weights")
    chance = mean(p.chance for p in found)
    if not isnan(chance):
        right.axhline(100 * chance, color=theme.soft, linewidth=1, linestyle=(0, (2, 3)))
    right.set_ylim(-3, 103)
    right.set_ylabel("test accuracy (%)")
    right.set_title("After training")
    handles, _ = left.get_legend_handles_labels()
    handles.append(Line2D([], [], color=theme.soft, marker="o", mfc=theme.paper, ls="", label="no path left"))
    handles.append(Line2D([], [], color=theme.ink, linewidth=1, label="maximal compression"))
    handles.append(Line2D([], [], color=theme.soft, linestyle=(0, (2, 3)), label="one class for all"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def _lines(left: Axes, right: Axes, own: Sequence[Point], look: Look, theme: Theme) -> None:
    """One method: lines of means over seeds, the marker hollow where a seed has no path left."""
    places = sorted({p.compression for p in own})
    groups = [[p for p in own if p.compression == rho] for rho in places]
    dead = [any(p.paths == 0 for p in group) for group in groups]
    counts = [mean(p.paths for p in group) for group in groups]
    accuracies = [100 * mean(p.accuracy for p in group) for group in groups]
    for at, values in ((left, counts), (right, accuracies)):
        at.plot(places, values, color=look.color, linewidth=1.3)
        for hollow in (False, True):
            shown = [(x, y) for x, y, d in zip(places, values, dead, strict=True) if d == hollow]
            at.plot(
                [x for x, _ in shown], [y for _, y in shown], look.marker, color=look.color,
                markerfacecolor=theme.paper if hollow else look.color, markersize=5,
            )  # fmt: skip
    left.plot([], [], look.marker, color=look.color, linestyle="-", linewidth=1.3, label=own[0].label)
