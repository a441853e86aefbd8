"""Learning-rate schedules: functions of the step t and the horizon T, as small frozen values.

    constant   lr                                                                         (1)
    step       lr * gamma^k,  k = number of milestones (shares of T) not after t           (2)
    cosine     floor + (lr - floor) (1 + cos(pi t / T)) / 2                                (3)

The first w = warmup * T steps rise linearly, lr (t + 1) / (w + 1), after P. Goyal et al., arXiv:1706.02677.
Cosine: I. Loshchilov, F. Hutter, SGDR, ICLR 2017, arXiv:1608.03983.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, inf, pi
from numbers import Real

from minisparse.errors import UsageError


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Rate(ABC):
    """lr: largest rate; warmup: share of the run over which it is reached."""

    lr: float = 0.1
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not _is_number(self.lr) or not 0 < self.lr < inf:
            raise UsageError(f"learning rate: got {self.lr!r}, expected a number > 0.")
        if not _is_number(self.warmup) or not 0 <= self.warmup < 1:
            raise UsageError(f"warmup: got {self.warmup!r}, expected 0 <= warmup < 1.")

    def at(self, t: int, horizon: int) -> float:
        """Rate of step t = 0, 1, ..., horizon - 1; later steps keep the last rate."""
        rising = self.warmup * horizon
        if t < rising:
            return self.lr * (t + 1) / (rising + 1)
        return self._main(min(t, horizon), horizon)

    @abstractmethod
    def _main(self, t: int, horizon: int) -> float:
        """The schedule without warm-up."""


@dataclass(frozen=True)
class Constant(Rate):
    """The same rate throughout, equation (1)."""

    def _main(self, t: int, horizon: int) -> float:
        return self.lr


@dataclass(frozen=True)
class Step(Rate):
    """Times gamma at each milestone, equation (2)."""

    gamma: float = 0.1
    milestones: tuple[float, ...] = (0.5, 0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _is_number(self.gamma) or not 0 <= self.gamma < inf:
            raise UsageError(f"gamma: got {self.gamma!r}, expected a number >= 0.")
        shares = self.milestones if isinstance(self.milestones, tuple | list) else (None,)
        if not all(_is_number(share) and 0 <= share <= 1 for share in shares):
            raise UsageError(f"milestones: got {self.milestones!r}, expected shares of the run, 0 to 1.")
        object.__setattr__(self, "milestones", tuple(shares))

    def _main(self, t: int, horizon: int) -> float:
        return self.lr * self.gamma ** sum(t >= m * horizon for m in self.milestones)


@dataclass(frozen=True)
class Cosine(Rate):
    """Half a cosine down to the floor, equation (3)."""

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _is_number(self.floor) or not 0 <= self.floor < inf:
            raise UsageError(f"floor: got {self.floor!r}, expected a number >= 0.")

    def _main(self, t: int, horizon: int) -> float:
        return self.floor + (self.lr - self.floor) * (1 + cos(pi * t / horizon)) / 2


RATES: dict[str, type[Rate]] = {"constant": Constant, "step": Step, "cosine": Cosine}
