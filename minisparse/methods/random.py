"""Random: which weights stay is drawn by lot; the control every criterion has to beat.

T. Gale, E. Elsen, S. Hooker. The State of Sparsity in Deep Neural Networks. 2019. arXiv:1902.09574 (random
gradual pruning); U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen. Rigging the Lottery. ICML 2020.
arXiv:1911.11134 (static random masks with the allocation of the dynamic method)

    score = u + [weight in S],   u uniform on [0, 1), independent for every weight,                    (1)
            S a uniformly random subset of the final size, both drawn anew at every moment of pruning

No weight is preferred, so the k largest of n such scores are a uniformly random k-subset, and each weight
stays with probability k/n. Under a gradual schedule the lot falls among the weights still present: masks are
nested, and the present ones are at every moment a uniform subset of their layer.

By default the mask is drawn once before training, and is then S itself: with the allocation (ERK) and from
the very stream of random numbers that dynamic methods start from. With the same seed this is the static
control of RigL and SET, mask for mask.

Departure: the count is exact. Some codes draw each weight independently, and the number kept varies.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisparse.methods.base import Scored, layer_shapes, setting
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import ERK, Allocation
from minisparse.sparsity.sample import sample_layers
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.training.state import TrainState


@register("random", family="control", paper="arXiv:1902.09574")
@dataclass(frozen=True)
class Random(Scored):
    """Keep weights drawn at random."""

    schedule: Schedule = setting(OneShot(0.0), "when to prune, and how far each time")
    allocation: Allocation = setting(ERK(), "how the kept weights are shared among layers")

    def score(self, state: TrainState) -> dict[str, Array]:
        rng, shapes = state.rng("topology"), layer_shapes(state.network)
        drawn = sample_layers(shapes, self.sparsity, self.allocation, rng)
        scores = {name: rng.random(shape.matrix) for name, shape in shapes.items()}
        for name, flat in drawn.items():
            scores[name].reshape(-1)[flat] += 1
        return scores
