"""Movement: keep the weights that training moves away from zero, a fixed share of them at any time.

V. Sanh, T. Wolf, A. M. Rush. Movement Pruning: Adaptive Sparsity by Fine-Tuning. NeurIPS 2020.
arXiv:2005.07683

Every weight has a score S, 0 at the start. At every step, with v_t the share to keep,

    W = M theta,   M = the v_t n weights of largest S                                      (1)
    dL/dS = dL/dW theta          (straight through: masked weights are scored as well)     (2)
    dL/dtheta = dL/dW M                                                                    (3)

so that under plain descent S_T = -a sum_t dL/dW theta, and S rises where |theta| is being increased. A weight
that is masked keeps its value and returns with it if its score recovers.

The sparsity follows the schedule, which should leave a dense start (the default holds it for a fifth of the
run): at step 0 all scores are equal and the choice would be that of the lower index.

The learning rate of the scores does not matter: all start at 0 and a common factor changes no rank.

Departures: one ranking over all layers by default, the paper ranks each matrix (allocation uniform). The
optimiser's momentum may still move a masked weight for a few steps, as in the authors' code.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from minisparse.methods.base import Scored, harden, setting, swap
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.schedule import Cubic, Schedule
from minisparse.training.state import TrainState
from minisparse.weights.movement import MovementWeight


@lru_cache(maxsize=64)
def curve(schedule: Schedule, horizon: int, target: float) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Steps and levels of a schedule: asked for at every step, so kept."""
    pairs = schedule.curve(horizon, target)
    return tuple(t for t, _ in pairs), tuple(level for _, level in pairs)


def level_at(schedule: Schedule, step: int, horizon: int, target: float) -> float | None:
    """The sparsity in force after `step` steps; None before the schedule's first."""
    steps, levels = curve(schedule, horizon, target)
    past = bisect_right(steps, step)
    return levels[past - 1] if past else None


@register("movement", family="learned", paper="arXiv:2005.07683")
@dataclass(frozen=True)
class Movement(Scored):
    """Hard movement pruning."""

    regrows: ClassVar[bool] = True
    settles: ClassVar[bool] = False

    schedule: Schedule = setting(Cubic(every=1), "when to prune, and how far each time")

    def setup(self, state: TrainState) -> None:
        swap(state, lambda name, weight: MovementWeight(weight, rate=1.0))
        super().setup(state)

    def impose(self, state: TrainState) -> None:
        """Choose M anew at the level in force."""
        level = level_at(self.schedule, state.step, state.horizon, self.sparsity)
        if level is not None and (self.pattern.fixed_sparsity is None or level == self.sparsity):
            self.prune_to(state, level)

    def score(self, state: TrainState) -> dict[str, Array]:
        layers = state.network.prunable()
        return {name: layer.weight.params()["score"].value for name, layer in layers.items()}

    def finish(self, state: TrainState) -> None:
        harden(state)
