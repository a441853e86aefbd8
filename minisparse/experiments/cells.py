"""Cells: runs that are compared as arms of an experiment, level by level and seed by seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import Any

from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import mean, spread
from minisparse.methods.base import rounded
from minisparse.sparsity.control import Control, Untouched

REFERENCE = "dense"


@dataclass(frozen=True)
class Cell:
    """One run: the arm it belongs to and the sparsity it is compared at (0 for the reference).

    rewind, budget: where its last training begins and how long it is, in lengths of one training
    rung, control: the round of a ladder it is taken from (0 for other runs) and what is changed then
    """

    arm: str
    level: float
    spec: RunSpec
    rewind: float = 0.0
    budget: int = 1
    rung: int = 0
    control: Control = Untouched()


@dataclass(frozen=True)
class ArmRow:
    """One arm at one level over its seeds.

    accuracy, spread   mean and sample standard deviation of the test accuracy
    early              mean step of the lowest test loss in the last training
    gap, gap_error     mean and standard error of (first arm - this arm) over the seeds both have
    """

    arm: str
    level: float
    accuracy: float
    spread: float
    early: float
    gap: float
    gap_error: float
    runs: int
    statuses: dict[str, int]


Curve = list[tuple[int, float, float]]


def curve(cell: Cell, outcome: Outcome) -> Curve:
    """(step, test accuracy, test loss) of the last training, steps counted from its own beginning.

    A rewound training begins at its step k; a mask that is trained from the beginning at 0. Nothing for a run
    that did not reach its end.
    """
    method, epochs = cell.spec.build(), cell.spec.epochs
    horizon = next(
        (h for h in range(epochs, outcome.steps + 1, epochs) if method.length(h) == outcome.steps), 0
    )
    if not horizon:
        return []
    k = rounded(cell.rewind, horizon)
    before = outcome.steps - (cell.budget * horizon - k)
    records = [(int(r["step"]) - before, r["accuracy"], r["test_loss"]) for r in outcome.history]
    return [(step + k, accuracy, loss) for step, accuracy, loss in records if step >= 0]


def early(points: Curve) -> float:
    """Step of the lowest test loss of a curve, its beginning left out; NaN if there is none."""
    found = [(loss, step) for step, _, loss in points[1:] if not isnan(loss)]
    return float(min(found)[1]) if found else nan


def arm_rows(cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> list[ArmRow]:
    """A row per level and arm, in the order arms first appear, levels ascending."""
    by_key = {o.spec.key: o for o in outcomes}
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    first = next((arm for arm in arms if arm != REFERENCE), REFERENCE)
    rows = []
    for level in sorted({cell.level for cell in cells}):
        groups = [[c for c in cells if (c.arm, c.level) == (arm, level)] for arm in arms]
        best = {c.spec.seed: by_key[c.spec.key].accuracy for c in groups[arms.index(first)]}
        rows += [_row(group, by_key, best) for group in groups if group]
    return rows


def _row(group: Sequence[Cell], by_key: Mapping[str, Outcome], best: Mapping[int, float]) -> ArmRow:
    runs = [by_key[cell.spec.key] for cell in group]
    gaps = [best.get(o.spec.seed, nan) - o.accuracy for o in runs]
    gaps = [gap for gap in gaps if not isnan(gap)]
    return ArmRow(
        arm=group[0].arm,
        level=group[0].level,
        accuracy=mean(o.accuracy for o in runs),
        spread=spread(o.accuracy for o in runs),
        early=mean(early(curve(cell, o)) for cell, o in zip(group, runs, strict=True)),
        gap=mean(gaps),
        gap_error=spread(gaps) / sqrt(len(gaps)) if len(gaps) > 1 else nan,
        runs=len(runs),
        statuses=dict(Counter(o.status for o in runs)),
    )


def curves(cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Mean learning curve of each arm at each level, as plain data."""
    by_key = {o.spec.key: o for o in outcomes}
    groups: dict[tuple[str, float], list[Curve]] = {}
    for cell in cells:
        groups.setdefault((cell.arm, cell.level), []).append(curve(cell, by_key[cell.spec.key]))
    found = []
    for (arm, level), runs in groups.items():
        points: dict[int, list[float]] = {}
        for run in runs:
            for step, accuracy, _ in run:
                points.setdefault(step, []).append(accuracy)
        steps = sorted(points)
        found.append(
            {"arm": arm, "level": level, "steps": steps, "accuracy": [mean(points[s]) for s in steps]}
        )
    return found
