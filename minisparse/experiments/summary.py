"""From outcomes to rows (one per method and sparsity, over seeds), and from rows to sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from statistics import fmean, median, stdev

from minisparse.experiments.diagnosis import cause, explain, weakest
from minisparse.experiments.inspect import FORMATS
from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec
from minisparse.methods.registry import catalogue

WITHIN = 0.015
USUAL = 0.9
GUESSING = 0.05


@dataclass(frozen=True)
class Row:
    """One method at one sparsity, over its seeds. Means are over the runs that have the number.

    accuracy, spread   mean and sample standard deviation over `measured` of the `runs` runs
    training           what may set runs of the same method apart, as text
    statuses           how many runs ended how; notes: why those did that are not 'done'
    weakest            the layer with most units cut off, in words, in the worst run
    cause              what shared the kept weights out among layers, in words
    """

    method: str
    settings: str
    model: str
    data: str
    sparsity_asked: float
    sparsity: float
    accuracy: float
    spread: float
    runs: int
    measured: int
    chance: float
    compression: float
    macs_dense: float
    macs: float
    bytes: dict[str, float]
    seconds: float
    forward_seconds: float
    training: tuple[str, ...]
    statuses: dict[str, int]
    notes: tuple[str, ...] = ()
    weakest: str = ""
    cause: str = ""
    keys: tuple[str, ...] = field(default=(), repr=False)

    @property
    def status(self) -> str:
        """'3 done', or '2 done, 1 collapsed'."""
        return ", ".join(f"{count} {name}" for name, count in self.statuses.items())

    @property
    def reference(self) -> bool:
        """Whether nothing was pruned and nothing was to be."""
        return self.sparsity_asked == 0 and self.sparsity == 0

    @property
    def label(self) -> str:
        """The method with its settings."""
        return f"{self.method} ({self.settings})" if self.settings else self.method

    @property
    def task(self) -> str:
        """Model and data."""
        return f"{self.model} on {self.data}"

    @property
    def finds(self) -> bool:
        """Whether the sparsity is a result of the run instead of a setting."""
        return self.sparsity_asked == 0 and self.sparsity > 0

    @property
    def place(self) -> float:
        """Where the row stands on an axis of sparsity: what was asked, or else what was found."""
        return self.sparsity if self.finds else self.sparsity_asked


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    found = [v for v in values if not isnan(v)]
    return fmean(found) if found else nan


def spread(values: Iterable[float]) -> float:
    """Sample standard deviation of the values that are not NaN; NaN for fewer than two."""
    found = [v for v in values if not isnan(v)]
    return stdev(found) if len(found) > 1 else nan


def summarise(outcomes: Sequence[Outcome]) -> list[Row]:
    """One row per method, settings and sparsity (everything but the seed), in the order they appear."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(_but_seed(outcome), []).append(outcome)
    return _told_apart([_row(group) for group in groups.values()])


def _told_apart(rows: list[Row]) -> list[Row]:
    """Rows of one task that differ in their training only say in what, but those of the usual training."""
    same = Counter((row.task, row.label, row.sparsity_asked) for row in rows)
    usual = {
        task: Counter(row.training for row in own).most_common(1)[0][0] for task, own in tasks(rows).items()
    }
    found = []
    for row in rows:
        if same[row.task, row.label, row.sparsity_asked] > 1:
            own = [part for part in row.training if part not in usual[row.task]]
            row = replace(row, settings=", ".join(part for part in (row.settings, *own) if part))
        found.append(row)
    return found


def _but_seed(outcome: Outcome) -> str:
    """What a run has in common with its other seeds, as text."""
    facts = outcome.spec.to_json()
    facts.pop("seed", None)
    return repr(sorted(facts.items(), key=lambda item: item[0]))


def curves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Pruned rows of one task that belong on one line, by label, each in the order of sparsity.

    A method that finds its sparsity makes one line of its runs at several strengths: the settings in which
    they differ are left out of the label.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        if not row.reference:
            found.setdefault(_curve_label(row, rows), []).append(row)
    return {label: sorted(own, key=lambda row: row.place) for label, own in found.items()}


def _curve_label(row: Row, rows: Sequence[Row]) -> str:
    if not row.finds:
        return row.label
    family = [set(r.settings.split(", ")) for r in rows if r.finds and r.method == row.method]
    shared = set.intersection(*family)
    common = [part for part in row.settings.split(", ") if part and part in shared]
    return f"{row.method} ({', '.join(common)})" if common else row.method


