"""Group lasso: train with a penalty on the norms of whole units, then remove the units of smallest norm.

W. Wen, C. Wu, Y. Wang, Y. Chen, H. Li. Learning Structured Sparsity in Deep Neural Networks. NeurIPS 2016.
arXiv:1608.03665
M. Yuan, Y. Lin. Model Selection and Estimation in Regression with Grouped Variables. J. R. Stat. Soc. B
68(1), 2006 (the penalty, the factor of the group's size, and the solution (3))

Unit u is written by m_u weights w_u, the rows of one layer or of all that write into a residual stream.

    penalty = lambda sum_u sqrt(m_u) ||w_u||_2                                             (1)
    w_u <- w_u max(0, 1 - eta lambda sqrt(m_u) / ||w_u||_2)    after each step of rate eta (2)

(2) is the proximal map of (1): it shortens every unit by the same length per sqrt(m_u), and those that are
shorter become exactly 0. On orthonormal inputs with least-squares solution z its fixed point is

    w_u = z_u max(0, 1 - lambda sqrt(m_u) / ||z_u||_2)                                     (3)

Until the last unit is removed training has (1); what is left is trained on without. Units are ranked by their
norm, divided by the mean norm of their group, all groups together.

Departures: the paper adds the gradient of (1), which never makes a unit exactly 0; it penalises input
channels and filters of a layer each for itself, and depth and filter shapes in other runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import setting
from minisparse.methods.registry import register
from minisparse.methods.structured.filter_norm import unit_norms
from minisparse.methods.structured.ranked import Ranked, normalized
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_real
from minisparse.sparsity.groups import Group, groups_of
from minisparse.training.state import TrainState


def unit_size(network: Network, group: Group) -> int:
    """m_u, the same for all units of a group."""
    layers = network.prunable()
    return sum(rows.shape[1] * layers[name].weight.shape[1] for name, rows in group.producers)


def shares_left(norms: Array, length: float) -> Array:
    """max(0, 1 - length / norm) (units,), 0 where the norm is: by what (2) multiplies each unit."""
    safe = np.where(norms > 0, norms, 1)
    left: Array = np.where(norms > length, 1 - length / safe, 0)
    return left


def shorten(network: Network, group: Group, amount: float) -> None:
    """Equation (2) for one group, in place; amount: eta lambda."""
    norms = unit_norms(network, group, power=2)
    left = shares_left(norms, amount * np.sqrt(unit_size(network, group)))
    for name, rows in group.producers:
        weight = network.prunable()[name].weight
        factor = np.ones((weight.shape[0], 1))
        factor[rows] = left[:, None, None]
        weight.assign(weight.dense() * factor.astype(weight.dense().real.dtype))


@register("group-lasso", family="structured", paper="arXiv:1608.03665")
@dataclass(frozen=True)
class GroupLasso(Ranked):
    """Keep the units of largest norm."""

    strength: float = setting(1e-3, "lambda, by how much per step of rate 1 every unit is shortened")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.strength, "strength", 0)

    def active(self, state: TrainState) -> bool:
        """Whether the penalty is on."""
        return self.strength > 0 and state.step < self.pruned_by(state)

    def score(self, state: TrainState) -> dict[Group, Array]:
        network = state.network
        return {g: normalized(unit_norms(network, g, power=2)) for g in groups_of(network)}

    def penalty(self, state: TrainState) -> float:
        """The value (1); its gradient is not added, (2) takes its place."""
        network = state.network
        groups = groups_of(network) if self.active(state) else ()
        sums = (np.sqrt(unit_size(network, g)) * unit_norms(network, g, power=2).sum() for g in groups)
        return self.strength * float(sum(sums))

    def update(self, state: TrainState) -> None:
        super().update(state)
        for group in groups_of(state.network) if self.active(state) else ():
            shorten(state.network, group, state.lr * self.strength)
