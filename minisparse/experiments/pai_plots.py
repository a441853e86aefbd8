"""Figures of pruning at initialisation: cost of controls, where and which weights are kept, conservation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from minisparse.experiments.conservation import Balance
from minisparse.experiments.plan import REFERENCE
from minisparse.experiments.runner import Outcome
from minisparse.experiments.sanity import Case, Cell
from minisparse.experiments.summary import level, mean
from minisparse.experiments.theme import LIGHT, MARKERS, Look, Theme, looks, themed
from minisparse.nn.param import Array

WORDS = {
    "none": "as the method leaves it",
    "shuffle": "mask shuffled within layers",
    "reinit": "new weights",
    "invert": "worst weights kept",
}
LEVELS_SHOWN = 4


@themed
def accuracy_by_control(found: Sequence[Cell], chance: float, *, theme: Theme = LIGHT) -> Figure:
    """A panel per sparsity, a row per method: mean accuracy under each control, its spread as a bar.

    Hollow: at least one of the runs collapsed. The line is the dense network, dotted: one class for all.
    """
    levels = sorted({c.sparsity for c in found if c.sparsity})[-LEVELS_SHOWN:]
    labels = list(dict.fromkeys(c.label for c in found if c.label != REFERENCE))
    controls = list(dict.fromkeys(c.control for c in found))
    columns = min(2, max(1, len(levels)))
    rows = max(1, -(-len(levels) // columns))
    height = 0.9 + rows * (0.7 + 0.34 * len(labels))
    figure, axes = theme.figure(10.2, height, rows, columns, sharey=True, sharex=True)
    colors = dict(zip(controls, (theme.ink, *theme.hues), strict=False))
    for at in axes.flat[len(levels) :]:
        at.set_axis_off()
    dense = [c.mean for c in found if c.label == REFERENCE]
    for at, sparsity in zip(axes.flat, levels, strict=False):
        own = [c for c in found if c.sparsity == sparsity]
        for place, control in enumerate(controls):
            shift = 0.17 * (place - (len(controls) - 1) / 2)
            cells = [c for c in own if c.control == control]
            _points(at, cells, labels, shift, Look(colors[control], MARKERS[place]), theme)
        for value in dense:
            at.axvline(100 * value, color=theme.ink, linewidth=1)
        if not isnan(chance):
            at.axvline(100 * chance, color=theme.soft, linewidth=1, linestyle=(0, (2, 3)))
        at.set_title(f"{level(sparsity)} sparsity")
    axes[0][0].set_yticks(range(len(labels)), labels)
    axes[0][0].set_ylim(max(1, len(labels)) - 0.5, -0.5)
    axes[0][0].set_xlim(0, 101)
    for at in axes[-1]:
        at.set_xlabel("test accuracy (%)")
    handles = [
        Line2D([], [], color=colors[c], marker=MARKERS[k], linestyle="", label=WORDS.get(c, c))
        for k, c in enumerate(controls)
    ]
    handles.append(Line2D([], [], color=theme.ink, linewidth=1, label="dense"))
    handles.append(Line2D([], [], color=theme.soft, lw=1, linestyle=(0, (2, 3)), label="one class for all"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def _points(
    axes: Axes, cells: Sequence[Cell], labels: Sequence[str], shift: float, look: Look, theme: Theme
) -> None:
    for cell in cells:
        if isnan(cell.mean):
            continue
        error = 0.0 if isnan(cell.spread) else 100 * cell.spread
        axes.errorbar(
            100 * cell.mean, labels.index(cell.label) + shift, xerr=error, color=look.color,
            marker=look.marker, markersize=5, elinewidth=1, capsize=2, linestyle="",
            markerfacecolor=theme.paper if cell.collapsed else look.color,
        )  # fmt: skip


@themed
def layer_densities(made: Sequence[Case], outcomes: Sequence[Outcome], *, theme: Theme = LIGHT) -> Figure:
    """A panel per layer: the share of its weights that each method keeps, against the sparsity of all.

    Means over seeds, of runs without a control; the dashed line keeps the same share in every layer. At the
    lower edge: nothing kept.
    """
    runs = [(c.label, o) for c, o in zip(made, outcomes, strict=True) if c.control == "none" and o.layers]
    runs = [(label, o) for label, o in runs if o.sparsity_asked]
    names = list(dict.fromkeys(row.name for _, o in runs for row in o.layers))
    labels = list(dict.fromkeys(label for label, _ in runs))
    levels = sorted({o.sparsity_asked for _, o in runs})
    styles = looks(dict(zip(labels, labels, strict=True)), theme)
    columns = min(4, max(1, len(names)))
    rows = max(1, -(-len(names) // columns))
    figure, axes = theme.figure(10.2, 0.9 + 3.3 * rows, rows, columns, sharey=True, sharex=True)
    kept: list[float] = []
    for at, name in zip(axes.flat, names, strict=False):
        for label in labels:
            values = [_layer_density(runs, label, s, name) for s in levels]
            kept += [v for v in values if v > 0]
            shown = np.maximum(values, 1e-12)
            look = styles[label]
            at.plot(1 - np.array(levels), shown, look.marker, color=look.color, linestyle="-", label=label,
                    linewidth=1.3, markersize=5)  # fmt: skip
        at.plot(1 - np.array(levels), 1 - np.array(levels), color=theme.soft, linestyle=(0, (4, 3)), lw=1)
        at.set_title(f"'{name}'")
        at.set_xlabel("sparsity over all layers")
        at.set_xscale("log")
        at.set_yscale("log")
        at.set_xticks([1 - s for s in levels], [level(s) for s in levels], minor=False)
        at.set_xticks([], minor=True)
        at.invert_xaxis() if levels and not at.xaxis_inverted() else None
    for at in axes.flat[len(names) :]:
        at.set_axis_off()
    axes[0][0].set_ylim(min(kept, default=0.1) / 2, 1.3)
    axes[0][0].set_ylabel("share of the layer's weights kept")
    handles, texts = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=5)
    return figure


def _layer_density(runs: Sequence[tuple[str, Outcome]], label: str, sparsity: float, name: str) -> float:
    own = [o for own_label, o in runs if own_label == label and o.sparsity_asked == sparsity]
    return mean(row.kept / row.total for o in own for row in o.layers if row.name == name)


@themed
def survivors(values: Mapping[str, Array], everything: Array, *, theme: Theme = LIGHT) -> Figure:
    """Initial values of the kept weights, a panel per method; behind them all weights there were.

    values, everything: in units of each weight's layer's standard deviation.
    """
    columns = min(3, max(1, len(values)))
    rows = max(1, -(-len(values) // columns))
    figure, axes = theme.figure(10.2, 0.5 + 2.0 * rows, rows, columns, sharex=True, sharey=True)
    edges = np.linspace(-4, 4, 49)
    styles = looks({label: label for label in values}, theme)
    for at in axes.flat[len(values) :]:
        at.set_axis_off()
    for at, (label, own) in zip(axes.flat, values.items(), strict=False):
        for data, color, alpha in ((everything, theme.soft, 0.3), (own, styles[label].color, 0.55)):
            counts, _ = np.histogram(data, edges)
            at.stairs(
                counts / max(1, counts.sum()) / np.diff(edges), edges, color=color, fill=True, alpha=alpha
            )
        at.set_title(f"{label}: {len(own):,} kept")
    for at in axes[-1]:
        at.set_xlabel("initial value / its layer's \u03c3")
    for row in axes:
        row[0].set_ylabel("share per \u03c3")
    return figure


@themed
def conservation(found: Mapping[str, Balance], *, theme: Theme = LIGHT) -> Figure:
    """A panel per criterion with the units' scores, in against out; on the line they are equal.

    Last the layers' sums, in units of what they would be if all were equal: at 1 for what is conserved.
    """
    figure, axes = theme.figure(10.2, 3.7, 1, len(found) + 1)
    *panels, last = axes[0]
    for at, (label, one) in zip(panels, found.items(), strict=True):
        ends: list[float] = []
        for k, (name, (into, out)) in enumerate(one.units.items()):
            alive = (into > 0) & (out > 0)
            color = theme.hues[k % len(theme.hues)]
            at.plot(
                into[alive], out[alive], MARKERS[k], color=color, markersize=3.5, alpha=0.6,
                markeredgewidth=0, label=f"units of '{name}'",
            )  # fmt: skip
            ends += [*into[alive], *out[alive]]
        low, high = np.log10(min(ends, default=0.1)), np.log10(max(ends, default=1.0))
        span = [10 ** np.floor(low), 10 ** np.ceil(high)]
        at.plot(span, span, color=theme.ink, linewidth=0.9, label="in = out")
        at.set_xscale("log")
        at.set_yscale("log")
        for axis in (at.xaxis, at.yaxis):
            axis.set_minor_formatter(NullFormatter())
        at.set_title(f"{label}: hidden units")
        at.set_xlabel("sum of scores that enter")
        at.set_ylabel("sum of scores that leave")
        at.legend(fontsize=8)
    for k, (label, one) in enumerate(found.items()):
        shares = [value / one.mean for value in one.layers.values()]
        last.plot(range(len(shares)), shares, MARKERS[k], linestyle="-", color=theme.hues[k], label=label)
    names = list(next(iter(found.values())).layers)
    last.set_xticks(range(len(names)), names)
    last.axhline(1, color=theme.ink, linewidth=0.9)
    last.set_ylim(bottom=0)
    last.set_ylabel("sum over the layer / mean over layers")
    last.set_title("Whole layers")
    last.legend(fontsize=8)
    return figure
