"""What every method of the catalogue promises, on a perceptron and on a small residual network.

The promises are in `minisparse.testing`. A new method is tested without being named here. It gets an entry in
CASES if its defaults are too long for twelve steps, or if it keeps a promise in another way, with the reason.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

import minisparse
from minisparse.methods.base import NEEDS, Method
from minisparse.methods.registry import catalogue
from minisparse.testing import PROMISES, Case, Trial, keep, largest_row, largest_unit, trials
from minisparse.testing.problems import VIOLATIONS

UNITS = Case(slack=largest_unit, reason="whole units leave: the count is the nearest that units can make")
ROWS = Case(slack=largest_row, reason="whole rows leave: the count is the nearest that rows can make")

CASES: dict[str, Case] = {
    "c-obd": ROWS,
    "c-obs": ROWS,
    "kron-obd": ROWS,
    "kron-obs": ROWS,
    "eigendamage": Case(
        counts=False,
        zeros=False,
        reason="rows and columns of a bottleneck leave, of which some must stay; what they span is dense",
    ),
    "dense": Case(nothing={}),
    "dctps": Case(
        {"support": "rigl", "every": 2},
        zeros=False,
        nothing={"sparsity": 0.0, "offset": False},
        reason="no entry of W is 0: the count is that of its sparse part, where the offset is added to it",
    ),
    "imp": Case({"rounds": 2, "rewind": 0.25}),
    "scratch": Case({"budget": 2}),
    "early-bird": Case({"window": 2, "threshold": 0.3}),
    "amc": Case(
        {"episodes": 4, "warmup": 2, "validation": 24, "samples": 24},
        counts=False,
        reason="the sparsity is a share of MACs, and what the agent finds may cost less",
    ),
    "channel-pruning": Case(
        {"samples": 32},
        counts=False,
        reason="whole channels leave, those of residual streams stay: never more weights than asked, or one "
        "channel each",
    ),
    "filter-norm": UNITS,
    "taylor": UNITS,
    "group-lasso": replace(UNITS, nothing={"sparsity": 0.0, "strength": 0.0}),
    "slimming": replace(UNITS, nothing={"sparsity": 0.0, "strength": 0.0}),
    "rigl": Case({"every": 2, "alpha": 0.6}),
    "srigl": Case(
        {"every": 2, "alpha": 0.6},
        counts=False,
        reason="equal fan-ins: up to one weight a unit is left over",
    ),
    "dynamic-nm": Case(
        {"keep": 1, "of": 2, "every": 2},
        counts=False,
        nothing={"keep": 2, "of": 2},
        reason="N:M sets the sparsity, layers that M does not divide stay dense",
    ),
    "spartex": Case(
        {"every": 2, "share": 0.6},
        counts=False,
        nothing={"sparsity": 0.0, "auxiliary": 0.0},
        reason="only the last layer is sparse, with equal fan-ins",
    ),
    "topkast": Case(
        zeros=False,
        nothing={"sparsity": 0.0, "decay": 0.0},
        reason="weights that are not used keep their value and may be trained; its penalty is a weight decay",
    ),
    "granet": Case({"every": 2}),
    "itop": Case({"every": 2}),
    "mest": Case({"every": 2}),
    "importance-pruning": Case(
        {"begin": 0.0, "every": 1},
        counts=False,
        nothing={"sparsity": 0.0, "share": 0.0},
        reason="weights of removed units leave beside those that are exchanged",
    ),
    "dsr": Case({"every": 2, "move": 0.3, "threshold": 0.05}),
    "l0": Case(
        counts=False,
        zeros=False,
        nothing=None,
        reason="sparsity is found; a shut gate leaves its weight's value; gates are never surely open",
    ),
    "movement": Case(
        zeros=False, reason="a masked weight keeps its value and is scored, so that it may return"
    ),
    "powerprop": Case(nothing={"sparsity": 0.0, "alpha": 1.0}),
    "soft-movement": Case(
        counts=False,
        zeros=False,
        nothing={"threshold": 0.0},
        reason="sparsity is found; a masked weight keeps its value, as in movement",
    ),
    "sr-ste": Case(
        {"keep": 1, "of": 2},
        counts=False,
        zeros=False,
        nothing={"keep": 2, "of": 2},
        reason="N:M sets the sparsity, columns left over stay; masked weights train straight through",
    ),
    "str": Case(
        counts=False,
        zeros=False,
        nothing={"initial": -100.0, "decay": 0.0},
        reason="sparsity is found; a weight below the threshold keeps its value",
    ),
    "subspace": Case(
        {"dimension": 5},
        nothing=None,
        reason="all weights are kept; with all directions it is dense training up to rounding only",
    ),
    "variational-dropout": Case(
        counts=False,
        zeros=False,
        nothing=None,
        reason="sparsity is found; an absent weight keeps mean and variance; noise is never nothing",
    ),
}

NAMES = list(catalogue())
SPARSITY = 0.7


def case_of(name: str) -> Case:
    return CASES.get(name, Case())


def make(name: str) -> Method:
    """The method at the sparsity of this file, if it has such a setting."""
    cls = catalogue()[name].cls
    known = {f.name for f in fields(cls)}
    asked: dict[str, Any] = {"sparsity": SPARSITY} if "sparsity" in known else {}
    return cls(**(asked | dict(case_of(name).settings)))


TRIALS = [
    pytest.param(promise, trial, id="-".join(filter(None, (promise, name, trial.kind, trial.variant))))
    for promise in PROMISES
    for name in NAMES
    for trial in trials(promise, make(name), case_of(name))
]


@pytest.mark.parametrize(("promise", "trial"), TRIALS)
def test_every_method_keeps_every_promise(promise: str, trial: Trial) -> None:
    keep(promise, trial)


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_says_what_a_method_is(name: str) -> None:
    entry = catalogue()[name]
    assert entry.cls.__doc__ and entry.family and entry.paper
    assert 20 < len(entry.idea) <= 110 and entry.idea.endswith(".")
    assert getattr(minisparse, entry.cls.__name__) is entry.cls
    assert list(trials("seed", make(name), case_of(name))), "no network of minisparse.testing suits it"


def test_exceptions_are_declared_with_a_reason_and_belong_to_a_method() -> None:
    assert set(CASES) <= set(NAMES)
    assert set(VIOLATIONS) <= set(NEEDS)
    for name, case in CASES.items():
        assert case.usual or case.reason, f"case {name} gives no reason"
