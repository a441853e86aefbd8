"""Checks of methods, for the catalogue and for anyone's own.

    from minisparse.testing import Case, check_method

    print(check_method(MyMethod(sparsity=0.8), exceptions=Case({"every": 2})))

Trainings are of twelve steps on networks of a few hundred weights; all promises together take about a second.
"""

from minisparse.testing.case import Case, largest_row, largest_unit
from minisparse.testing.check import Report, check_method, keep, trials
from minisparse.testing.promises import PROMISES, Trial

__all__ = [
    "PROMISES", "Case", "Report", "Trial", "check_method", "keep", "largest_row", "largest_unit", "trials",
]  # fmt: skip
