"""LAMP against one ranking by magnitude: who keeps every layer alive on the way to the last weights?

J. Lee, S. Park, S. Mo, S. Ahn, J. Shin. Layer-adaptive Sparsity for the Magnitude-based Pruning. ICLR 2021.
arXiv:2010.07611

A convolutional network whose first linear layer holds most of its weights is trained, then pruned in five
rounds and fine-tuned. At each sparsity: its accuracy, and the density of the layer of which least is left.
A layer with no weight left lets nothing through; LAMP's best weight of every layer scores 1, so that no
layer is emptied. Ranked each by the same share (uniform), and with the first layer whole and the last at most
80 % sparse (Gale et al.; not to be met at the highest levels), layers are safe by decree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from minisparse.errors import SparsityError
from minisparse.experiments.criteria.runs import Recipe, densities, trained
from minisparse.experiments.summary import level, mean
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Scored
from minisparse.methods.dense import Dense
from minisparse.methods.saliency.lamp import LAMP
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.sparsity.allocation import FirstLast, Global, Uniform
from minisparse.sparsity.schedule import Rounds

SEEDS = 3
MODEL = "lenet-5-caffe"
LEVELS = (0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998)
BEFORE, AFTER = Recipe(lr=0.05, epochs=6, warmup=0.1), Recipe(lr=0.05, epochs=5)
ROUNDS = Rounds(5, begin=0.0, end=0.6)
RULES: dict[str, Callable[[float], Scored]] = {
    "magnitude, one ranking": lambda s: Magnitude(s, ROUNDS, Global()),
    "LAMP": lambda s: LAMP(s, ROUNDS),
    "normalised magnitude, one ranking": lambda s: Magnitude(s, ROUNDS, Global(), normalize=True),
    "magnitude, uniform": lambda s: Magnitude(s, ROUNDS, Uniform()),
    "magnitude, first and last spared": lambda s: Magnitude(s, ROUNDS, FirstLast()),
}


@dataclass(frozen=True)
class Point:
    """One pruned network: accuracy after fine-tuning, density by layer."""

    accuracy: float
    densities: dict[str, float]

    @property
    def least(self) -> tuple[str, float]:
        """The layer of which least is left, and its density."""
        name = min(self.densities, key=lambda layer: self.densities[layer])
        return name, self.densities[name]


Table = dict[str, dict[float, list[Point]]]


def sweep(
    seeds: Sequence[int],
    levels: Sequence[float],
    model: str,
    before: Recipe,
    after: Recipe,
    progress: Progress,
) -> Table:
    """Rule -> sparsity -> one point for each seed; a sparsity that a rule cannot meet has none."""
    found: Table = {}
    plan = [(label, s) for label in RULES for s in levels]
    for place, seed in enumerate(seeds):
        progress(place / len(seeds), f"dense, seed {seed}")
        network = trained(Dense(), seed, model, before).network
        for done, (label, s) in enumerate(plan):
            progress((place + (done + 1) / (len(plan) + 1)) / len(seeds), f"{label}, {level(s)}, seed {seed}")
            try:
                run = trained(RULES[label](s), seed, network, after)
            except SparsityError:
                continue
            point = Point(run.accuracy, densities(run.network))
            found.setdefault(label, {}).setdefault(s, []).append(point)
    return found


def study(
    seeds: Sequence[int], progress: Progress = silent, levels: Sequence[float] = LEVELS, model: str = MODEL,
    before: Recipe = BEFORE, after: Recipe = AFTER,
) -> Study:  # fmt: skip
    """All rules at all levels, from the same trained networks."""
    found = sweep(seeds, levels, model, before, after, progress)
    rows = [_row(label, s, points) for label, own in found.items() for s, points in own.items()]
    words = [_words(label, own, max(levels)) for label, own in found.items()]
    return Study(rows, words, collapse_figure(found, levels))


def _row(label: str, s: float, points: Sequence[Point]) -> dict[str, Any]:
    worst = min(points, key=lambda point: point.least[1])
    return {
        "rule": label,
        "density": round(1 - s, 12),
        "accuracy": mean(point.accuracy for point in points),
        "least": mean(point.least[1] for point in points),
        "layer": worst.least[0],
        "emptied": sum(point.least[1] == 0 for point in points),
    }


def _words(label: str, own: Mapping[float, Sequence[Point]], highest: float) -> str:
    emptied = [s for s, points in own.items() if any(point.least[1] == 0 for point in points)]
    last = max(own)
    end = f"{100 * mean(point.accuracy for point in own[last]):.1f} % accuracy at {level(last)}"
    if last < highest:
        end += ", beyond which what it spares is too much"
    if not emptied:
        return f"{label}: no layer is emptied up to {level(last)}; {end}."
    worst = min((p for p in own[min(emptied)]), key=lambda point: point.least[1])
    return f"{label}: empties {worst.least[0]} from {level(min(emptied))} on; {end}."


@themed
def collapse_figure(found: Table, levels: Sequence[float], *, theme: Theme = LIGHT) -> Figure:
    """Accuracy, and density of the thinnest layer, against sparsity; hollow at the edge where it is empty."""
    figure, axes = theme.figure(10.6, 4.9, 1, 2)
    left, right = axes[0]
    thinnest = [p.least[1] for own in found.values() for points in own.values() for p in points]
    floor = min((d for d in thinnest if d > 0), default=1.0) / 2.5
    for place, (label, own) in enumerate(found.items()):
        x = np.array([1 - s for s in own])
        accuracy = 100 * np.array([mean(p.accuracy for p in points) for points in own.values()])
        spans = [[100 * p.accuracy for p in points] for points in own.values()]
        least = np.array([mean(p.least[1] for p in points) for points in own.values()])
        style = {"color": theme.hues[place], "marker": MARKERS[place]}
        left.plot(x, accuracy, label=label, markeredgecolor=theme.paper, markeredgewidth=0.7, **style)
        low, high = ([f(span) for span in spans] for f in (min, max))
        left.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)
        alive = least > 0
        right.plot(x[alive], least[alive], markeredgecolor=theme.paper, markeredgewidth=0.7, **style)
        right.plot(x[~alive], np.full((~alive).sum(), floor), linestyle="", fillstyle="none", **style)
    diagonal = [1 - s for s in levels]
    right.plot(diagonal, diagonal, color=theme.soft, linewidth=1, linestyle=(0, (2, 3)))
    for at in (left, right):
        at.set_xscale("log")
        at.set_xlim(1.35 * max(diagonal), min(diagonal) / 1.35)
        at.xaxis.set_major_locator(FixedLocator(diagonal))
        at.xaxis.set_minor_locator(NullLocator())
        at.set_xticklabels([level(s) for s in levels])
        at.set_xlabel("sparsity: share of weights that are zero")
    left.set_ylim(-3, 103)
    left.set_title("Test accuracy (%)")
    right.set_yscale("log")
    right.yaxis.set_major_formatter(lambda share, at: f"{100 * share:g} %")
    right.set_title("Density of the thinnest layer (hollow: empty)")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
