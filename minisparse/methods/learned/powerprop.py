"""Powerprop: train theta with W = theta |theta|^(alpha - 1), so that small weights stay small; prune by |W|.

J. Schwarz, S. M. Jayakumar, R. Pascanu, P. E. Latham, Y. W. Teh. Powerpropagation: A sparsity inducing weight
reparameterisation. NeurIPS 2021. arXiv:2110.00296

    W = theta |theta|^(alpha - 1),   dL/dtheta = dL/dW alpha |theta|^(alpha - 1)           (1)
    score = |W|                                                                            (2)

The gradient of a weight is scaled by its size: the rich get richer, and more of them can go. Training starts
at the same function, theta = sign(W) |W|^(1/alpha); alpha = 1 is magnitude pruning. Momentum, Adam and
weight decay act on theta.

Departure: pruned gradually by default, the paper prunes once at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisparse.methods.base import Scored, harden, setting, swap
from minisparse.methods.registry import register
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_real
from minisparse.sparsity.schedule import Cubic, Schedule
from minisparse.training.state import TrainState
from minisparse.weights.powerprop import PowerWeight


@register("powerprop", family="learned", paper="arXiv:2110.00296")
@dataclass(frozen=True)
class Powerprop(Scored):
    """Powerpropagation with magnitude pruning."""

    schedule: Schedule = setting(Cubic(), "when to prune, and how far each time")
    alpha: float = setting(2.0, "power of theta; 1 is ordinary training")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.alpha, "alpha", 1)

    def setup(self, state: TrainState) -> None:
        swap(state, lambda name, weight: PowerWeight(weight, self.alpha))
        super().setup(state)

    def score(self, state: TrainState) -> dict[str, Array]:
        layers = state.network.prunable()
        return {name: magnitude(layer.weight.dense()) for name, layer in layers.items()}

    def finish(self, state: TrainState) -> None:
        harden(state)
