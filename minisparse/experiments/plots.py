"""Figures of a comparison: accuracy against sparsity, where the kept weights are, how training went.

Each function takes outcomes and a Theme and returns a matplotlib Figure; nothing is drawn on a screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from minisparse.experiments.runner import Outcome
from minisparse.experiments.summary import (
    Row,
    curves,
    dense_row,
    label_of,
    level,
    mean,
    summarise,
    tasks,
)
from minisparse.experiments.theme import LIGHT, Look, Theme, legend_columns, looks, themed

Looks = Mapping[str, Look]
WIDTH = 10.2  # inches
DODGE = 0.022
CLOSE = 0.08


@themed
def accuracy_against_sparsity(outcomes: Sequence[Outcome], *, theme: Theme = LIGHT) -> Figure:
    """Mean and spread over seeds per method; dense as a band; runs that collapsed as crosses.

    Left the whole range, right the part near the dense network; a row of panels for each model and data
    set. A method that finds its sparsity stands where it found it.
    """
    rows = summarise(outcomes)
    groups = tasks(rows) or {"": []}
    handles = _legend(rows, outcomes, theme)
    columns = legend_columns((str(h.get_label()) for h in handles), WIDTH)
    height = 4.2 * len(groups) + 0.4 + 0.2 * max(0, -(-len(handles) // columns) - 2)
    figure, axes = theme.figure(WIDTH, height, len(groups), 2, width_ratios=(1.25, 1))
    styles = _styles(rows, theme)
    for (task, own), (wide, close) in zip(groups.items(), axes, strict=True):
        title = f": {task}" if len(groups) > 1 else ""
        _panels(wide, close, own, outcomes, styles, theme)
        wide.set_title(f"The whole range{title}")
        close.set_title(f"Near the dense network{title}")
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return figure


def _panels(
    wide: Axes, close: Axes, rows: Sequence[Row], outcomes: Sequence[Outcome], styles: Looks, theme: Theme
) -> None:
    """One task: its whole range, and what is near the dense network."""
    dense = dense_row(rows)
    best = max((r.accuracy for r in rows if not isnan(r.accuracy)), default=1.0)
    top = best if dense is None else dense.accuracy
    pruned = [row for row in rows if not row.reference]
    near = [row for row in pruned if row.accuracy > top - CLOSE]
    for at, shown in ((wide, pruned), (close, near or pruned)):
        _curves(at, rows, outcomes, styles, theme)
        _reference(at, rows, theme)
        _sparsity_axis(at, [row.sparsity_asked for row in shown if not row.finds], shown)
    wide.set_ylim(-3, 103)
    wide.set_ylabel("test accuracy (%)")
    close.set_ylim(100 * (top - CLOSE), 100 * (max(top, best) + CLOSE / 6))


def _styles(rows: Sequence[Row], theme: Theme) -> Looks:
    """One look for each line, the same in all panels."""
    found = {label: own[0].method for task in tasks(rows).values() for label, own in curves(task).items()}
    return looks(found, theme)


def _curves(
    axes: Axes, rows: Sequence[Row], outcomes: Sequence[Outcome], styles: Looks, theme: Theme
) -> None:
    status = {o.spec.key: (o.accuracy, o.status) for o in outcomes}
    found = curves(rows)
    for place, (label, own) in enumerate(found.items()):
        shift = 1.0 if own[0].finds else 10 ** (DODGE * (place - (len(found) - 1) / 2))
        style = styles[label]
        x = [(1 - row.place) * shift for row in own]
        y = [100 * row.accuracy for row in own]
        spread = [0.0 if isnan(row.spread) else 100 * row.spread for row in own]
        axes.errorbar(
            x, y, spread, color=style.color, marker=style.marker, capsize=2.5, elinewidth=1.1,
            markeredgecolor=theme.paper, markeredgewidth=0.7,
        )  # fmt: skip
        for at, row in zip(x, own, strict=True):
            runs = [status[key] for key in row.keys]
            fallen = [100 * accuracy for accuracy, how in runs if how == "collapsed"]
            axes.plot([at] * len(fallen), fallen, "x", color=theme.alarm, markersize=7, mew=1.6, zorder=5)


def _reference(axes: Axes, rows: Sequence[Row], theme: Theme) -> None:
    dense = dense_row(rows)
    if dense is None:
        return
    half = 0.0 if isnan(dense.spread) else dense.spread
    axes.axhline(100 * dense.accuracy, color=theme.ink, linewidth=1.2, zorder=1)
    low, high = 100 * (dense.accuracy - half), 100 * (dense.accuracy + half)
    axes.axhspan(low, high, color=theme.ink, alpha=0.13, linewidth=0, zorder=0)
    if not isnan(dense.chance):
        axes.axhline(100 * dense.chance, color=theme.soft, linewidth=1, linestyle=(0, (2, 3)), zorder=1)


def _sparsity_axis(axes: Axes, sparsities: Sequence[float], rows: Sequence[Row]) -> None:
    """A logarithmic axis of density, falling to the right, labelled with sparsity."""
    places = sorted({row.place for row in rows if 0 <= row.place < 1})
    levels = sorted({s for s in sparsities if 0 <= s < 1}) or places
    axes.set_xscale("log")
    axes.set_xlabel("sparsity: share of weights that are zero")
    if not levels:
        return
    axes.set_xlim(1.35 * (1 - places[0]), (1 - places[-1]) / 1.35)
    axes.xaxis.set_major_locator(FixedLocator([1 - s for s in levels]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([level(s) for s in levels])


def _legend(rows: Sequence[Row], outcomes: Sequence[Outcome], theme: Theme) -> list[Line2D]:
    handles = [_sample(look, label, theme) for label, look in _styles(rows, theme).items()]
    if dense_row(rows) is not None:
        handles.append(Line2D([], [], color=theme.ink, linewidth=1.2, label="dense, \u00b1 its spread"))
        handles.append(Line2D([], [], color=theme.soft, linestyle=(0, (2, 3)), label="one class for all"))
    if any(o.status == "collapsed" for o in outcomes):
        handles.append(
            Line2D([], [], color=theme.alarm, marker="x", linestyle="", mew=1.8, label="collapsed run")
        )
    return handles


def _sample(look: Look, label: str, theme: Theme) -> Line2D:
    return Line2D([], [], color=look.color, marker=look.marker, markeredgecolor=theme.paper, label=label)


@themed
def density_of_layers(outcomes: Sequence[Outcome], *, theme: Theme = LIGHT) -> Figure:
    """Share of weights each layer keeps, per method (mean over seeds); one panel per sparsity shown."""
    levels = shown_levels(outcomes)
    runs = [[o for o in outcomes if o.sparsity_asked == s and o.layers] for s in levels]
    names = list(dict.fromkeys(row.name for group in runs for o in group for row in o.layers))
    methods = list(dict.fromkeys(label_of(o) for group in runs for o in group))
    width, height = max(1, len(levels)), 1.5 + 0.33 * len(methods)
    longest = max((len(label) for label in methods), default=0)
    figure, axes = theme.figure(WIDTH + 0.075 * max(0, longest - 24), height, 1, width, sharey=True)
    for at, group, sparsity in zip(axes[0], runs, levels, strict=False):
        table = [[_density(group, method, name) for method in methods] for name in names]
        least = min((d for points in table for d in points if d > 0), default=1.0) / 2
        at.set_xscale("log")
        at.set_xlim(least / 1.3, 1.4)
        for place, (name, points) in enumerate(zip(names, table, strict=True)):
            _layer_points(at, points, theme.hues[place % len(theme.hues)], place, least, name)
        at.axvline(1 - sparsity, color=theme.soft, linewidth=1, linestyle=(0, (4, 3)))
        at.xaxis.set_major_formatter(lambda density, place: f"{100 * density:g} %")
        at.set_xlabel("density: share of the layer's weights kept")
        at.set_title(f"{level(sparsity)} sparsity over all layers")
    axes[0][0].set_yticks(range(len(methods)), methods)
    axes[0][0].set_ylim(max(1, len(methods)) - 0.5, -0.5)
    handles, labels = axes[0][0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=theme.soft, linestyle=(0, (4, 3))))
    columns = min(8, len(names) + 1)
    figure.legend(handles, [*labels, "all layers together"], loc="outside lower center", ncols=columns)
    return figure


def _density(group: Sequence[Outcome], label: str, layer: str) -> float:
    """Mean density of a layer over the runs of a method; NaN if there is none."""
    rows = [row for o in group if label_of(o) == label for row in o.layers if row.name == layer]
    return mean(row.kept / row.total for row in rows)


def _layer_points(
    axes: Axes, points: Sequence[float], color: str, place: int, least: float, name: str
) -> None:
    """Dots, and a hollow one at the edge for a layer that keeps nothing."""
    values, where = np.array(points), np.arange(len(points))
    empty = values == 0
    marker = "osD^vP*h"[place % 8]
    axes.plot(values[~empty], where[~empty], marker, color=color, markersize=8, alpha=0.9, label=name)
    axes.plot(np.full(empty.sum(), least), where[empty], marker, color=color, fillstyle="none", markersize=8)


@themed
def training_curves(outcomes: Sequence[Outcome], *, theme: Theme = LIGHT) -> Figure:
    """Accuracy and sparsity while training, one run per method at the usual sparsity."""
    figure, axes = theme.figure(WIDTH, 5.2, 2, 1, sharex=True, height_ratios=(1.5, 1))
    upper, lower = axes[:, 0]
    usual = shown_levels(outcomes)[:1]
    first = min((o.spec.seed for o in outcomes), default=0)
    runs = [o for o in outcomes if o.spec.seed == first and o.history]
    runs = [o for o in runs if o.sparsity_asked in usual or not o.sparsity_asked]
    styles = looks({label_of(o): o.spec.method for o in outcomes}, theme)
    for outcome in runs:
        style = styles[label_of(outcome)]
        steps = [record["step"] for record in outcome.history]
        for at, name in ((upper, "accuracy"), (lower, "sparsity")):
            values = [100 * record[name] for record in outcome.history]
            at.plot(steps, values, color=style.color, linewidth=1.5)
            at.plot(steps[-1:], values[-1:], style.marker, color=style.color)
    upper.set_title(" ".join(["While training", *(f"to {level(s)} sparsity" for s in usual)]))
    upper.set_ylabel("test accuracy (%)")
    lower.set_ylabel("sparsity (%)")
    lower.set_xlabel("step: updates of the weights")
    later = [100 * r["accuracy"] for o in runs for r in o.history[2:] if not isnan(r["accuracy"])]
    upper.set_ylim(max(-3.0, min(later, default=0.0) - 5), 101)
    lower.set_ylim(-3, 103)
    labels = list(dict.fromkeys(label_of(o) for o in runs))
    handles = [_sample(styles[label], label, theme) for label in labels]
    figure.legend(handles=handles, loc="outside lower center", ncols=legend_columns(labels, WIDTH))
    return figure


def shown_levels(outcomes: Sequence[Outcome]) -> list[float]:
    """The sparsity nearest to 90 % and, if there is a higher one, the highest."""
    levels = sorted({o.sparsity_asked for o in outcomes if o.sparsity_asked})
    if not levels:
        return []
    usual = min(levels, key=lambda s: abs(s - 0.9))
    return list(dict.fromkeys((usual, levels[-1])))
