"""Layer collapse: the network's outputs no longer depend on its inputs.

H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli. Pruning neural networks without any data by iteratively
conserving synaptic flow. NeurIPS 2020. arXiv:2006.05467 (the name, and why it happens)

Two ways it comes about: the kept weights leave no path from inputs to outputs, or every unit of a layer
is silent on the data. Both are looked for.
"""

from __future__ import annotations

import numpy as np

from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array


def cut_layer(network: Network) -> str | None:
    """Name of the layer at which the last path of kept weights from the inputs ends; None if one remains.

    A layer with no kept weight is named in preference to one whose kept weights lead from dead units.
    """
    signal = np.ones((1, *network.input_shape), dtype=np.float32)
    if network.reach(signal).any():
        return None
    empty = [n for n, layer in network.prunable().items() if layer.weight.kept == 0]
    if empty:
        return empty[0]
    for name, layer in network.layers.items():
        signal = layer.reach(signal)
        if not signal.any():
            return name
    return None


def silent_layer(network: Network, x: Array) -> str | None:
    """Name of the first layer whose output is the same for every sample of x although its input is not."""
    if len(x) < 2:
        return None
    y = x.reshape(len(x), *network.input_shape)
    for name, layer in network.layers.items():
        if not np.ptp(y, axis=0).any():
            return None
        y = layer.forward(y, EVAL)
        if not np.ptp(y, axis=0).any():
            return name
    return None


def collapse(network: Network, x: Array) -> str | None:
    """One sentence naming the collapsed layer, or None if outputs depend on inputs. x: some samples."""
    name = cut_layer(network)
    if name is not None:
        layer = network.prunable().get(name)
        count = "" if layer is None else f"{layer.weight.kept:,} of {layer.weight.size:,} weights kept, "
        return f"layer '{name}' collapsed: {count}no path from inputs to outputs remains"
    name = silent_layer(network, x)
    if name is not None:
        return f"layer '{name}' is silent: its output is the same for every input"
    return None
