"""Soft movement: keep the weights whose learned score passes a threshold; the sparsity is found, not asked.

V. Sanh, T. Wolf, A. M. Rush. Movement Pruning: Adaptive Sparsity by Fine-Tuning. NeurIPS 2020.
arXiv:2005.07683

    W = M theta,   M = 1[sig(S) > tau_t],   sig(S) = 1 / (1 + exp(-S))                     (1)
    L = loss + lambda tau_t / tau  mean over layers of mean sig(S)                         (2)

with the straight-through gradients of `movement.py`. tau_t rises from 0 to tau along the cubic curve between
`begin` and `end`; how many scores fall below it is governed by lambda.

Departures: the threshold is on sig(S) and lambda grows with tau_t, as in the authors' code (in the paper the
threshold is on S). Scores below the threshold keep being scored, so that weights may return to the last step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from minisparse.errors import UsageError
from minisparse.methods.base import Learned, setting
from minisparse.methods.registry import register
from minisparse.nn.weight import Weight
from minisparse.sparsity.count import check_real, check_share
from minisparse.sparsity.schedule import ramp
from minisparse.training.state import TrainState
from minisparse.weights.movement import MovementWeight
from minisparse.weights.reparametrised import logistic


@register("soft-movement", family="learned", paper="arXiv:2005.07683")
@dataclass(frozen=True)
class SoftMovement(Learned):
    """Movement pruning with a threshold."""

    demo: ClassVar[Mapping[str, Any]] = {"strength": 5.0, "rate": 20.0}

    strength: float = setting(100.0, "lambda, the price of the mean score")
    threshold: float = setting(0.1, "tau, on the scores' logistic function; 0.5 is where they start")
    begin: float = setting(0.2, "share of the run up to which the threshold is 0")
    end: float = setting(0.7, "share of the run from which it is tau")
    rate: float = setting(100.0, "learning rate of the scores, as a multiple of the weights'")

    def __post_init__(self) -> None:
        check_real(self.strength, "strength", 0)
        check_share(self.threshold, "threshold")
        check_real(self.rate, "rate", 0)
        if check_share(self.begin, "begin") > check_share(self.end, "end"):
            raise UsageError(
                f"window is empty: got begin={self.begin}, end={self.end}, expected begin <= end."
            )

    def substitute(self, name: str, weight: Weight, state: TrainState) -> Weight:
        return MovementWeight(weight, self.rate)

    def tau(self, state: TrainState) -> float:
        """tau_t at this step."""
        begin, end = round(self.begin * state.horizon), round(self.end * state.horizon)
        progress = (state.step - begin) / max(1, end - begin)
        return ramp(0.0, self.threshold, min(1.0, max(0.0, progress)), power=3)

    def penalty(self, state: TrainState) -> float:
        """Second term of (2)."""
        layers = state.network.prunable()
        price, value = self.strength * self.tau(state) / (self.threshold or 1) / len(layers), 0.0
        for layer in layers.values():
            score = layer.weight.params()["score"]
            open_ = logistic(score.value)
            score.grad += price / open_.size * open_ * (1 - open_)
            value += price * float(open_.mean())
        return value

    def after_update(self, state: TrainState) -> None:
        tau, layers = self.tau(state), state.network.prunable()
        scores = {name: layer.weight.params()["score"].value for name, layer in layers.items()}
        state.rewire({name: logistic(s) > tau for name, s in scores.items()})