def tasks(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each pair of model and data."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.task, []).append(row)
    return found


def settings_text(outcome: Outcome) -> str:
    """The settings of a run other than the sparsity."""
    return ", ".join(f"{key}={value}" for key, value in outcome.spec.settings if key != "sparsity")


def label_of(outcome: Outcome) -> str:
    """The method with its settings, as in `Row.label`."""
    settings = settings_text(outcome)
    return f"{outcome.spec.method} ({settings})" if settings else outcome.spec.method


def _training(spec: RunSpec) -> tuple[str, ...]:
    """As in `Row.training`."""
    begun = (f"from weights {spec.weights[:8]}",) if spec.weights else ()
    parts = (f"batch={spec.batch}", f"storage={spec.storage}", f"dtype={spec.dtype}")
    return (f"epochs={spec.epochs}", spec.optimizer, spec.rate, *parts, *begun)


def _row(group: Sequence[Outcome]) -> Row:
    first = group[0]
    measured = [o for o in group if not isnan(o.accuracy)]
    ended = [o for o in group if o.total]
    formats = [name for name in FORMATS if all(name in o.bytes for o in ended)]
    worst = min(group, key=lambda o: (o.status == "done", o.accuracy))
    notes = dict.fromkeys(f"seed {o.spec.seed}: {explain(o)}" for o in group if o.note)
    return Row(
        method=first.spec.method,
        settings=settings_text(first),
        model=first.spec.model,
        data=first.spec.data,
        sparsity_asked=first.sparsity_asked,
        sparsity=mean(o.sparsity for o in ended),
        accuracy=mean(o.accuracy for o in group),
        spread=spread(o.accuracy for o in group),
        runs=len(group),
        measured=len(measured),
        chance=mean(o.chance for o in group),
        compression=mean(o.compression for o in ended),
        macs_dense=mean(o.macs_dense for o in ended),
        macs=mean(o.macs for o in ended),
        bytes={name: mean(o.bytes[name] for o in ended) for name in formats},
        seconds=mean(o.seconds for o in ended),
        forward_seconds=mean(o.forward_seconds for o in ended),
        training=_training(first.spec),
        statuses=dict(Counter(o.status for o in group)),
        notes=tuple(notes),
        weakest=weakest(worst),
        cause=cause(worst),
        keys=tuple(o.spec.key for o in group),
    )


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict. kind: reference, success, failure, detail (of a failure) or accident."""

    kind: str
    text: str


def verdict(rows: Sequence[Row]) -> list[str]:
    """What happened, in sentences: how dense does, who stays near it, who fails, where and why."""
    return [finding.text for finding in findings(rows)]


def findings(rows: Sequence[Row]) -> list[Finding]:
    """The sentences of the verdict with their kinds, for each model and data set in turn."""
    groups = dict.fromkeys((row.model, row.data) for row in rows)
    found = []
    for model, data in groups:
        own = [row for row in rows if (row.model, row.data) == (model, data)]
        where = f"{model} on {data}: " if len(groups) > 1 else ""
        texts = _reference(own) + _success(own) + _failure(own) + _accidents(own)
        found += [Finding(finding.kind, where + finding.text) for finding in texts]
    return found


def percent(share: float) -> str:
    """``97.5 %``, ``99.8 %``; a dash for NaN."""
    return "-" if isnan(share) else f"{100 * share:.1f} %"


def level(sparsity: float) -> str:
    """A sparsity as a percentage without needless digits: ``90 %``, ``99.8 %``."""
    return f"{100 * sparsity:.6g} %"


def dense_row(rows: Sequence[Row]) -> Row | None:
    """The row of the unpruned network, if there is one with an accuracy."""
    return next((row for row in rows if row.reference and not isnan(row.accuracy)), None)


def _pruned(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row.reference]


def _levels(rows: Sequence[Row]) -> list[float]:
    return sorted({row.sparsity_asked for row in _pruned(rows) if row.sparsity_asked})


def _named(rows: Sequence[Row]) -> str:
    """``magnitude 98.1 %, rigl 97.5 %``, best first."""
    best = sorted(rows, key=lambda row: -row.accuracy)
    return ", ".join(f"{row.label} {percent(row.accuracy)}" for row in best)


def _reference(rows: Sequence[Row]) -> list[Finding]:
    dense = dense_row(rows)
    if dense is None:
        return []
    over = f" \u00b1 {100 * dense.spread:.1f}" if not isnan(dense.spread) else ""
    runs = "one run" if dense.measured == 1 else f"{dense.measured} runs"
    text = (
        f"Reference: the dense network reaches {percent(dense.accuracy)[:-2]}{over} % ({runs}); always "
        f"naming the most frequent class would give {percent(dense.chance)}."
    )
    return [Finding("reference", text)]


def _success(rows: Sequence[Row]) -> list[Finding]:
    """At the sparsity nearest to 90 %: who stays within WITHIN of dense, who does not."""
    dense, levels = dense_row(rows), _levels(rows)
    if dense is None or not levels:
        return []
    usual = min(levels, key=lambda s: abs(s - USUAL))
    here = [row for row in _pruned(rows) if row.sparsity_asked == usual and not isnan(row.accuracy)]
    near = [row for row in here if row.accuracy >= dense.accuracy - WITHIN]
    far = [row for row in here if row not in near]
    points = f"{100 * WITHIN:g} points"
    text = f"At {level(usual)} sparsity {len(near)} of {len(here)} methods stay within {points} of dense"
    if near:
        found = [Finding("success", f"Success: {text}: {_named(near)}.")]
    else:
        found = [Finding("failure", f"No success: {text}.")]
    if far:
        losses = [f"{row.label} loses {100 * (dense.accuracy - row.accuracy):.1f}" for row in far]
        found.append(Finding("detail", f"Below that line at {level(usual)}: {', '.join(losses)} points."))
    return found + _controls(here, near, usual)


def _controls(here: Sequence[Row], near: Sequence[Row], usual: float) -> list[Finding]:
    """What the choice of weights is worth: the best method against the best control."""
    known = catalogue()
    controls = [row for row in here if row.method in known and known[row.method].family == "control"]
    chosen = [row for row in near if row not in controls]
    if not controls or not chosen:
        return []
    control, best = max(controls, key=_accuracy), max(chosen, key=_accuracy)
    gain = 100 * (best.accuracy - control.accuracy)
    text = f"Choosing is worth {gain:.1f} points at {level(usual)}: {best.label} against {control.label}"
    return [Finding("success", f"{text}, whose weights are not chosen by merit.")]


def _accuracy(row: Row) -> float:
    return row.accuracy


def _failure(rows: Sequence[Row]) -> list[Finding]:
    """At the highest sparsity: who collapsed, in which layer and why; who is still above chance."""
    levels = _levels(rows)
    if not levels or levels[-1] < USUAL:
        return []
    here = [row for row in _pruned(rows) if row.sparsity_asked == levels[-1]]
    broken = [row for row in here if row.statuses.get("collapsed")]
    where = f"At {level(levels[-1])} sparsity (1 of {1 / (1 - levels[-1]):.0f} weights kept)"
    if not broken:
        text = f"No collapse: {where[:1].lower()}{where[1:]} every network still answers to its inputs."
        return [Finding("success", text), *_survivors(here)]
    text = f"{where} {len(broken)} of {len(here)} methods collapse"
    found = [Finding("failure", f"Failure: {text}: their outputs no longer depend on the inputs.")]
    for row in broken:
        count = f"{row.label}: {row.statuses['collapsed']} of {row.runs} runs"
        parts = [part for part in (count, row.weakest, row.cause) if part]
        found.append(Finding("detail", "; ".join(parts) + "."))
    return found + _survivors([row for row in here if row not in broken])


def _survivors(rows: Sequence[Row]) -> list[Finding]:
    """Who still tells classes apart, and who answers to the inputs but no better than by naming one."""
    poor = [row for row in rows if row.accuracy <= row.chance + GUESSING]
    alive = [row for row in rows if row not in poor and not isnan(row.accuracy)]
    found = [Finding("success", f"Still alive there: {_named(alive)}.")] if alive else []
    if poor:
        found.append(Finding("failure", f"No better there than one class for all: {_named(poor)}."))
    return found


def _accidents(rows: Sequence[Row]) -> list[Finding]:
    """Every run that diverged or failed, by name."""
    bad = [row for row in rows if row.statuses.get("diverged") or row.statuses.get("failed")]
    where = [f"{row.label} at {level(row.sparsity_asked)}" for row in bad]
    texts = [f"{at}: {row.status}; {'; '.join(row.notes)}" for at, row in zip(where, bad, strict=True)]
    return [Finding("accident", text) for text in texts]


def median_seconds(rows: Sequence[Row]) -> float:
    """Median over rows of the mean seconds of a training; NaN without any."""
    found = [row.seconds for row in rows if not isnan(row.seconds)]
    return median(found) if found else nan
