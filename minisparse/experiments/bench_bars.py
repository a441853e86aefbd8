"""Two more figures of `bench kernels`: the roofline with every product, and the layer of ViT-B/16 as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import atan, degrees
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from minisparse.experiments.bench_plots import distinct, duration, formats, plural, style
from minisparse.experiments.bench_summary import Record, fastest
from minisparse.experiments.roofline import attainable, ridge
from minisparse.experiments.theme import LIGHT, Theme, themed

VIT = "ViT-B/16"
FAMILIES = ("matvec", "matmat", "dX", "dW", "conv", VIT)  # first words of the kernels' names
SCOPE = (0.04, 400.0)  # flop/byte
BEST = "best of ours"
BARS = {  # name of a bar: format, or column of another library
    "dense, BLAS": "dense_s",
    "dense, PyTorch": "torch_dense_s",
    "structured, ours": "reduced",
    "CSR, SciPy": "scipy_s",
    "CSR, PyTorch": "torch_csr_s",
    "CSR, MKL": "mkl_s",
    "CSR, ours": "csr",
    "condensed, ours": "condensed",
    BEST: "",
}
BAR_WIDTH = 0.86  # of a group, whose neighbour is 1 away


@themed
def rooflines(
    rows: Sequence[Record], machines: Sequence[Mapping[str, Any]], *, theme: Theme = LIGHT
) -> Figure:
    """Every product as a point under the measured ceilings, a panel per number of threads.

    Filled: a sparse product in a format, counting the operations the mask asks for. Grey rings: the same
    products dense.
    """
    figure, axes = theme.figure(10.2, 6.0, 1, max(1, len(machines)), sharey=True)
    for at, machine in zip(axes[0], machines, strict=False):
        own = [r for r in rows if r["threads"] == machine["threads"]]
        _points(at, own, theme)
        _roof(at, rows, machine, theme)
        at.set_title(plural(machine["threads"], "thread"))
        at.set_xlabel("intensity: flops / bytes moved (flop/byte)")
    axes[0][0].set_ylabel("flops / median time (GFLOP/s)")
    shown = [name for name in FAMILIES if any(family(r) == name for r in rows)]
    handles: list[Artist] = [Patch(color=_hue(name, theme), label=name) for name in shown]
    handles.append(
        Line2D([], [], color=theme.soft, marker="o", fillstyle="none", linestyle="", label="dense")
    )
    for name in formats(rows):
        marker = style(name, theme).marker
        handles.append(Line2D([], [], color=theme.ink, marker=marker, linestyle="", label=name))
    figure.legend(handles=handles, loc="outside lower center", ncols=7)
    return figure


def family(row: Record) -> str:
    """The kernel without the structure of its mask."""
    return str(row["kernel"]).partition(" ")[0]


def _hue(name: str, theme: Theme) -> str:
    return theme.hues[FAMILIES.index(name) % len(theme.hues)]


def _points(axes: Axes, rows: Sequence[Record], theme: Theme) -> None:
    for row in fastest(rows):
        x, y = dense_point(row)
        axes.plot(x, y, "o", color=theme.soft, fillstyle="none", markersize=5, mew=0.9, zorder=2)
    for row in rows:
        axes.plot(
            row["flops"] / row["bytes_moved"], row["gflops"], style(row["format"], theme).marker,
            color=_hue(family(row), theme), markersize=5.5, alpha=0.85, markeredgecolor=theme.paper,
            markeredgewidth=0.5, zorder=3,
        )  # fmt: skip


def dense_point(row: Record) -> tuple[float, float]:
    """(intensity, GFLOP/s) of the same product with the whole matrix."""
    flops = row["flops"] / (1 - row["sparsity"])
    moved = row["bytes_moved"] - row["bytes"] + row["dense_bytes"]
    return flops / moved, flops / row["dense_s"] / 1e9


def _roof(axes: Axes, rows: Sequence[Record], machine: Mapping[str, Any], theme: Theme) -> None:
    """Ceilings with their names: the slopes of memory levels below the highest peak, and the peaks."""
    bandwidths, peaks = machine["bandwidth"], machine["peak"]
    top = max(peaks.values())
    box = {"color": theme.paper, "alpha": 0.8, "pad": 0.4}
    left, right = SCOPE
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    low = min([left * min(bandwidths.values()), *(r["gflops"] for r in rows)])
    axes.set_ylim(low / 1.5, 2 * max(top, axes.get_ylim()[1] / 2))
    for place, (name, rate) in enumerate(bandwidths.items()):
        x = np.array([left, ridge(top, rate)])
        y = [attainable(each, top, rate) for each in x]
        axes.plot(x, y, color=theme.ink, linewidth=1.2, zorder=1.5)
        at = left * 1.15 * 2.4 ** (place % 2)  # neighbours may be about as fast
        axes.text(
            at, 1.09 * rate * at, f"{name} {rate:.0f} GB/s", fontsize=8.5, rotation=degrees(atan(rate)),
            rotation_mode="anchor", transform_rotates_text=True, zorder=4, bbox=box,
        )  # fmt: skip
    begin = 1.3 * ridge(top, min(bandwidths.values()))
    for place, (name, rate) in enumerate(sorted(peaks.items(), key=lambda peak: -peak[1])):
        start = ridge(rate, max(bandwidths.values()))
        dashes, note = ("-", "") if rate == top else ("--", " (dashed)")
        axes.plot([start, right], [rate, rate], color=theme.ink, linewidth=1.2, linestyle=dashes, zorder=1.5)
        text = f"{name} {rate:.0f} GFLOP/s{note}"
        axes.text(begin, 1.08 * 1.3**place * top, text, fontsize=8.5, zorder=4)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


@themed
def vit(rows: Sequence[Record], *, theme: Theme = LIGHT) -> Figure:
    """The layer of figure 4 of Lasby et al. 2024: bars by sparsity, a panel per batch and number of threads.

    Above each bar its speed-up over dense BLAS; above the best of our formats its name as well.
    """
    own = [r for r in rows if r["kernel"] == VIT]
    panels = [(batch, count) for batch in distinct(own, "batch") for count in distinct(own, "threads")]
    figure, axes = theme.figure(10.2, 0.9 + 2.5 * max(1, len(panels)), max(1, len(panels)), 1)
    names: list[str] = []
    for at, (batch, count) in zip(axes[:, 0], panels, strict=False):
        panel = [r for r in own if (r["batch"], r["threads"]) == (batch, count)]
        names = _bars(at, panel, theme)
        at.set_title(f"W {panel[0]['shape']}, batch {batch}, {plural(count, 'thread')}")
        at.set_ylabel("median time")
        at.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds) if seconds else "0"))
        at.grid(False, axis="x")
    if panels:
        axes[-1][0].set_xlabel("sparsity: share of weights that are zero")
    colors = bar_colors(theme)
    handles = [Patch(color=colors[name], label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def bar_colors(theme: Theme) -> dict[str, str]:
    """Colour of each bar: greys for other libraries, the format's own for ours."""
    greys = {"dense, BLAS": theme.ink, "dense, PyTorch": theme.soft}
    ours = {
        name: style(BARS[name], theme).color for name in ("structured, ours", "CSR, ours", "condensed, ours")
    }
    csr = {"CSR, SciPy": theme.hues[4], "CSR, PyTorch": theme.hues[6], "CSR, MKL": theme.hues[5]}
    return greys | csr | ours | {BEST: theme.alarm}


