"""Exact counts, and the checks that every numeric setting of this package goes through.

A sparsity s over a scope of n entries (a layer, or all prunable weights together) means

    pruned = rhe(s n),   kept = n - pruned                                                 (1)

with rhe = round half to even, in float64. s n is rounded and never (1 - s) n: 1 - 0.9 is
0.09999999999999998, and a floor or a tie after it would lose one weight.
"""

from math import inf
from numbers import Integral, Real
from typing import Any

from minisparse.errors import SparsityError, UsageError


def is_real(value: Any) -> bool:
    """True for int, float, Fraction and NumPy real scalars; False for bool, text, arrays."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """True for int and NumPy integer scalars; False for bool and for floats such as 2.0."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def kept_count(size: int, sparsity: float) -> int:
    """Entries kept out of `size` at `sparsity` in [0, 1], equation (1): the shared rounding rule.

    SparsityError or UsageError for anything else. 1 is accepted here (it keeps nothing) although
    `check_sparsity` refuses it as a setting.
    """
    if not is_whole(size) or size < 0:
        raise UsageError(f"size is not a count: got {size!r}, expected a whole number >= 0.")
    if not is_real(sparsity) or not 0 <= sparsity <= 1:
        raise SparsityError(f"sparsity out of range: got {_plain(sparsity)}, expected 0 <= sparsity <= 1.")
    return int(size) - round(float(sparsity) * int(size))


def shortest_sparsity(pruned: int, size: int) -> float:
    """The sparsity of fewest digits that prunes exactly `pruned` of `size` entries."""
    for digits in range(1, 17):
        value = float(f"{pruned / size:.{digits}g}")
        if value <= 1 and kept_count(size, value) == size - pruned:
            return value
    return pruned / size


def check_sparsity(value: Any, name: str = "sparsity") -> float:
    """`value` as a float in [0, 1); SparsityError for bool, text, NaN or a number outside."""
    if not is_real(value):
        raise SparsityError(f"{name} is not a number: got {value!r}, expected a number with 0 <= {name} < 1.")
    share = float(value)
    if not 0 <= share < 1:
        raise SparsityError(
            f"{name} out of range: got {_plain(value)}, expected 0 <= {name} < 1.{_hint(share)}"
        )
    return share + 0.0  # -0.0 becomes 0.0, so that equal settings also print equally


def check_share(value: Any, name: str) -> float:
    """`value` as a float in [0, 1], a share of a run or of a layer; UsageError otherwise."""
    if not is_real(value) or not 0 <= value <= 1:
        raise UsageError(f"{name} is not a share: got {_plain(value)}, expected 0 <= {name} <= 1.")
    return float(value) + 0.0


def check_real(value: Any, name: str, minimum: float) -> float:
    """`value` as a finite float of at least `minimum`; UsageError otherwise."""
    if not is_real(value) or not minimum <= value < inf:
        raise UsageError(f"{name} is not usable: got {_plain(value)}, expected a finite number >= {minimum}.")
    return float(value) + 0.0


def check_whole(value: Any, name: str, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`; UsageError otherwise."""
    if not is_whole(value) or value < minimum:
        raise UsageError(f"{name} is not usable: got {_plain(value)}, expected a whole number >= {minimum}.")
    return int(value)


def check_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """`value` when it is one of `choices`; UsageError otherwise."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(choices)
        raise UsageError(f"{name} is not usable: got {value!r}, expected one of {listed}.")
    return value


def check_flag(value: Any, name: str) -> bool:
    """`value` when it is True or False; UsageError otherwise."""
    if not isinstance(value, bool):
        raise UsageError(f"{name} is not a flag: got {value!r}, expected True or False.")
    return value


def _plain(value: Any) -> str:
    """NumPy scalars print as np.float64(...); an error line shows the bare number."""
    return str(value) if is_real(value) else repr(value)


def _hint(value: float) -> str:
    if value == 1:
        return " A sparsity of 1 removes every weight."
    share = value / 100
    if not 1 < value < 100:
        return ""
    text = f"{share:.2f}" if round(share, 2) == share else f"{share:g}"
    return f" Did you mean {text}?"
