"""Gradient: remove the weights whose removal changes the loss least, to first order.

M. C. Mozer, P. Smolensky. Skeletonization: A Technique for Trimming the Fat from a Network via Relevance
Assessment. NeurIPS 1988 (the signed form, for units)
P. Molchanov, S. Tyree, T. Karras, T. Aila, J. Kautz. Pruning Convolutional Neural Networks for Resource
Efficient Inference. ICLR 2017. arXiv:1611.06440 (the absolute form, for feature maps)

Setting w_q to zero is the step -w_q e_q. With g = dL/dw the Taylor series of the loss gives

    L(w - w_q e_q) - L(w) = -w_q g_q + O(w_q^2)                                            (1)

    score = -w g      `signed`: what is predicted to lower the loss most goes first        (2)
    score = |w g|     what is predicted to change the loss least goes first                (3)

A large negative -w g marks a steep direction, where the neglected quadratic term is large too: (3) is the
default. g is the mean gradient over the probe sample in evaluation mode, at the network as it is pruned.

Departures: the papers score units and feature maps, here a weight is scored, and a set of weights by the mean
over its weights. No normalisation by layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import Scored, setting
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_flag
from minisparse.sparsity.schedule import Cubic, Schedule
from minisparse.training.state import TrainState


def loss_change(weight: Array, grad: Array) -> Array:
    """First-order change of the loss when each weight alone is set to zero, equation (2); any shape."""
    return -weight * grad


@register("gradient", family="saliency", paper="arXiv:1611.06440")
@dataclass(frozen=True)
class Gradient(Scored):
    """Keep the weights to which the loss is sensitive."""

    schedule: Schedule = setting(Cubic(), "when to prune, and how far each time")
    signed: bool = setting(False, "rank by the predicted change of the loss, not by its size")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag(self.signed, "signed")

    def score(self, state: TrainState) -> dict[str, Array]:
        grads = state.probe_gradients()
        layers = state.network.prunable()
        change = {n: loss_change(layer.weight.dense(), grads[n]) for n, layer in layers.items()}
        return change if self.signed else {name: np.abs(c) for name, c in change.items()}
