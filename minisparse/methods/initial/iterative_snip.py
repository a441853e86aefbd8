"""Iterative SNIP: before training, prune in rounds, and score what is left anew each time.

P. de Jorge, A. Sanyal, H. S. Behl, P. H. S. Torr, G. Rogez, P. K. Dokania. Progressive Skeletonization:
Trimming More Fat from a Network at Initialization. ICLR 2021. arXiv:2006.09081

With n prunable weights w, mask m_0 = 1 and target sparsity s, rounds t = 1..T:

    g_t     = dL/dw at m_{t-1} w                                                           (1)
    score_t = |m_{t-1} w g_t|                                                              (2)
    m_t     = the n - round(s_t n) largest of score_t among the present,
    s_t     = 1 - (1 - s)^(t/T)                                                            (3)

SNIP is T = 1: it judges a weight by the whole network, most of which is gone when training begins. Here a
weight is judged by a network of little more than its final size. What has left stays away: m_t <= m_{t-1}.
FORCE is the variant in which it may return.

T is 60, as in the paper's experiments. Each round sees other samples, the first one the probe sample. With
many rounds of few samples a weight has many chances to be judged badly once, and no way back: then more is
kept of what matters with `fresh` off.

Departures: counts are exact (the authors' code keeps int((1 - s_t) n) and all that tie with the last), one
sample a round where the paper averages over more on harder tasks, BatchNorm is in evaluation mode.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisparse.methods.base import Scored, setting
from minisparse.methods.initial.rounds import FRESH, round_gradients
from minisparse.methods.initial.snip import connection_sensitivity
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_flag
from minisparse.sparsity.schedule import Exponential, Schedule
from minisparse.training.state import TrainState


@register("iterative-snip", family="initial", paper="arXiv:2006.09081")
@dataclass(frozen=True)
class IterativeSNIP(Scored):
    """Connection sensitivity in rounds, nothing returns."""

    schedule: Schedule = setting(Exponential(60), "when to prune, and how far each time")
    fresh: bool = setting(True, FRESH)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(self.fresh, "fresh")

    def score(self, state: TrainState) -> dict[str, Array]:
        """Equation (2), divided by its sum as in SNIP: absent weights are 0."""
        grads = round_gradients(state, self.fresh)
        layers = state.network.prunable()
        return connection_sensitivity({name: x.weight.dense() for name, x in layers.items()}, grads)
