"""FORCE: before training, prune in rounds by foresight sensitivity; what was removed may return.

P. de Jorge, A. Sanyal, H. S. Behl, P. H. S. Torr, G. Rogez, P. K. Dokania. Progressive Skeletonization:
Trimming More Fat from a Network at Initialization. ICLR 2021. arXiv:2006.09081

Wanted is the mask with the largest sensitivity of the network that it leaves, not of the one before:

    max over m with n - round(s n) ones of   sum_j m_j |w_j g_j(m w)|,   g = dL/dw          (1)

It is approached in rounds t = 1..T of rising sparsity s_t = 1 - (1 - s)^(t/T), from m_0 = 1:

    score_t = |w g(m_{t-1} w)|                                                             (2)
    m_t     = the n - round(s_t n) largest of score_t among all n                          (3)

The gradient is taken where the pruned network is, at absent weights too (there it says what the loss would
gain by their return), and multiplies the weights as they were drawn. So a removed weight has a score, and it
returns with its own value. Score (2) masked by m_{t-1} would be Iterative SNIP; T = 1 is SNIP.

The values of absent weights are kept beside the network while rounds last. A weight that training has moved
(a schedule that prunes later) returns with the value it had when it left.

T is 60, as in the paper's experiments. Each round sees other samples, the first one the probe sample.

Departures: as for Iterative SNIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisparse.methods.base import Scored, setting
from minisparse.methods.initial.rounds import FRESH, round_gradients
from minisparse.methods.initial.snip import connection_sensitivity
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_flag
from minisparse.sparsity.schedule import Exponential, Schedule
from minisparse.training.state import TrainState

VALUES = "force: weights, absent ones too"


def remembered_weights(state: TrainState) -> dict[str, Array]:
    """w of equation (2), (out, in) by layer: present weights as they are, absent ones as they left."""
    layers, left = state.network.prunable(), state.memory.get(VALUES)
    now = {name: layer.weight.dense() for name, layer in layers.items()}
    if left is None:
        return {name: value.copy() for name, value in now.items()}
    return {name: np.where(layers[name].weight.mask, now[name], left[name]) for name in layers}


@register("force", family="initial", paper="arXiv:2006.09081")
@dataclass(frozen=True)
class FORCE(Scored):
    """Foresight connection sensitivity in rounds, weights may return."""

    regrows: ClassVar[bool] = True

    schedule: Schedule = setting(Exponential(60), "when to prune, and how far each time")
    fresh: bool = setting(True, FRESH)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(self.fresh, "fresh")

    def score(self, state: TrainState) -> dict[str, Array]:
        """Equation (2), divided by its sum as in SNIP."""
        return connection_sensitivity(remembered_weights(state), round_gradients(state, self.fresh))

    def prune_to(self, state: TrainState, sparsity: float) -> None:
        """Equation (3); weights that return get their values back."""
        values = state.memory[VALUES] = remembered_weights(state)
        super().prune_to(state, sparsity)
        for name, layer in state.network.prunable().items():
            layer.weight.assign(values[name])
