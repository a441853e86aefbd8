"""Gradient flow: how much of the loss's slope reaches the weights, and of the signal each layer.

U. Evci, Y. A. Ioannou, C. Keskin, Y. Dauphin. Gradient Flow in Sparse Neural Networks and How Lottery Tickets
Win. AAAI 2022. arXiv:2010.03533

    L(w - lr g) = L(w) - lr |g|^2 + O(lr^2),   g = dL/dw over present weights and all other parameters   (1)

|g|^2 is the rate at which descent lowers the loss; when masks make it vanish, training does not start.

    signal_l = mean over samples, positions and units of z_l^2,   z_l the output of layer l             (2)
"""

from __future__ import annotations

import numpy as np

from minisparse.curvature.gradient import gradient
from minisparse.nn.loss import Loss
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array


def gradient_flow(network: Network, loss: Loss, x: Array, target: Array) -> float:
    """|g|^2 of equation (1), in evaluation mode; the gradient of absent weights is 0 and not counted."""
    g = gradient(network, loss, x, target)
    return float(sum(np.sum(a.astype(np.float64) ** 2) for a in g.values()))


def signal(network: Network, x: Array) -> dict[str, float]:
    """Equation (2) for each prunable layer, by its name; x (n, *in), evaluation mode."""
    network.forward(x, EVAL)
    found = {}
    for name, layer in network.prunable().items():
        z = layer.rows @ layer.weight.dense().T
        if layer.bias is not None:
            z = z + layer.bias.value
        found[name] = float(np.mean(z.astype(np.float64) ** 2))
    return found
