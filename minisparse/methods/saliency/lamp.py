"""LAMP: a magnitude relative to the layer's larger weights; one global ranking then empties no layer.

J. Lee, S. Park, S. Mo, S. Ahn, J. Shin. Layer-adaptive Sparsity for the Magnitude-based Pruning. ICLR 2021.
arXiv:2010.07611

With the n weights of a layer in ascending order of magnitude, |w_(1)| <= ... <= |w_(n)|,

    score_(k) = w_(k)^2 / sum_{m >= k} w_(m)^2                                             (1)

the share of the layer's remaining squared norm that the next removal costs. Within a layer the order is that
of magnitude; between layers the scale cancels; the largest weight of every layer scores exactly 1, so that
no layer is emptied while as many weights stay as there are layers. The global ranking of (1) is the greedy
minimiser of the relative distortion of all layers.

The sums are taken from the largest weight down, in float64 and relative to it: total minus prefix, as in the
authors' code, cancels and gives top scores of 0.94 to 1.05 on 200,000 numbers of float32.

Departures: counts are exact (the authors keep all scores not below the threshold and prune again layer by
layer). Of equal magnitudes the one of lower flat index scores higher. Zeros score 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import Scored, setting
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.schedule import Rounds, Schedule
from minisparse.training.state import TrainState


def lamp(weight: Array) -> Array:
    """Equation (1) for every weight of one layer; any shape, float64."""
    size = np.abs(weight).astype(np.float64).ravel()
    largest = size.max()
    if largest == 0:
        return np.zeros(weight.shape)
    squares = (size / largest) ** 2
    descending = np.argsort(-size, kind="stable")
    rest = np.cumsum(squares[descending])
    scores = np.empty_like(squares)
    scores[descending] = squares[descending] / rest
    return scores.reshape(weight.shape)


@register("lamp", family="saliency", paper="arXiv:2010.07611")
@dataclass(frozen=True)
class LAMP(Scored):
    """Layer-adaptive magnitude."""

    schedule: Schedule = setting(Rounds(10), "when to prune, and how far each time")

    def score(self, state: TrainState) -> dict[str, Array]:
        layers = state.network.prunable()
        return {name: lamp(layer.weight.dense()) for name, layer in layers.items()}
