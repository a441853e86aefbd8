"""Checks of the numbers a caller passes: a clear UsageError instead of a surprise further down."""

import numpy as np

from minisparse.errors import SparsityError, UsageError

REAL = (int, float, np.integer, np.floating)


def whole_number(what: str, value: object, least: int) -> int:
    """``value`` as an int; bool, float, NaN, text or a number below ``least`` raise UsageError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"{what} is not usable: got {value!r}, expected a whole number >= {least}.")
    return int(value)


def non_negative(what: str, value: object) -> float:
    """``value`` as a finite float >= 0; anything else raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, REAL) or not 0 <= value < np.inf:
        raise UsageError(f"{what} is not usable: got {value!r}, expected a finite number >= 0.")
    return float(value)


def kept_count(size: int, sparsity: object) -> int:
    """``size - round_half_even(sparsity * size)``; SparsityError unless 0 <= sparsity < 1."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, REAL) or not 0 <= sparsity < 1:
        raise SparsityError(f"sparsity out of range: got {sparsity!r}, expected 0 <= s < 1.")
    return size - round(float(sparsity) * size)
