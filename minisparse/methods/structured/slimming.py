"""Network slimming: train with an L1 penalty on BatchNorm scales, then remove the channels of smallest scale.

Z. Liu, J. Li, Z. Shen, G. Huang, S. Yan, C. Zhang. Learning Efficient Convolutional Networks through Network
Slimming. ICCV 2017. arXiv:1708.06519

The scale gamma of a normalisation multiplies a whole channel. Until the last channel is removed training adds

    penalty = lambda sum |gamma|,    d penalty / d gamma = lambda sign(gamma)              (1)

to the loss (sign(0) = 0: the subgradient of least norm), and then one ranking over all layers removes

    the channels of smallest  mean_k |gamma_k|                                             (2)

over the normalisations k a channel passes: one in a plain network, several in a residual stream. What is left
is trained on without the penalty.

Units that pass no normalisation stay, and scales of channels that can not leave are not penalised.

Departures: the paper's ResNets normalise first and drop inputs of a branch by a selection layer, here the
channels of a stream leave together; the paper starts from gamma = 0.5, here from what the network has; one
round of training, pruning and training on, where the paper can do several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisparse.methods.base import setting
from minisparse.methods.registry import register
from minisparse.methods.structured.ranked import Ranked
from minisparse.nn.network import Network
from minisparse.nn.param import Array, Param
from minisparse.sparsity.count import check_real
from minisparse.sparsity.groups import Group, groups_of
from minisparse.training.state import TrainState


def scales(network: Network) -> dict[Group, list[tuple[Param, Array]]]:
    """(gamma, its channels (units, each)) of each normalisation a group passes, for groups that pass any."""
    layers = dict(network.walk())
    found = {
        group: [(layers[name].params()["weight"], channels) for name, channels in group.norms]
        for group in groups_of(network)
    }
    return {group: norms for group, norms in found.items() if norms}


def mean_scale(norms: list[tuple[Param, Array]]) -> Array:
    """Equation (2): (units,)."""
    sizes = [np.abs(gamma.value[channels].astype(np.float64)) for gamma, channels in norms]
    mean: Array = np.concatenate(sizes, axis=1).mean(axis=1)
    return mean


def add_penalty(gamma: Param, channels: Array, strength: float) -> float:
    """Equation (1) for some channels of one normalisation: its value; adds its gradient."""
    at = channels.reshape(-1)
    gamma.grad[at] += gamma.value.dtype.type(strength) * np.sign(gamma.value[at])
    return strength * float(np.abs(gamma.value[at]).sum())


@register("slimming", family="structured", paper="arXiv:1708.06519")
@dataclass(frozen=True)
class Slimming(Ranked):
    """Keep the channels of largest scale."""

    needs: ClassVar[frozenset[str]] = frozenset({"normalised hidden units"})

    strength: float = setting(1e-4, "lambda, strength of the penalty on scales")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.strength, "strength", 0)

    def score(self, state: TrainState) -> dict[Group, Array]:
        return {group: mean_scale(norms) for group, norms in scales(state.network).items()}

    def penalty(self, state: TrainState) -> float:
        if self.strength == 0 or state.step >= self.pruned_by(state):
            return 0.0
        parts = [part for norms in scales(state.network).values() for part in norms]
        return sum(add_penalty(gamma, channels, self.strength) for gamma, channels in parts)
