"""GRASP-It: before training, prune in rounds, and keep the weights of largest gradient.

P. de Jorge, A. Sanyal, H. S. Behl, P. H. S. Torr, G. Rogez, P. K. Dokania. Progressive Skeletonization:
Trimming More Fat from a Network at Initialization. ICLR 2021. arXiv:2006.09081

GraSP wants a large gradient norm in the network that it leaves, and estimates what each removal does to it
at the whole network. In rounds as of Iterative SNIP the norm can be had as it is: the present weights add

    |g(m w)|^2 = sum_j m_j g_j(m w)^2,   score_j = g_j(m w)^2                               (1)

to it, g = dL/dw. The largest among the present stay; nothing returns.

Departures: as for Iterative SNIP.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisparse.methods.base import Scored, setting
from minisparse.methods.initial.rounds import FRESH, round_gradients
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_flag
from minisparse.sparsity.schedule import Exponential, Schedule
from minisparse.training.state import TrainState


@register("grasp-it", family="initial", paper="arXiv:2006.09081")
@dataclass(frozen=True)
class GRASPIt(Scored):
    """Gradient norm in rounds."""

    schedule: Schedule = setting(Exponential(60), "when to prune, and how far each time")
    fresh: bool = setting(True, FRESH)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(self.fresh, "fresh")

    def score(self, state: TrainState) -> dict[str, Array]:
        return {name: g**2 for name, g in round_gradients(state, self.fresh).items()}
