"""Conservation of scores: what enters a hidden unit against what leaves it, and the sums of whole layers.

H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli. Pruning neural networks without any data by iteratively
conserving synaptic flow. NeurIPS 2020. arXiv:2006.05467

Of scores w dR/dw, for any R of the outputs, without biases and with activations of the form a z:

    sum of the scores into a hidden unit = sum of the scores out of it                     (1)
    every layer's sum = sum_k y_k dR/dy_k, the same for all                                (2)

A layer of n weights has mean score proportional to 1 / n by (2): the largest layers have the smallest scores.
SynFlow's scores are of this kind and not negative, so what leaves a layer makes its other weights worth more.
SNIP takes absolute values, of both signs before, which break (1) and (2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minisparse.curvature.gradient import gradient
from minisparse.methods.initial.snip import connection_sensitivity
from minisparse.methods.initial.synflow import synaptic_flow
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array


@dataclass(frozen=True)
class Balance:
    """Scores summed over what enters and over what leaves each hidden unit, by the layer that it ends.

    units: layer -> (into, out of), each (units,); layers: sums over whole layers.
    """

    units: Mapping[str, tuple[Array, Array]]
    layers: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Mean over layers of their sums."""
        return float(np.mean(list(self.layers.values())))


def balance(scores: Mapping[str, Array]) -> Balance:
    """scores: (out, in) of each layer of a chain of linear layers, in the order data flows."""
    names = list(scores)
    units = {
        below: (scores[below].sum(axis=1), scores[above].sum(axis=0))
        for below, above in zip(names, names[1:], strict=False)
    }
    return Balance(units, {name: float(score.sum()) for name, score in scores.items()})


def balances(network: Network, loss: Loss, x: Array, target: Array) -> dict[str, Balance]:
    """Of SynFlow's scores and of SNIP's, in float64; nothing unless layers are one chain of linear ones."""
    work = network.astype(np.float64)
    layers = work.prunable()
    shapes = [layer.weight.shape for layer in layers.values()]
    linear = all(layer.weight.geometry[2:] == (1, 1) for layer in layers.values())
    if not linear or any(a[0] != b[1] for a, b in zip(shapes, shapes[1:], strict=False)):
        return {}
    g = gradient(work, loss, x.astype(np.float64), target)
    weights = {name: layer.weight.dense() for name, layer in layers.items()}
    snip = connection_sensitivity(weights, {name: g[f"{name}.weight"] for name in layers})
    return {"synflow": balance(synaptic_flow(work)), "snip": balance(snip)}
