"""Figures of ticket experiments: accuracy of the arms against sparsity, and how they learn.

Each function takes rows or curves of `cells` and a Theme and returns a matplotlib Figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from minisparse.experiments.cells import REFERENCE, ArmRow
from minisparse.experiments.summary import level
from minisparse.experiments.theme import LIGHT, MARKERS, Look, Theme, themed


def looks_of(arms: Sequence[str], theme: Theme) -> dict[str, Look]:
    """A colour and a marker for each arm, the reference in the colour of the text."""
    others = [arm for arm in dict.fromkeys(arms) if arm != REFERENCE]
    found = {
        arm: Look(theme.hues[at % len(theme.hues)], MARKERS[at % len(MARKERS)])
        for at, arm in enumerate(others)
    }
    return found | {REFERENCE: Look(theme.ink, "")}


@themed
def accuracy_of_arms(rows: Sequence[ArmRow], *, theme: Theme = LIGHT) -> Figure:
    """Left accuracy with its spread over seeds, right the steps to the lowest test loss; dense as a line."""
    figure, axes = theme.figure(10.2, 4.4, 1, 2, width_ratios=(1.4, 1))
    left, right = axes[0]
    styles = looks_of([row.arm for row in rows], theme)
    for arm, style in styles.items():
        own = sorted((r for r in rows if r.arm == arm), key=lambda r: r.level)
        if arm == REFERENCE:
            for row in own:
                left.axhline(100 * row.accuracy, color=style.color, linewidth=1.2, zorder=1)
                right.axhline(row.early, color=style.color, linewidth=1.2, zorder=1)
            continue
        x = [1 - row.level for row in own]
        spread = [0.0 if isnan(row.spread) else 100 * row.spread for row in own]
        left.errorbar(
            x, [100 * row.accuracy for row in own], spread, color=style.color, marker=style.marker,
            capsize=2.5, elinewidth=1.1, markeredgecolor=theme.paper, markeredgewidth=0.7,
        )  # fmt: skip
        right.plot(x, [row.early for row in own], color=style.color, marker=style.marker)
    for at, title in ((left, "Test accuracy at the end (%)"), (right, "Step of the lowest test loss")):
        at.set_title(title)
        _density(at, sorted({row.level for row in rows if row.level}))
    figure.legend(handles=_handles(styles), loc="outside lower center", ncols=6)
    return figure


def _density(axes: Any, levels: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlabel("sparsity: share of weights that are zero")
    if levels:
        axes.set_xlim(1.35 * (1 - levels[0]), (1 - levels[-1]) / 1.35)
        axes.xaxis.set_major_locator(FixedLocator([1 - s for s in levels]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([level(round(s, 3)) for s in levels])


def _handles(styles: Mapping[str, Look]) -> list[Line2D]:
    return [Line2D([], [], color=s.color, marker=s.marker, label=arm) for arm, s in styles.items()]


@themed
def learning_curves(curves: Sequence[Mapping[str, Any]], *, theme: Theme = LIGHT) -> Figure:
    """Mean accuracy of each arm while its last training goes on, one panel per level; dense in each."""
    levels = sorted({c["level"] for c in curves if c["level"]})
    figure, axes = theme.figure(10.2, 3.6, 1, max(1, len(levels)), sharey=True)
    styles = looks_of([c["arm"] for c in curves], theme)
    later = []
    for at, sparsity in zip(axes[0], levels, strict=False):
        for c in (c for c in curves if c["level"] in (sparsity, 0.0)):
            style = styles[c["arm"]]
            values = [100 * a for a in c["accuracy"]]
            later += [v for v in values[1:] if not isnan(v)]
            at.plot(c["steps"], values, color=style.color, marker=style.marker, markersize=3.5, linewidth=1.4)
        at.set_title(f"{level(round(sparsity, 3))} sparsity")
        at.set_xlabel("step")
    axes[0][0].set_ylabel("test accuracy (%)")
    axes[0][0].set_ylim(max(0.0, min(later, default=0.0) - 3), 101)
    figure.legend(handles=_handles(styles), loc="outside lower center", ncols=6)
    return figure


@themed
def barriers(rows: Sequence[Mapping[str, Any]], *, theme: Theme = LIGHT) -> Figure:
    """Mean error barrier between two trainings against the rewind point, a line per level."""
    figure, axes = theme.figure(6.4, 4.2)
    at = axes[0][0]
    for place, sparsity in enumerate(sorted({row["level"] for row in rows})):
        own = sorted((row for row in rows if row["level"] == sparsity), key=lambda row: row["rewind"])
        at.plot(
            [100 * row["rewind"] for row in own],
            [100 * row["barrier"] for row in own],
            color=theme.hues[place % len(theme.hues)],
            marker=MARKERS[place % len(MARKERS)],
            label="dense" if sparsity == 0 else f"{level(round(sparsity, 3))} sparse ticket",
        )
    at.set_xlabel("step at which the two part, % of a training")
    at.set_ylabel("barrier: rise of the test error (points)")
    at.set_title("Two orders of the data: do they end in one valley?")
    at.legend()
    return figure
