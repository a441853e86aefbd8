"""Random: which weights stay is drawn by lot; the control every criterion has to beat.

T. Gale, E. Elsen, S. Hooker. The State of Sparsity in Deep Neural Networks. 2019. arXiv:1902.09574 (random
gradual pruning); U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen. Rigging the Lottery. ICML 2020.
arXiv:1911.11134 (static random masks with the allocation of the dynamic method)

    score = u,   u uniform on [0, 1), independent for every weight and every moment of pruning          (1)

The k largest of n such scores are a uniformly random k-subset, so each weight stays with probability k/n.
Under a gradual schedule the lot falls among the weights still present: masks are nested, and the present
ones are at every moment a uniform subset of their layer.

By default the mask is drawn once before training, with the allocation (ERK) and from the very stream of
random numbers that dynamic methods start from: with the same seed this is the static control of RigL and
SET, mask for mask.

Departure: the count is exact. Some codes draw each weight independently, and the number kept varies.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisparse.methods.base import Scored, setting
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import ERK, Allocation
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.training.state import TrainState


@register("random", family="control", paper="arXiv:1902.09574")
@dataclass(frozen=True)
class Random(Scored):
    """Keep weights drawn at random."""

    schedule: Schedule = setting(OneShot(0.0), "when to prune, and how far each time")
    allocation: Allocation = setting(ERK(), "how the kept weights are shared among layers")

    def score(self, state: TrainState) -> dict[str, Array]:
        rng = state.rng("topology")
        layers = state.network.prunable()
        return {name: rng.random(layer.weight.shape) for name, layer in layers.items()}
