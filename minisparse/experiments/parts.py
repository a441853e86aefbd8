"""The sections of the report page that are text: what was done, what to remember, methods, commands."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from math import isnan
from xml.etree.ElementTree import Element

from minisparse.data.registry import available
from minisparse.experiments.page import Part, facts, folded, node
from minisparse.experiments.plots import shown_levels
from minisparse.experiments.reproduce import commands
from minisparse.experiments.runner import Outcome
from minisparse.experiments.settings import fields_of, write
from minisparse.experiments.summary import Row, dense_row, label_of, level, median_seconds, percent
from minisparse.experiments.tables import fixed, scaled
from minisparse.experiments.wording import ANCHORS, DATA, FOOT, NOT_FASTER, REPEATS, SAME_START
from minisparse.methods.registry import Entry, catalogue
from minisparse.nn.models import PLANS

WORK = re.compile(r"(?<!,)\n(?=[A-Z]\. )")  # a line that starts with initials starts another work
PACKAGED = ", in the package (default)"


def several(values: Sequence[object]) -> str:
    """``a, b and c``."""
    unique = list(dict.fromkeys(map(str, values)))
    return " and ".join(filter(None, [", ".join(unique[:-1]), *unique[-1:]]))


def counted(number: int, what: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def head(outcomes: Sequence[Outcome], title: str) -> Element:
    """Title, what was done, and the way to the sections."""
    links = [node("a", text, href=f"#{name}") for name, text in ANCHORS]
    done = [node("p", text, class_="lead") for text in _done(outcomes)]
    return node("header", node("h1", title), *done, node("nav", *links))


def _done(outcomes: Sequence[Outcome]) -> list[str]:
    """What was run, in a paragraph."""
    specs = [outcome.spec for outcome in outcomes]
    if not specs:
        return ["No runs."]
    levels = [level(s) for s in sorted({o.sparsity_asked for o in outcomes if o.sparsity_asked})]
    known = available()
    what = several([_model(spec.model) for spec in specs])
    data = several([known.get(spec.data, spec.data).removesuffix(PACKAGED) for spec in specs])
    seeds = counted(len({spec.seed for spec in specs}), "seed")
    ways = counted(len({spec.method for spec in specs}), "method")
    epochs, batch = several([s.epochs for s in specs]), several([s.batch for s in specs])
    rule = f"{several([s.optimizer for s in specs])}, {several([s.rate for s in specs])}"
    at = f", pruned to {several(levels)} sparsity" if levels else ""
    return [
        f"{what}, trained on {data}, with {ways}{at}, {seeds} each: {counted(len(specs), 'run')} of {epochs} "
        f"epochs in batches of {batch} ({rule}). {SAME_START}"
    ]


def _model(name: str) -> str:
    kind = name.partition(":")[0]
    return f"{name} ({PLANS[kind][0]})" if kind in PLANS and kind == name else name


def tiles(outcomes: Sequence[Outcome], rows: Sequence[Row]) -> Element:
    """The few numbers to remember."""
    found = []
    dense = dense_row(rows)
    if dense is not None:
        found.append((percent(dense.accuracy), "dense, nothing pruned"))
    for sparsity in shown_levels(outcomes):
        here = [r for r in rows if r.sparsity_asked == sparsity and not isnan(r.accuracy)]
        if here:
            best = max(here, key=lambda r: r.accuracy)
            found.append((percent(best.accuracy), f"best at {level(sparsity)}: {best.label}"))
    counts = Counter(outcome.status for outcome in outcomes)
    found.append((f"{len(outcomes)}", "runs: " + ", ".join(f"{n} {status}" for status, n in counts.items())))
    found.append((f"{sum(o.seconds for o in outcomes):.0f} s", "of training, measured"))
    cards = [node("div", node("b", number), node("span", text), class_="tile") for number, text in found]
    return node("div", *cards, class_="tiles")


def four_numbers(rows: Sequence[Row]) -> list[Part]:
    """The four numbers of one row side by side, and what the clock says about masks."""
    pruned = [r for r in rows if not r.reference and not isnan(r.seconds) and not isnan(r.accuracy)]
    if not pruned:
        return [node("p", NOT_FASTER)]
    r = min(pruned, key=lambda r: (abs(r.sparsity_asked - 0.9), -r.accuracy))
    train, forward = fixed(r.seconds, 2), fixed(1000 * r.forward_seconds, 2)
    pairs: list[tuple[str, Part]] = [
        ("zeros in the mask", f"{100 * r.sparsity:.2f} % of the prunable weights"),
        ("bytes stored", ", ".join(f"{scaled(count, 'B')} {name}" for name, count in r.bytes.items())),
        ("MACs, in theory", f"{scaled(r.macs)} of {scaled(r.macs_dense)} for one image"),
        ("time, measured", f"{train} s of training, {forward} ms forward, 256 images, as stored in training"),
    ]
    text = NOT_FASTER
    dense = dense_row(rows)
    if dense is not None:
        text += (
            f" Measured here: {fixed(dense.seconds, 2)} s for a dense training and "
            f"{fixed(median_seconds(pruned), 2)} s for the median of the pruned ones; forward "
            f"{fixed(1000 * dense.forward_seconds, 2)} ms dense and {forward} ms masked."
        )
    name = f"For example {r.label} at {level(r.sparsity_asked)}"
    return [node("h3", name), facts(pairs), node("h3", "What masks do not do"), node("p", text)]


def methods(outcomes: Sequence[Outcome]) -> list[Part]:
    """Idea, reference and settings of each method."""
    known = catalogue()
    found: list[Part] = []
    for label, o in {label_of(o): o for o in outcomes}.items():
        entry = known.get(o.spec.method)
        if entry is None:
            found += [node("h3", label), node("p", "This method is not installed here.")]
        else:
            found += [node("h3", label), node("p", entry.idea), *_reference(entry), *_settings(entry, o)]
    return found


def _reference(entry: Entry) -> list[Part]:
    """The paper as its module names it: the second paragraph of the docstring, or what was registered."""
    if entry.paper == "none":
        return []
    paragraphs = (sys.modules[entry.cls.__module__].__doc__ or "").strip().split("\n\n")
    cited = [text for text in paragraphs[1:2] if entry.paper in text]
    works = WORK.split((cited or [entry.paper])[0])
    return [node("p", " ".join(work.split()), class_="cited") for work in works]


def _settings(entry: Entry, o: Outcome) -> list[Part]:
    given = dict(o.spec.settings)
    fields = [s for s in fields_of(entry.cls) if s.name != "sparsity"]
    used = [f"{s.name}={given.get(s.name, write(s.default))}" for s in fields]
    return [node("p", node("code", "  ".join(used)))] if used else []


def data(outcomes: Sequence[Outcome]) -> list[Part]:
    """Where the data sets come from, for those that have an author."""
    found: list[Part] = []
    for name in dict.fromkeys(o.spec.data for o in outcomes):
        if name in DATA:
            found += [node("h3", name), node("p", DATA[name], class_="cited")]
    return found


def reproduce(outcomes: Sequence[Outcome]) -> list[Part]:
    """Commands, and what repeats exactly."""
    lines = commands(outcomes)
    many = node("pre", node("code", "\n".join(lines)))
    return [many if len(lines) < 5 else folded(f"{len(lines)} commands", many), node("p", REPEATS)]


def environments(outcomes: Sequence[Outcome]) -> list[Part]:
    """Versions, processor, threads; one list per distinct environment."""
    counts = Counter(tuple(o.environment.items()) for o in outcomes)
    found: list[Part] = []
    for pairs, count in counts.items():
        if len(counts) > 1:
            found.append(node("h3", counted(count, "run")))
        found.append(facts(pairs))
    return found


def foot() -> Element:
    """The last line."""
    return node("footer", node("p", FOOT))
