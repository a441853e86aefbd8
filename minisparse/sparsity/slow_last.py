"""The first lottery tickets' allocation: the last layer loses half as much a round as the others.

J. Frankle, M. Carbin. The Lottery Ticket Hypothesis. ICLR 2019. arXiv:1803.03635

With each round the last layer loses the share q of what it has, the others the share p: after r rounds

    d = (1 - p)^r,   d_last = (1 - q)^r = d^a,   a = log(1 - q) / log(1 - p)               (1)

A sparsity over all layers fixes d, and with it d_last, by

    (N - n_last) d + n_last d^a = N - rhe(s N)                                             (2)

so that (1) holds at every level, whatever the number of rounds.

Departure: the paper's levels are those of (1) at whole r; here they are as the method chooses them.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import log

from scipy.optimize import brentq

from minisparse.errors import UsageError
from minisparse.sparsity.allocation import Allocation, Shapes, budget, sizes_of
from minisparse.sparsity.apportion import Shares
from minisparse.sparsity.count import check_share


@dataclass(frozen=True)
class SlowLast(Allocation):
    """The last layer is pruned by `last` of what it has where the others lose `others` (first tickets)."""

    others: float = 0.2
    last: float = 0.1

    def __post_init__(self) -> None:
        for name in ("others", "last"):
            value = check_share(getattr(self, name), name)
            if not 0 < value < 1:
                raise UsageError(f"slow-last {name}: got {value:g}, expected a share above 0 and below 1.")
            object.__setattr__(self, name, value)

    def shares(self, shapes: Shapes, sparsity: float) -> Shares:
        """Equations (1) and (2)."""
        sizes, total = sizes_of(shapes), budget(shapes, sparsity)
        *rest, final = sizes
        room = sum(sizes[name] for name in rest)
        power = log(1 - self.last) / log(1 - self.others)
        d = brentq(lambda d: room * d + sizes[final] * d**power - total, 0.0, 1.0, xtol=1e-15)
        kept = Fraction(sizes[final] * d**power) if rest else Fraction(total)
        kept = min(max(kept, Fraction(total - room)), Fraction(total))
        density = (total - kept) / room if rest else Fraction(0)
        return {name: density * sizes[name] for name in rest} | {final: kept}
