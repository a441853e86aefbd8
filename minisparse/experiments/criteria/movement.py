"""Movement against magnitude while a trained network learns a new task: is what was large kept or what grows?

V. Sanh, T. Wolf, A. M. Rush. Movement Pruning: Adaptive Sparsity by Fine-Tuning. NeurIPS 2020.
arXiv:2005.07683

A network is trained on the digits, then fine-tuned on the digits turned by a right angle while it is pruned.
Magnitude keeps weights that were large before: fine-tuning moves them little. Movement keeps those that
fine-tuning moves away from 0, small ones among them; a masked weight keeps its value and goes on being
scored, so that it may return.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from minisparse.data.dataset import Dataset
from minisparse.data.digits import load
from minisparse.experiments.criteria.runs import Recipe, trained
from minisparse.experiments.summary import level, mean
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Scored
from minisparse.methods.dense import Dense
from minisparse.methods.learned.movement import Movement
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.rng import generator
from minisparse.sparsity.schedule import Cubic
from minisparse.training.state import TrainState

SEEDS = 3
MODEL = "lenet-300-100"
LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
SHOWN = 0.9
BEFORE, AFTER = Recipe(epochs=10), Recipe(lr=0.02, epochs=10)
METHODS: dict[str, Callable[[float], Scored]] = {
    "magnitude": lambda s: Magnitude(s, Cubic(0.1, 0.7, every=1)),
    "movement": lambda s: Movement(s, Cubic(0.1, 0.7, every=1)),
}
POINTS = 4000  # weights drawn


def turned(data: Dataset) -> Dataset:
    """The same images turned by a right angle."""
    own = data.images()
    train, test = (np.ascontiguousarray(np.rot90(x, axes=(2, 3))) for x in (own.train_x, own.test_x))
    return replace(own, name=f"{data.name}, turned", train_x=train, test_x=test)


@dataclass
class Course:
    """All weights before and after fine-tuning, which are kept; scores and gates half-way and at the end."""

    accuracy: float
    before: Array
    after: Array
    kept: Array
    scores: list[Array] = field(default_factory=list)
    gates: list[Array] = field(default_factory=list)


def _values(network: Network) -> Array:
    """The values behind masks, where a weight keeps one; else its effective value."""
    layers = network.prunable().values()
    return np.concatenate([layer.weight.params()["weight"].value.ravel() for layer in layers])


def _masks(network: Network) -> Array:
    return np.concatenate([mask.ravel() for mask in network.masks().values()])


def fine_tune(network: Network, data: Dataset, method: Scored, seed: int, after: Recipe) -> Course:
    """Prune a trained network while it learns `data`."""
    course = Course(0.0, _values(network), np.empty(0), np.empty(0))

    def watch(state: TrainState) -> None:
        if state.step in (state.horizon // 2, state.horizon):
            scores = method.score(state).values()
            course.scores.append(np.concatenate([score.ravel() for score in scores]))
            course.gates.append(_masks(state.network))
            course.after, course.kept = _values(state.network).copy(), course.gates[-1]

    course.accuracy = trained(method, seed, network, after, data, watch).accuracy
    return course


Table = dict[str, dict[float, list[Course]]]


def study(
    seeds: Sequence[int], progress: Progress = silent, levels: Sequence[float] = LEVELS,
    model: str = MODEL, before: Recipe = BEFORE, after: Recipe = AFTER,
) -> Study:  # fmt: skip
    """Both methods at all levels from the same trained networks."""
    data, found = load(), {label: {} for label in METHODS}  # type: Dataset, Table
    new = turned(data)
    plan = [(label, s) for label in METHODS for s in levels]
    for place, seed in enumerate(seeds):
        network = trained(Dense(), seed, model, before).network
        for done, (label, s) in enumerate(plan):
            progress((place + done / len(plan)) / len(seeds), f"{label}, {level(s)}, seed {seed}")
            course = fine_tune(network, new, METHODS[label](s), seed, after)
            found[label].setdefault(s, []).append(course)
    shown = min(levels, key=lambda s: abs(s - SHOWN))
    rows = [_row(label, s, runs) for label, own in found.items() for s, runs in own.items()]
    return Study(rows, _words(found, shown), movement_figure(found, shown))


def grown(course: Course) -> float:
    """Share of the kept weights that ended further from 0 than they began."""
    return float((np.abs(course.after) > np.abs(course.before))[course.kept].mean())


def small(course: Course) -> float:
    """Share of the kept weights that were not among as many largest before."""
    edge = np.partition(np.abs(course.before), -course.kept.sum())[-course.kept.sum()]
    return float((np.abs(course.before) < edge)[course.kept].mean())


def returned(course: Course) -> float:
    """Share of the weights kept at the end that were masked half-way."""
    return float((~course.gates[0] & course.kept).sum() / course.kept.sum())


def _row(label: str, s: float, runs: Sequence[Course]) -> dict[str, Any]:
    return {
        "method": label,
        "sparsity": s,
        "accuracy": mean(run.accuracy for run in runs),
        "kept_that_grew": mean(grown(run) for run in runs),
        "kept_that_were_small": mean(small(run) for run in runs),
        "kept_that_returned": mean(returned(run) for run in runs),
    }


def _words(found: Table, shown: float) -> list[str]:
    words = []
    for label, own in found.items():
        facts = _row(label, shown, own[shown])
        words.append(
            f"{label} at {level(shown)}: {100 * facts['kept_that_grew']:.0f} % of the kept weights grew, "
            f"{100 * facts['kept_that_were_small']:.0f} % were not among the largest before, "
            f"{100 * facts['kept_that_returned']:.1f} % were masked half-way."
        )
    gains = {
        s: 100 * (mean(r.accuracy for r in found["movement"][s]) - mean(r.accuracy for r in runs))
        for s, runs in found["magnitude"].items()
    }
    told = ", ".join(f"{gain:+.1f} at {level(s)}" for s, gain in gains.items())
    return [*words, f"Movement above magnitude, in points of accuracy: {told}."]


@themed
def movement_figure(found: Table, shown: float, *, theme: Theme = LIGHT) -> Figure:
    """Weights before and after for both, scores half-way and last, and accuracy against sparsity."""
    figure, axes = theme.figure(10.4, 8.6, 2, 2)
    for at, label in zip(axes[0], METHODS, strict=True):
        _scatter(at, found[label][shown][0], theme)
        at.set_title(f"{label}, {level(shown)} sparsity")
    _scores(axes[1][0], found["movement"][shown][0], theme)
    _accuracies(axes[1][1], found, theme)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _drawn(course: Course) -> Array:
    return generator(0, "drawn weights").permutation(course.kept.size)[:POINTS]


def _scatter(axes: Axes, course: Course, theme: Theme) -> None:
    """A removed weight of magnitude is 0 after; one of movement keeps the value that its mask hides."""
    at = _drawn(course)
    reach = float(np.abs(course.before[at]).max())
    axes.plot([-reach, reach], [-reach, reach], color=theme.soft, linewidth=1, linestyle=(0, (2, 3)))
    for kept, color, title in ((False, theme.plain, "removed"), (True, theme.hues[1], "kept")):
        own = at[course.kept[at] == kept]
        axes.plot(
            course.before[own], course.after[own], ".", color=color, alpha=0.6 if kept else 0.3, markersize=3,
            label=title, rasterized=True,
        )  # fmt: skip
    axes.set_xlabel("weight before fine-tuning")
    axes.set_ylabel("weight after fine-tuning")


def _scores(axes: Axes, course: Course, theme: Theme) -> None:
    """Of the weights that were masked half-way: how their scores changed from then on."""
    masked = np.flatnonzero(~course.gates[0])
    back = masked[course.kept[masked]]
    out = np.setdiff1d(_drawn(course), np.flatnonzero(course.gates[0] | course.kept))
    first, last = course.scores
    for at, color, size, title in (
        (out, theme.plain, 3, "still masked at the end"), (back, theme.hues[0], 5, "returned"),
    ):  # fmt: skip
        axes.plot(
            first[at], last[at] - first[at], ".", color=color, alpha=0.6, markersize=size, label=title,
            rasterized=True,
        )  # fmt: skip
    near = float(np.median(np.abs(first[out])))
    axes.set_xscale("symlog", linthresh=near)
    axes.set_yscale("symlog", linthresh=near / 10)
    for values, ticks in ((first[out], axes.xaxis), (last[out] - first[out], axes.yaxis)):
        top = 10 ** np.floor(np.log10(np.abs(values).max()))
        ticks.set_major_locator(FixedLocator([-top, -top / 100, 0, top / 100, top]))
    axes.set_title("Movement: scores of masked weights go on")
    axes.set_xlabel("score half-way, of weights masked then")
    axes.set_ylabel("change of the score until the end")
    axes.legend(loc="lower right")


def _accuracies(axes: Axes, found: Mapping[str, Mapping[float, Sequence[Course]]], theme: Theme) -> None:
    levels = list(next(iter(found.values())))
    for place, (label, own) in enumerate(found.items()):
        values = 100 * np.array([[run.accuracy for run in runs] for runs in own.values()])
        x, color = [1 - s for s in own], theme.hues[(2, 3)[place]]
        axes.plot(
            x, values.mean(axis=1), marker=MARKERS[place], color=color, label=label,
            markeredgecolor=theme.paper, markeredgewidth=0.7,
        )  # fmt: skip
        axes.fill_between(x, values.min(axis=1), values.max(axis=1), color=color, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlim(1.25 * (1 - min(levels)), (1 - max(levels)) / 1.25)
    axes.xaxis.set_major_locator(FixedLocator([1 - s for s in levels]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([level(s) for s in levels])
    axes.set_title("Test accuracy on the turned digits (%)")
    axes.set_xlabel("sparsity: share of weights that are zero")
    axes.legend(loc="lower left")
