"""STR: every layer learns the threshold below which its weights are zero; the sparsity is found, not asked.

A. Kusupati, V. Ramanujan, R. Somani, M. Wortsman, P. Jain, S. Kakade, A. Farhadi. Soft Threshold Weight
Reparameterization for Learnable Sparsity. ICML 2020. arXiv:2002.03231

    W = sign(theta) max(|theta| - g(s), 0),   g(s) = 1 / (1 + exp(-s))   one s per layer    (1)
    L = loss + decay/2 sum_layers s^2                                                       (2)

s starts far below 0, where the threshold is 0 and nothing is pruned; its decay draws it towards 0, that is
the threshold towards 1/2, until the loss resists. Gradients are in `weights/soft_threshold.py`.

Departure: the paper gives s the weight decay of the weights; here it has its own, the optimiser's is for
theta alone. s shrinks by 1 - lr decay at each step: `initial` and `decay` belong to the length of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from minisparse.methods.base import Learned, setting
from minisparse.methods.registry import register
from minisparse.nn.weight import Weight
from minisparse.sparsity.count import check_real
from minisparse.training.state import TrainState
from minisparse.weights.soft_threshold import SoftThresholdWeight


@register("str", family="learned", paper="arXiv:2002.03231")
@dataclass(frozen=True)
class STR(Learned):
    """Soft threshold reparametrisation."""

    demo: ClassVar[Mapping[str, Any]] = {"initial": -1.5}

    initial: float = setting(-5.0, "s at the start of training")
    decay: float = setting(0.1, "weight decay of s, which makes the network sparse")

    def __post_init__(self) -> None:
        check_real(self.initial, "initial", -1e6)
        check_real(self.decay, "decay", 0)

    def substitute(self, name: str, weight: Weight, state: TrainState) -> Weight:
        return SoftThresholdWeight(weight, self.initial)

    def penalty(self, state: TrainState) -> float:
        """Second term of (2)."""
        value = 0.0
        for layer in state.network.prunable().values():
            s = layer.weight.params()["threshold"]
            s.grad += self.decay * s.value
            value += self.decay / 2 * float(s.value[0]) ** 2
        return value