def _bars(axes: Axes, rows: Sequence[Record], theme: Theme) -> list[str]:
    """Draw the groups of one panel; the names of the bars it has."""
    sparsities, colors = sorted(set(distinct(rows, "sparsity"))), bar_colors(theme)
    groups = [heights([r for r in rows if r["sparsity"] == s]) for s in sparsities]
    names = [name for name in BARS if any(name in group for group in groups)]
    width = BAR_WIDTH / max(1, len(names))
    for place, group in enumerate(groups):
        for k, name in enumerate(n for n in names if n in group):
            seconds, note = group[name]
            x = place + (k - (len(names) - 1) / 2) * width
            axes.bar(x, seconds, 0.92 * width, color=colors[name])
            ratio = group["dense, BLAS"][0] / seconds
            text = f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x"
            axes.annotate(
                f"{text} {note}".strip(), (x, seconds), (0, 2), textcoords="offset points", fontsize=7,
                rotation=90, ha="center", va="bottom",
            )  # fmt: skip
    top = max((seconds for group in groups for seconds, _ in group.values()), default=1.0)
    axes.set_ylim(0, 1.25 * top)
    axes.set_xticks(range(len(sparsities)), [f"{100 * s:g} %" for s in sparsities])
    return names


def heights(rows: Sequence[Record]) -> dict[str, tuple[float, str]]:
    """(seconds, note) of each bar for the records of one product."""
    by_format = {r["format"]: r for r in rows}
    best = fastest(rows)[0]
    found = {}
    for name, source in BARS.items():
        if source in by_format:
            found[name] = (by_format[source]["median_s"], "")
        elif best.get(source) is not None:
            found[name] = (best[source], "")
    return found | {BEST: (best["median_s"], best["format"])}
