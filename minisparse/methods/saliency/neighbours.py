"""Norms of what feeds a layer and of what reads it, channel by channel.

For a layer with weights W (out, taps, channels), and a BatchNorm between two layers acting in evaluation
mode as the factor b = gamma / sqrt(v + eps) of each channel,

    fed(i)^2   sum over the layers that feed input channel i of   b_i^2 sum_{taps, c} W'[i, taps, c]^2     (1)
    read(j)^2  sum over the layers that read output channel j of  b_j^2 sum_{out, taps} W'[out, taps, j]^2 (2)

In a chain there is one such layer on either side. A residual sum has several: their weights, put side by
side, are one matrix whose squared norm is the sum. The input and the outputs count as layers of norm 1.
Channels pass through activations and pooling as they are; flattening gives each of its columns to the channel
they come from.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from minisparse.nn.layer import Layer, LinearLayer
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm
from minisparse.nn.param import Array
from minisparse.nn.pool import Flatten
from minisparse.nn.residual import Residual, Sequence, SubsamplePad

Squares = dict[Layer, Array]


def fold(layer: BatchNorm) -> Array:
    """b^2 of every channel."""
    return layer.gamma.value**2 / (layer.running_var + layer.eps)


@singledispatch
def upwards(layer: Layer, s: Array, found: Squares) -> Array:
    """Squared norms (channels,) at the output from those at the input; notes each layer's input, (1)."""
    return s


@upwards.register
def _(layer: Sequence, s: Array, found: Squares) -> Array:
    for child in layer.layers.values():
        s = upwards(child, s, found)
    return s


@upwards.register
def _(layer: Residual, s: Array, found: Squares) -> Array:
    return upwards(layer.branch, s, found) + upwards(layer.shortcut, s, found)


@upwards.register
def _(layer: LinearLayer, s: Array, found: Squares) -> Array:
    found[layer] = s
    return (layer.weight.dense() ** 2).sum(axis=1)


@upwards.register
def _(layer: BatchNorm, s: Array, found: Squares) -> Array:
    return s * fold(layer)


@upwards.register
def _(layer: Flatten, s: Array, found: Squares) -> Array:
    return np.repeat(s, int(np.prod(layer.shape)) // len(s))


@upwards.register
def _(layer: SubsamplePad, s: Array, found: Squares) -> Array:
    return np.pad(s, (0, layer.channels - len(s)))


@singledispatch
def downwards(layer: Layer, s: Array, found: Squares) -> Array:
    """Squared norms (channels,) at the input from those at the output; notes each layer's output, (2)."""
    return s


@downwards.register
def _(layer: LinearLayer, s: Array, found: Squares) -> Array:
    found[layer] = s
    columns = (layer.weight.dense() ** 2).sum(axis=0)
    return columns.reshape(-1, layer.weight.geometry[1]).sum(axis=0)


@downwards.register
def _(layer: BatchNorm, s: Array, found: Squares) -> Array:
    return s * fold(layer)


@downwards.register
def _(layer: Flatten, s: Array, found: Squares) -> Array:
    return s.reshape(layer.shape[0], -1).sum(axis=1)


@downwards.register
def _(layer: SubsamplePad, s: Array, found: Squares) -> Array:
    return s[: layer.shape[0]]


def neighbours(network: Network) -> dict[str, tuple[Array, Array]]:
    """Layer name -> (fed (in,), read (out,)), equations (1) and (2), one number per column and per row."""
    fed: Squares = {}
    read: Squares = {}
    # layers that change shapes know them from their last forward pass
    network.forward(np.zeros((1, *network.input_shape), dtype=network.dtype))
    upwards(network, np.ones(network.input_shape[0], dtype=network.dtype), fed)
    outputs = np.ones(network.outputs, dtype=network.dtype)
    network.descend(outputs, lambda layer, s, need: downwards(layer, s, read))
    found = {}
    for name, layer in network.prunable().items():
        taps = layer.weight.shape[1] // len(fed[layer])
        found[name] = np.sqrt(np.tile(fed[layer], taps)), np.sqrt(read[layer])
    return found
