"""Sparsity-aware initialisation: every unit's weights drawn for the inputs that it has.

U. Evci, Y. A. Ioannou, C. Keskin, Y. Dauphin. Gradient Flow in Sparse Neural Networks and How Lottery Tickets
Win. AAAI 2022. arXiv:2010.03533

An initialiser of a dense layer gives weights of mean 0 and variance v / n for n inputs a unit (v = 2 for
Kaiming's). Of a unit that keeps f_i of them the pre-activation z_i = sum_j m_ij w_ij x_j has

    E z_i^2 = (f_i / n) v x_i^2,       x_i^2 the mean of x_j^2 over its present inputs         (1)

so that signals, and with them gradients, shrink by about the density with each layer. Drawn instead by

    w_ij ~ sqrt(n / f_i) (a draw of the dense initialiser),    variance v / f_i                (2)

it is E z_i^2 = v x_i^2 whatever the mask. A unit without inputs stays 0. Where nothing is absent (2) is the
dense initialiser, draw for draw. In a convolution f_i counts the taps of all channels.

With equal fan-ins (2) is what `reinit:augmented=true` does to a layer; with unequal ones that keeps signals
on the average of units only.

Departure: the paper names Kaiming's normal distribution; (2) does the same to any initialiser whose variance
is in inverse proportion to fan-in. Biases are as when the network was made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from minisparse.nn.network import Network
from minisparse.sparsity.control import Untouched
from minisparse.sparsity.shape import Array, Mask


def fan_in_scale(mask: Mask) -> Array:
    """sqrt(n / f_i) of equation (2) as (out, 1) for a mask (out, in); 1 for a unit without inputs."""
    fan_in = mask.sum(axis=1, keepdims=True)
    return np.sqrt(mask.shape[1] / np.where(fan_in > 0, fan_in, mask.shape[1]))


def initialise_for_masks(network: Network, rng: Generator) -> None:
    """Equation (2) in all prunable layers, in place; absent entries stay 0."""
    network.reinitialise(rng)
    for layer in network.prunable().values():
        dense = layer.weight.dense()
        layer.weight.assign(dense * fan_in_scale(layer.weight.mask).astype(dense.dtype))


@dataclass(frozen=True)
class SparseInit(Untouched):
    """New weights, the mask kept, each unit's variance that of its own fan-in."""

    def weights(self, network: Network, rng: Generator) -> bool:
        """Equation (2)."""
        initialise_for_masks(network, rng)
        return True
