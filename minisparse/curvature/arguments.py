"""Checks of the numbers a caller gives."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np

from minisparse.errors import UsageError


def positive_integer(name: str, value: object) -> int:
    """value as an int if it is an integer >= 1, bool excluded; UsageError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise UsageError(f"{name}: got {value!r}, expected an integer >= 1.")
    return int(value)


def positive(name: str, value: object, zero: bool = False) -> float:
    """value as a float if it is a finite number > 0 (or >= 0), bool excluded; UsageError otherwise."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not (0 < value < np.inf or (zero and value == 0)):  # type: ignore[operator]
        raise UsageError(f"{name}: got {value!r}, expected a finite number {'>=' if zero else '>'} 0.")
    return float(value)  # type: ignore[arg-type]
