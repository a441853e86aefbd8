"""SNIP: before training, keep the connections to which the loss is most sensitive.

N. Lee, T. Ajanthan, P. H. S. Torr. SNIP: Single-shot Network Pruning Based on Connection Sensitivity.
ICLR 2019. arXiv:1810.02340

Every weight gets a gate c, 1 for present. With g = dL/dw the loss depends on the gates as

    dL(c w)/dc_j at c = 1  =  w_j g_j                                                      (1)
    score_j = |w_j g_j| / sum_k |w_k g_k|                                                  (2)

with k over all layers; the largest scores stay, in one ranking over the network.

Departures: biases are not pruned, and training starts from the weights that were scored, as the paper
reads; its code prunes biases and draws fresh weights after pruning. The batch is the probe sample (a few
examples of every class), and BatchNorm is in evaluation mode, as in that code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import Scored, setting
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.training.state import TrainState


def connection_sensitivity(weights: dict[str, Array], grads: dict[str, Array]) -> dict[str, Array]:
    """Equation (2) for all layers together; 0 everywhere if no gate matters.

    weights, grads: layer name -> (out, in).
    """
    effect = {name: np.abs(weight * grads[name]) for name, weight in weights.items()}
    total = sum(float(e.sum()) for e in effect.values())
    return {name: e / total if total > 0 else e for name, e in effect.items()}


@register("snip", family="initial", paper="arXiv:1810.02340")
@dataclass(frozen=True)
class SNIP(Scored):
    """Single-shot pruning by connection sensitivity."""

    schedule: Schedule = setting(OneShot(0.0), "when to prune, and how far each time")

    def score(self, state: TrainState) -> dict[str, Array]:
        grads = state.probe_gradients()
        layers = state.network.prunable()
        return connection_sensitivity({name: x.weight.dense() for name, x in layers.items()}, grads)
