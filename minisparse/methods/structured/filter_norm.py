"""Filter norm: remove the neurons and filters whose weights have the smallest norm.

H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf. Pruning Filters for Efficient ConvNets. ICLR 2017.
arXiv:1608.08710

Unit u is written by the rows W_k[u] of one layer, or of several that write into a residual stream, and read
by columns of others:

    score_1(u) = sum_k sum |W_k[u]|                                                        (1)
    score_2(u) = (sum_k sum W_k[u]^2)^(1/2)                                                (2)

With `coupled` the columns that read the unit are counted too, as the whole group of weights that would leave.
(1) and (2) differ: (3, 0, 0, 0) has the smaller L1 and the larger L2 norm than (1, 1, 1, 0.5).

    N(u) = score(u) / mean of the scores of its group                                      (3)

With `normalize` groups are ranked together by (3), which is blind to their scale; it changes nothing where
every group is ranked for itself (allocation uniform, the paper's way).

Filters are scored by all their channels, those that have left being 0: what the paper calls greedy.

Departures: the paper chooses each layer's share by hand from its sensitivity (use share_of=units and an
explicit allocation); filters that write into a residual stream it ranks by the shortcut's weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.errors import UsageError
from minisparse.methods.base import setting
from minisparse.methods.registry import register
from minisparse.methods.structured.ranked import Ranked, normalized
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, Uniform
from minisparse.sparsity.count import check_flag, check_whole
from minisparse.sparsity.groups import Group, groups_of
from minisparse.training.state import TrainState


def unit_norms(network: Network, group: Group, power: int = 1, coupled: bool = False) -> Array:
    """Equation (1) for power 1, (2) for power 2: (units,)."""
    layers = network.prunable()
    total = np.zeros(len(group))
    for name, rows in group.producers:
        weight = layers[name].weight.dense().astype(np.float64)
        total += (np.abs(weight) ** power).sum(axis=1)[rows].sum(axis=1)
    for name, columns in group.consumers if coupled else ():
        weight = layers[name].weight.dense().astype(np.float64)
        total += (np.abs(weight) ** power).sum(axis=0)[columns].sum(axis=1)
    return total ** (1 / power)


@register("filter-norm", family="structured", paper="arXiv:1608.08710")
@dataclass(frozen=True)
class FilterNorm(Ranked):
    """Keep the units of largest norm."""

    allocation: Allocation = setting(Uniform(), "how the units that stay are shared among groups")
    norm: int = setting(1, "1 for L1, 2 for L2")
    coupled: bool = setting(False, "count the weights that read a unit too")
    normalize: bool = setting(True, "divide scores by their group's mean before comparing groups")

    def __post_init__(self) -> None:
        super().__post_init__()
        if check_whole(self.norm, "norm") > 2:
            raise UsageError(f"norm is not usable: got {self.norm!r}, expected 1 or 2.")
        check_flag(self.coupled, "coupled")
        check_flag(self.normalize, "normalize")

    def score(self, state: TrainState) -> dict[Group, Array]:
        network = state.network
        norms = {g: unit_norms(network, g, self.norm, self.coupled) for g in groups_of(network)}
        return {g: normalized(n) for g, n in norms.items()} if self.normalize else norms
