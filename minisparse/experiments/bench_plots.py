"""Curves of `bench kernels`: time and memory against sparsity, a line per format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, log2
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from minisparse.experiments.bench_cases import SHAPES
from minisparse.experiments.bench_summary import Record, break_even, crossing, fastest
from minisparse.experiments.theme import LIGHT, MARKERS, Look, Theme, themed
from minisparse.weights.formats import FORMATS

SWEPT = {1: "matvec unstructured", 256: "matmat unstructured"}  # batch: kernel
DENSE = "dense_s"
OTHERS: dict[str, tuple[str, Any, str]] = {  # beside our formats: name, line style, marker
    DENSE: ("dense, BLAS", "-", ""),
    "scipy_s": ("CSR, SciPy", "--", ""),
    "torch_dense_s": ("dense, PyTorch", "-", "|"),
    "torch_csr_s": ("CSR, PyTorch", (0, (1, 1.2)), ""),
    "mkl_s": ("CSR, MKL", (0, (4, 2)), "x"),
}
TICKS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
SPARSITY = "sparsity: share of weights that are zero"
VALUE_BITS = 32
CSR_LEAST = r"CSR at the least: nnz (32 + $\lceil\log_2$ in$\rceil$) + out $\lceil\log_2$ nnz$\rceil$ bits"


def style(name: str, theme: Theme) -> Look:
    """The look of a format, the same in all figures."""
    at = list(FORMATS).index(name)
    return Look(theme.hues[at % len(theme.hues)], MARKERS[at % len(MARKERS)])


@themed
def times(rows: Sequence[Record], batch: int, *, theme: Theme = LIGHT) -> Figure:
    """Median time and quartiles against sparsity, a row of panels per number of threads, a panel per shape.

    A ring and a dotted line mark where a format breaks even with dense BLAS; texts at the foot name it.
    """
    own = [r for r in rows if r["batch"] == batch and r["kernel"] == SWEPT[batch]]
    threads, shapes = distinct(own, "threads"), distinct(own, "shape")
    tall, wide = max(1, len(threads)), max(1, len(shapes))
    figure, axes = theme.figure(10.2, 1.0 + 3.6 * tall, tall, wide, sharey=True)
    for line, count in zip(axes, threads, strict=False):
        for at, shape in zip(line, shapes, strict=False):
            _curves(at, [r for r in own if r["threads"] == count and r["shape"] == shape], theme)
            at.set_title(f"W {shape}, batch {batch}, {plural(count, 'thread')}")
            sparsity_axis(at)
            log_axis(at, duration)
        line[0].set_ylabel("median time of one product")
    if own:  # room for the texts
        lowest = min(r["median_s"] for r in own)
        axes[0][0].set_ylim(bottom=lowest / 6)
    handles = samples(own, theme) + other_samples(own, theme)
    ring: dict[str, Any] = {
        "marker": "o",
        "fillstyle": "none",
        "markersize": 9,
        "mew": 1.5,
        "linestyle": (0, (1, 1.5)),
    }
    handles.append(Line2D([], [], color=theme.ink, linewidth=1, label="break-even", **ring))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    return figure


def _curves(axes: Axes, rows: Sequence[Record], theme: Theme) -> None:
    one_each = by_sparsity(fastest(rows))
    for column in present(one_each):
        points = [(r["sparsity"], r[column]) for r in one_each if r[column] is not None]
        axes.plot(*zip(*points, strict=True), zorder=1.5, **_other(column, theme))
    for place, name in enumerate(formats(rows)):
        own, look = by_sparsity(r for r in rows if r["format"] == name), style(name, theme)
        y, low, high = (np.array([r[column] for r in own]) for column in ("median_s", "q25_s", "q75_s"))
        axes.errorbar(
            [r["sparsity"] for r in own], y, [y - low, high - y], color=look.color, marker=look.marker,
            markersize=5, capsize=2, elinewidth=0.9, markeredgecolor=theme.paper, markeredgewidth=0.6,
        )  # fmt: skip
        _break_even(axes, name, own, place, theme)


def _break_even(axes: Axes, name: str, rows: Sequence[Record], place: int, theme: Theme) -> None:
    """Where one format breaks even; the texts of several stand above one another."""
    side, sparsity = break_even((r["sparsity"], r["median_s"] / r["dense_s"]) for r in rows)
    color = style(name, theme).color
    if sparsity is not None and side == "at":
        grid = [r["sparsity"] for r in rows]
        height = float(np.interp(sparsity, grid, [r["dense_s"] for r in rows]))
        dots = (0, (1, 1.5))
        axes.plot([sparsity] * 2, [1e-9, height], color=color, linewidth=1.1, linestyle=dots, zorder=1)
        axes.plot([sparsity], [height], "o", color=color, markersize=9, fillstyle="none", mew=1.5, zorder=6)
    ends = {"at": f"from {crossing(side, sparsity)}", "below": "at all sparsities shown", "never": "never"}
    axes.text(
        0.02, 0.025 + 0.07 * place, f"{name} beats dense {ends[side]}", color=color, fontsize=8.5,
        transform=axes.transAxes, bbox={"color": theme.paper, "alpha": 0.85, "pad": 0.6}, zorder=7,
    )  # fmt: skip


@themed
def memory(rows: Sequence[Record], *, theme: Theme = LIGHT) -> Figure:
    """Bytes of each format against sparsity, the dense matrix, and what CSR needs at the least; per shape."""
    wanted = [f"{out}x{inputs}" for out, inputs in SHAPES]
    shapes = [s for s in distinct(rows, "shape") if s in wanted] or distinct(rows, "shape")
    figure, axes = theme.figure(10.2, 5.0, 1, max(1, len(shapes)), sharey=True)
    for at, shape in zip(axes[0], shapes, strict=False):
        own = [r for r in rows if r["shape"] == shape]
        for name in formats(own):
            look, points = style(name, theme), sizes(own, name)
            at.plot(
                [s for s, _ in points], [size / 1e6 for _, size in points], color=look.color,
                marker=look.marker, markersize=5, markeredgecolor=theme.paper, markeredgewidth=0.6,
            )  # fmt: skip
        at.axhline(own[0]["dense_bytes"] / 1e6, color=theme.ink, linewidth=1.4, zorder=1.5)
        grid = np.linspace(0.1, 0.99, 90)
        least = [csr_bits(shape, s) / 8e6 for s in grid]
        at.plot(grid, least, color=theme.soft, linestyle="--", linewidth=1.4, zorder=1.5)
        at.set_title(f"W {shape}, float32")
        sparsity_axis(at)
        log_axis(at, lambda size: f"{size:g}")
    axes[0][0].set_ylabel("size in MB (10$^6$ bytes), indices included")
    handles = samples([r for r in rows if r["shape"] in shapes], theme)
    handles.append(Line2D([], [], color=theme.ink, linewidth=1.4, label="dense: 32 bits a weight"))
    handles.append(Line2D([], [], color=theme.soft, linestyle="--", linewidth=1.4, label=CSR_LEAST))
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def sizes(rows: Iterable[Record], name: str) -> list[tuple[float, int]]:
    """(sparsity, bytes) of a format, of masks without structure where there are such."""
    found: dict[float, int] = {}
    for row in sorted(rows, key=lambda r: r["kernel"] not in SWEPT.values()):
        if row["format"] == name:
            found.setdefault(row["sparsity"], row["bytes"])
    return sorted(found.items())


def csr_bits(shape: str, sparsity: float) -> int:
    """nnz (32 + ceil(log2 in)) + out ceil(log2 nnz): float32 values and the shortest indices of CSR."""
    out, inputs = sides(shape)
    nnz = round((1 - sparsity) * out * inputs)
    return nnz * (VALUE_BITS + _bits(inputs)) + out * _bits(nnz)


def _bits(count: int) -> int:
    return ceil(log2(count)) if count > 1 else 0


def sides(shape: str) -> tuple[int, int]:
    """(out, in) of '768x3072'."""
    out, _, inputs = shape.partition("x")
    return int(out), int(inputs)


def distinct(rows: Iterable[Record], name: str) -> list[Any]:
    """The values of a column in the order they come."""
    return list(dict.fromkeys(r[name] for r in rows))


def formats(rows: Iterable[Record]) -> list[str]:
    """The formats that occur, in the order of FORMATS."""
    found = set(distinct(rows, "format"))
    return [name for name in FORMATS if name in found]


def by_sparsity(rows: Iterable[Record]) -> list[Record]:
    """Records in ascending order of sparsity."""
    return sorted(rows, key=lambda r: r["sparsity"])


def present(rows: Sequence[Record]) -> list[str]:
    """Columns of OTHERS with at least one figure."""
    return [column for column in OTHERS if any(r.get(column) is not None for r in rows)]


def samples(rows: Sequence[Record], theme: Theme) -> list[Line2D]:
    """Legend entries of the formats."""
    found = [(name, style(name, theme)) for name in formats(rows)]
    return [
        Line2D([], [], color=look.color, marker=look.marker, markeredgecolor=theme.paper, label=name)
        for name, look in found
    ]


def other_samples(rows: Sequence[Record], theme: Theme) -> list[Line2D]:
    """Legend entries of other libraries."""
    handles = []
    for column in present(rows):
        handles.append(Line2D([], [], label=OTHERS[column][0], **_other(column, theme)))
    return handles


def _other(column: str, theme: Theme) -> dict[str, Any]:
    """How the line of another library looks."""
    _, dashes, marker = OTHERS[column]
    color = theme.ink if column == DENSE else theme.soft
    return {"color": color, "linestyle": dashes, "linewidth": 1.4, "marker": marker, "markersize": 5}


def sparsity_axis(axes: Axes) -> None:
    """Linear, in per cent."""
    axes.set_xlabel(SPARSITY)
    axes.set_xlim(0.06, 1.02)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{100 * s:.0f} %"))


def log_axis(axes: Axes, text: Any) -> None:
    """A logarithmic vertical axis with ticks at 1, 2 and 5, in words."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", labelleft=True)


def duration(seconds: float) -> str:
    """'50 \u00b5s', '2 ms'."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("\u00b5s", 1e-6)):
        if seconds >= 0.9999 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1e9 * seconds:.3g} ns"


def plural(count: int, noun: str) -> str:
    """'1 thread', '2 threads'."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
