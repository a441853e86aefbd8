"""SET: after each epoch the weights closest to zero leave, and as many enter at random.

D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta. Scalable training of artificial
neural networks with adaptive sparse connectivity inspired by network science. Nature Communications 9,
2018. arXiv:1707.04780

At the end of every epoch but the last, in each layer with P positive and Q negative weights, there leave

    the round(zeta P) smallest positive and the round(zeta Q) largest negative weights     (1)

and as many positions, drawn uniformly among those now empty (those just left included), enter with value 0
                                                                                           (2)

Departures: rounding is half to even. A weight that is exactly 0 (one that entered and got no gradient) counts
among the positives and so leaves first; the authors' dense code counts it with neither sign. New weights are
0, as in that code; their sparse code draws them from N(0, 0.01). An entry that leaves and re-enters at once
keeps its value and momentum, as in RigL. The mask is Erdos-Renyi like the paper's but set by the sparsity
and of exact size; the paper sets it by epsilon, density = epsilon (n_in + n_out) / (n_in n_out).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import DynamicSparse, rounded, setting
from minisparse.methods.dynamic.rules import grow_random
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, ErdosRenyi
from minisparse.sparsity.count import check_share
from minisparse.sparsity.select import top_k
from minisparse.training.state import TrainState


def survivors(weight: Array, zeta: float) -> Array:
    """Who stays after (1); weight (kept,) present entries."""
    stay = np.zeros(weight.shape, dtype=bool)
    for side in (weight >= 0, weight < 0):
        count = int(np.count_nonzero(side))
        stay |= top_k(np.abs(weight), count - rounded(zeta, count), among=side)
    return stay


@register("set", family="dynamic", paper="arXiv:1707.04780")
@dataclass(frozen=True)
class SET(DynamicSparse):
    """Sparse evolutionary training."""

    allocation: Allocation = setting(ErdosRenyi(), "how the kept weights are shared among layers")
    zeta: float = setting(0.3, "share of the weights of each sign exchanged after an epoch")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.zeta, "zeta")

    def due(self, state: TrainState) -> bool:
        return 0 < state.step < state.horizon and state.step % state.steps_per_epoch == 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        weight = layer.weight
        stay = weight.flat[survivors(weight.values, self.zeta)]
        # one stream per layer: layers of equal shape must not grow alike
        return grow_random(stay, weight.size, weight.kept - stay.size, state.rng(f"regrow {name}"))
