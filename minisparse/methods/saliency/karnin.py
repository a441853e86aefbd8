"""Karnin: what removing a weight would cost, estimated from the path it took in training.

E. D. Karnin. A Simple Procedure for Pruning Back-Propagation Trained Neural Networks. IEEE Transactions on
Neural Networks 1(2), 1990, 239-242. doi:10.1109/72.80236

The loss difference between w_q = 0 and its final value w_q^f is not known, but training has crossed part of
the way, from w_q^i to w_q^f. The slope met there, extended to 0, gives

    S_q = -[sum_t g_q(t) dw_q(t)] w_q^f / (w_q^f - w_q^i),    g = dL/dw before step t,     (1)
                                                              dw = the change made by it
    S_q =  sum_t dw_q(t)^2 w_q^f / (eta (w_q^f - w_q^i))      for plain descent dw = -eta g (2)

and the smallest S leave. The sums are kept while training, which forms dL/dw a second time at each step. It
is not "weights that moved little": S < 0 for a weight that shrank, whose removal the extension says lowers
the loss. (1) holds with momentum, Adam and weight decay too, and is what is computed; (2) only without them.

Departures: S = 0 where w_q^f = w_q^i, which has no slope. g is the mini-batch gradient, whose noise adds to
the sums without progress. Pruning before training (schedule one-shot at 0) has no path and no scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import Scored, setting
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.training.state import TrainState

INITIAL = "karnin: initial weights"
SHADOW = "karnin: sums along the path"


def path_sensitivity(shadow: Array, initial: Array, final: Array) -> Array:
    """Equation (1): shadow = -sum_t g dw; all of one shape."""
    moved = final - initial
    still = moved == 0
    return np.where(still, 0.0, shadow * final / np.where(still, 1, moved))


@register("karnin", family="saliency", paper="doi:10.1109/72.80236")
@dataclass(frozen=True)
class Karnin(Scored):
    """Sensitivity accumulated along training."""

    schedule: Schedule = setting(OneShot(0.5), "when to prune, and how far each time")

    def setup(self, state: TrainState) -> None:
        weights = {name: layer.weight.dense() for name, layer in state.network.prunable().items()}
        state.memory[INITIAL] = {name: w.astype(np.float64) for name, w in weights.items()}
        state.memory[SHADOW] = {name: np.zeros(w.shape) for name, w in weights.items()}
        super().setup(state)

    def update(self, state: TrainState) -> None:
        layers = state.network.prunable()
        before = {n: (layer.dense_grad(), layer.weight.dense().copy()) for n, layer in layers.items()}
        super().update(state)
        for name, (grad, old) in before.items():
            state.memory[SHADOW][name] -= grad * (layers[name].weight.dense() - old)

    def score(self, state: TrainState) -> dict[str, Array]:
        initial, shadow = state.memory[INITIAL], state.memory[SHADOW]
        layers = state.network.prunable()
        return {n: path_sensitivity(shadow[n], initial[n], x.weight.dense()) for n, x in layers.items()}
