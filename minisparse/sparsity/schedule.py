"""When to prune, and to which sparsity: one-shot, iterative, linear, cubic, exponential, steady.

M. Zhu, S. Gupta. To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model
Compression. 2017. arXiv:1710.01878 (cubic); H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli.
Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic Flow. NeurIPS 2020.
arXiv:2006.05467, and P. de Jorge et al. Progressive Skeletonization. ICLR 2021. arXiv:2006.09081
(exponential); J. Frankle, M. Carbin. The Lottery Ticket Hypothesis. ICLR 2019. arXiv:1803.03635
(rounds). With s_i and s_f the initial and the target sparsity, t0 and t1 the ends of the window:

    cubic        s_t = s_f + (s_i - s_f) (1 - (t - t0)/(t1 - t0))^3                        (1)
    linear       the same with power 1                                                     (2)
    rounds       each prunes the share p = 1 - (1 - s_f)^(1/n) of what remains             (3)
    exponential  density_j = (1 - s_f)^(j/n), j = 1..n, all at one moment                  (4)
    steady       s_t = s_f at t0, t0 + p, ..., t1: for masks whose entries may return      (5)

(3) and (4) are the same levels; (3) spreads them over the run.

Step t counts finished optimiser steps: 0 is before training, `horizon` is after the last one. Over
the steps 0..horizon every schedule emits levels that never decrease, the last being exactly the
target, whatever the horizon. Nothing is emitted after it: the mask is then frozen.

Departures: in (1) the window ends where it was told to (t1), so that when `every` does not divide
it the last interval is the shorter one; the original moves the end instead.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, TypeAlias

from minisparse.errors import SparsityError, UsageError
from minisparse.sparsity.count import check_share, check_sparsity, check_whole

Curve: TypeAlias = tuple[tuple[int, float], ...]

# With every=None a window is cut into at most this many updates (and at least half as many, when
# it has that many steps): enough that no single update removes much, few enough to recover between.
DEFAULT_UPDATES = 40


@dataclass(frozen=True)
class Schedule(ABC):
    """When to impose which sparsity; subclasses are frozen dataclasses holding the settings."""

    shorthand: ClassVar[str] = ""

    @abstractmethod
    def curve(self, horizon: int, target: float) -> Curve:
        """All (step, sparsity) pairs of a run of `horizon` steps, in the order of imposing them."""

    def levels(self, step: int, horizon: int, target: float) -> tuple[float, ...]:
        """Sparsities to impose one after the other once `step` steps are done; usually none.

        UsageError (SparsityError for `target`) when horizon or target is not usable.
        """
        steps = check_whole(horizon, "horizon", 0)
        return _table(self, steps, check_sparsity(target)).get(step, ())


@lru_cache(maxsize=256)
def _table(schedule: Schedule, horizon: int, target: float) -> dict[int, tuple[float, ...]]:
    """The curve by step: a training loop asks at every step, so the answer must be a look-up."""
    table: dict[int, tuple[float, ...]] = {}
    for step, level in schedule.curve(horizon, target):
        table[step] = (*table.get(step, ()), level)
    return table


def ramp(initial: float, target: float, progress: float, power: int) -> float:
    """Sparsity at `progress` in [0, 1] of the window: equation (1) with power 3, (2) with 1."""
    if progress in (0, 1):  # rounding must not miss an end
        return target if progress else initial
    return target + (initial - target) * (1 - progress) ** power


def geometric_levels(target: float, rounds: int) -> tuple[float, ...]:
    """The `rounds` levels of equations (3) and (4); the last is `target` itself."""
    levels = [1 - (1 - target) ** (j / rounds) for j in range(1, rounds)]
    return (*(min(level, target) for level in levels), target)


def update_steps(start: int, stop: int, every: int | None) -> tuple[int, ...]:
    """start, start + every, ..., and stop itself; None spreads 20 to 40 updates over the window."""
    window = stop - start
    gap = every if every is not None else max(1, -(-window // DEFAULT_UPDATES))
    return (*range(start, stop, gap), stop)


def _step(share: float, horizon: int) -> int:
    return round(share * horizon)


@dataclass(frozen=True)
class OneShot(Schedule):
    """Prune once, when the share `at` of the run is over (0 = before training)."""

    at: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", check_share(self.at, "at"))

    def curve(self, horizon: int, target: float) -> Curve:
        """One pair: (at * horizon, target)."""
        return ((_step(self.at, horizon), target),)


@dataclass(frozen=True)
class Exponential(Schedule):
    """All `rounds` levels at one moment, the density falling geometrically (SynFlow, FORCE)."""

    rounds: int = 100
    at: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", check_whole(self.rounds, "rounds"))
        object.__setattr__(self, "at", check_share(self.at, "at"))

    def curve(self, horizon: int, target: float) -> Curve:
        """Equation (4) at the step at * horizon."""
        step = _step(self.at, horizon)
        return tuple((step, level) for level in geometric_levels(target, self.rounds))


@dataclass(frozen=True)
class Rounds(Schedule):
    """Prune the same share of what remains in each of `rounds` evenly spaced rounds.

    `begin` and `end` are where the first and the last round happen, as shares of the run. Left out,
    they cut the run into rounds + 1 equal parts: train and prune `rounds` times, then train on.
    A single round happens at `end`.
    """

    rounds: int = 5
    begin: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", check_whole(self.rounds, "rounds"))
        for name in ("begin", "end"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_share(value, name))
        _check_window(*self.window)

    @property
    def window(self) -> tuple[float, float]:
        """(begin, end) with the defaults filled in."""
        parts = self.rounds + 1
        begin = 1 / parts if self.begin is None else self.begin
        end = self.rounds / parts if self.end is None else self.end
        return begin, end

    def curve(self, horizon: int, target: float) -> Curve:
        """Equation (3), one level a round."""
        begin, end = self.window
        gaps = max(1, self.rounds - 1)
        shares = [end - (end - begin) * (self.rounds - j) / gaps for j in range(1, self.rounds + 1)]
        levels = geometric_levels(target, self.rounds)
        return tuple((_step(a, horizon), s) for a, s in zip(shares, levels, strict=True))


@dataclass(frozen=True)
class Linear(Schedule):
    """Sparsity grows linearly from `initial` to the target between `begin` and `end`."""

    begin: float = 0.2
    end: float = 0.7
    every: int | None = None
    initial: float = 0.0

    def __post_init__(self) -> None:
        _check_ramp(self)

    def curve(self, horizon: int, target: float) -> Curve:
        """Equation (2) every `every` steps of the window, both ends included."""
        return _ramp_curve(self, horizon, target, power=1)


@dataclass(frozen=True)
class Cubic(Schedule):
    """Gradual pruning of Zhu and Gupta: fast while much is redundant, slow near the target."""

    begin: float = 0.2
    end: float = 0.7
    every: int | None = None
    initial: float = 0.0

    def __post_init__(self) -> None:
        _check_ramp(self)

    def curve(self, horizon: int, target: float) -> Curve:
        """Equation (1) every `every` steps of the window, both ends included."""
        return _ramp_curve(self, horizon, target, power=3)


@dataclass(frozen=True)
class Steady(Schedule):
    """The target itself, again and again: for methods that let entries return between prunings."""

    every: int | None = None
    begin: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        _check_window_and_spacing(self)

    def curve(self, horizon: int, target: float) -> Curve:
        """Equation (5) every `every` steps of the window, both ends included."""
        start, stop = _step(self.begin, horizon), _step(self.end, horizon)
        return tuple((step, target) for step in update_steps(start, stop, self.every))


def _ramp_curve(ramped: Linear | Cubic, horizon: int, target: float, power: int) -> Curve:
    if ramped.initial > target:
        raise SparsityError(
            f"initial sparsity is above the target: got {ramped.initial}, expected at most {target}."
        )
    start, stop = _step(ramped.begin, horizon), _step(ramped.end, horizon)
    steps = update_steps(start, stop, ramped.every)
    window = max(1, stop - start)
    levels = [ramp(ramped.initial, target, (t - start) / window, power) for t in steps[:-1]]
    return tuple(zip(steps, (*levels, target), strict=True))


def _check_ramp(ramped: Linear | Cubic) -> None:
    _check_window_and_spacing(ramped)
    object.__setattr__(ramped, "initial", check_sparsity(ramped.initial, "initial"))


def _check_window_and_spacing(windowed: Linear | Cubic | Steady) -> None:
    for name in ("begin", "end"):
        object.__setattr__(windowed, name, check_share(getattr(windowed, name), name))
    if windowed.every is not None:
        object.__setattr__(windowed, "every", check_whole(windowed.every, "every"))
    _check_window(windowed.begin, windowed.end)


def _check_window(begin: float, end: float) -> None:
    if begin > end:
        raise UsageError(f"schedule window is empty: got begin={begin} and end={end}, expected begin <= end.")
