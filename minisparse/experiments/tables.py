"""The tables of the report page: means over seeds, single runs, layers, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan
from xml.etree.ElementTree import Element

from minisparse.experiments.diagnosis import explain
from minisparse.experiments.inspect import FORMATS, LayerRow
from minisparse.experiments.page import Part, folded, node, row, section, table
from minisparse.experiments.pictures import pictured
from minisparse.experiments.runner import Outcome
from minisparse.experiments.summary import Row, dense_row, label_of, level, percent

GROUPS = (("", 4), ("zeros", 1), ("bytes stored", len(FORMATS)), ("theory", 1), ("time, measured", 2))
RESULTS = (
    "method", "accuracy", "vs dense", "runs", "in the mask", *FORMATS, "MACs", "training", "forward",
)  # fmt: skip
RUNS = ("key", "method", "seed", "sparsity", "obtained", "accuracy", "status", "steps", "seconds")
LAYERS = (
    "layer", "shape", "kept", "total", "sparsity", "inputs unread", "units unfed", "MACs", "FLOPs", *FORMATS,
)  # fmt: skip
WRONG = ("method", "sparsity", "seed", "how", "why")


def scaled(number: float, unit: str = "") -> str:
    """``39.4 k``, ``1.2 M``; a dash for NaN."""
    if isnan(number):
        return "-"
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.1f} {prefix}{unit}"
    return f"{number:.0f} {unit}".rstrip()


def fixed(number: float, digits: int) -> str:
    """A number with so many decimals; a dash for NaN."""
    return "-" if isnan(number) else f"{number:,.{digits}f}"


def zeros(sparsity: float) -> str:
    """A sparsity obtained, to a thousandth of a per cent; a dash for NaN."""
    return "-" if isnan(sparsity) else f"{100 * sparsity:.3f} %"


def results(rows: Sequence[Row]) -> Element:
    """One line per method and sparsity, grouped by sparsity, best first."""
    dense = dense_row(rows)
    top = [node("th", text, colspan=str(span), class_="group" if text else "") for text, span in GROUPS]
    heads = [node("th", name, class_="number" if at >= 4 else "") for at, name in enumerate(RESULTS)]
    bodies = []
    for sparsity in sorted({r.sparsity_asked for r in rows}):
        own = [r for r in rows if r.sparsity_asked == sparsity]
        own.sort(key=lambda r: 0.0 if isnan(r.accuracy) else -1 - r.accuracy)
        name = f"{level(sparsity)} sparsity asked" if sparsity else "no sparsity asked"
        heading = node("tr", node("th", name, colspan=str(len(RESULTS)), scope="colgroup"), class_="level")
        bodies.append([heading, *[_result(r, dense) for r in own]])
    return table([top, heads], bodies)


def _result(r: Row, dense: Row | None) -> Element:
    over = "" if isnan(r.spread) else f" \u00b1 {100 * r.spread:.1f}"
    share = 0.0 if isnan(r.accuracy) else 100 * r.accuracy
    meter = node("span", node("i", style=f"width:{share:.1f}%"), class_="meter")
    numbers = [
        zeros(r.sparsity),
        *[scaled(r.bytes.get(name, nan), "B") for name in FORMATS],
        scaled(r.macs),
        f"{fixed(r.seconds, 2)} s",
        f"{fixed(1000 * r.forward_seconds, 2)} ms",
    ]
    return row(
        [
            node("td", r.label),
            node("td", meter, f" {percent(r.accuracy)}{over}"),
            node("td", _change(r, dense), class_="number"),
            node("td", *[tag(status, f"{n} {status}") for status, n in r.statuses.items()]),
            *[node("td", number, class_="number") for number in numbers],
        ]
    )


def _change(r: Row, dense: Row | None) -> str:
    """Points of accuracy gained or lost against the dense network."""
    if dense is None or r is dense or isnan(r.accuracy):
        return ""
    points = 100 * (r.accuracy - dense.accuracy)
    return f"{'+' if points >= 0 else chr(0x2212)}{abs(points):.1f}"


def tag(status: str, text: str) -> Element:
    """A status as a small label."""
    return node("span", text, class_=f"tag {status}")


def runs(outcomes: Sequence[Outcome]) -> Element:
    """Every single run, folded."""
    return folded(f"Every single run ({len(outcomes)})", table([RUNS], [[_run(o) for o in outcomes]]))


def _run(o: Outcome) -> Element:
    cells: list[Part] = [
        node("td", node("code", o.spec.key)),
        node("td", label_of(o)),
        str(o.spec.seed),
        level(o.sparsity_asked),
        zeros(o.sparsity),
        percent(o.accuracy),
        node("td", tag(o.status, o.status)),
        f"{o.steps:,}",
        fixed(o.seconds, 2),
    ]
    return row(cells)


def layers(outcomes: Sequence[Outcome]) -> Element:
    """The layers of the pictured runs, folded."""
    found: list[Part] = []
    for o in pictured(outcomes):
        name = f"{label_of(o)} at {level(o.sparsity_asked)}, seed {o.spec.seed}: {o.status}"
        found += [node("h3", name), table([LAYERS], [[_layer(r) for r in o.layers]])]
    return folded("Layer by layer", *(found or [node("p", "No pruned run.")]))


def _layer(r: LayerRow) -> Element:
    counts = (r.dead_in, r.dead_out, r.macs, r.flops)
    cells: list[Part] = [
        node("td", r.name),
        node("td", " x ".join(map(str, r.shape))),
        f"{r.kept:,}",
        f"{r.total:,}",
        f"{100 * r.sparsity:.2f} %",
        *[f"{count:,}" for count in counts],
        *[scaled(r.bytes[name], "B") for name in FORMATS],
    ]
    return row(cells)


def accidents(outcomes: Sequence[Outcome]) -> Element:
    """Every run that is not 'done', with the reason."""
    bad = [o for o in outcomes if o.status != "done"]
    if not bad:
        text = "Nothing: every run came to its end, and every network answers to its inputs."
        return section("wrong", "What went wrong", node("p", text))
    said = node("p", f"{len(bad)} of {len(outcomes)} runs. They count in all means and are hidden nowhere.")
    return section("wrong", "What went wrong", said, table([WRONG], [[_accident(o) for o in bad]]))


def _accident(o: Outcome) -> Element:
    cells: list[Part] = [
        node("td", label_of(o)),
        level(o.sparsity_asked),
        str(o.spec.seed),
        node("td", tag(o.status, o.status)),
        node("td", explain(o), class_="wrap"),
    ]
    return row(cells)
