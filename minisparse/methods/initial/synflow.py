"""SynFlow: before training and without data, keep the connections that carry the most flow.

H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli. Pruning neural networks without any data by iteratively
conserving synaptic flow. NeurIPS 2020. arXiv:2006.05467

Replace every parameter theta by |theta|, feed a single input of ones, and let

    R = sum of the outputs                 (for a chain of layers 1^T |W_L| ... |W_1| 1)   (1)
    score = dR/dtheta theta                (the part of R that flows through theta)        (2)

Flow is conserved: what enters a hidden unit leaves it, so without biases the scores of every layer sum to
R. Pruning a little and scoring again, in rounds whose density falls geometrically,

    density_j = (1 - s)^(j/n),   j = 1..n,   n = 100                                       (3)

keeps a layer from being emptied while weights can go elsewhere.

All parameters and buffers are made absolute, as in the authors' code; BatchNorm is in evaluation mode (its
running mean is 0 before training, when this method acts). Activations must be the identity on numbers >= 0,
which ReLU and leaky ReLU are and sigmoid and tanh are not: such networks are refused.

R grows like a product over the layers, so it is computed in float64. Some 200 layers of usual width are
needed to exceed that; the scores are then infinite and an error says so.

Departure: only weights are ranked; the authors' code can rank biases and BatchNorm parameters too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisparse.methods.base import Scored, setting
from minisparse.methods.registry import register
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.schedule import Exponential, Schedule
from minisparse.training.state import TrainState


def positive(network: Network) -> Network:
    """A float64 copy with the absolute value of every parameter and buffer."""
    other = network.astype(np.float64)
    arrays = [p.value for p in other.params().values()] + list(other.buffers().values())
    for array in arrays:
        np.abs(array, out=array)
    return other


def flow(network: Network) -> float:
    """R of equation (1) of a network as `positive` makes it; fills every parameter's grad with dR/dtheta."""
    y = network.forward(np.ones((1, *network.input_shape)))
    network.backward(np.ones_like(y), need_dx=False)
    return float(y.sum())


def synaptic_flow(network: Network) -> dict[str, Array]:
    """Scores (out, in) of every prunable layer, equation (2); the network is left as it is."""
    # a copy for each of the 100 rounds costs a few per cent of ranking and of the passes through it
    other = positive(network)
    flow(other)
    return {name: layer.dense_grad() * layer.weight.dense() for name, layer in other.prunable().items()}


@register("synflow", family="initial", paper="arXiv:2006.05467")
@dataclass(frozen=True)
class SynFlow(Scored):
    """Iterative pruning by synaptic flow."""

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers", "homogeneous activations"})

    schedule: Schedule = setting(Exponential(100), "when to prune, and how far each time")

    def score(self, state: TrainState) -> dict[str, Array]:
        return synaptic_flow(state.network)
