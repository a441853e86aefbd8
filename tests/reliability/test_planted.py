"""Faults of `python -m tests.reliability.planted` can still be planted; it says whether they are found."""

from __future__ import annotations

import ast

import pytest

from tests.reliability.planted_faults import FAULTS, Fault
from tests.reliability.processes import ROOT


def test_there_are_as_many_as_are_promised_each_under_a_name_of_its_own() -> None:
    assert len(FAULTS) >= 60 and len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_its_text_occurs_once_and_what_is_put_there_is_python(fault: Fault) -> None:
    whole = (ROOT / "minisparse" / fault.file).read_text(encoding="utf-8")
    assert whole.count(fault.old) == 1, f"look up in {fault.file} how this is written now: {fault.old!r}"
    changed = whole.replace(fault.old, fault.new)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(whole))
    assert fault.tests and all((ROOT / test.partition("::")[0]).exists() for test in fault.tests)
