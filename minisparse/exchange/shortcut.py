"""Channels of a residual network whose shortcuts put new, empty channels elsewhere.

K. He, X. Zhang, S. Ren, J. Sun. Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385

Where a stage becomes wider, option A of the paper fills the new channels with zeros and does not say which
ones are new. Here the c old channels come first. Y. Idelbayev's ResNets for CIFAR, whose weights are widely
used, put half of the new ones before them and half after: new channel j + left is old channel j. Both compute
the same functions, with the channels of a stage in another order,

    ours k  =  theirs order[k],   order = (left + order_before, 0 .. left-1, left+c .. out-1)              (1)

and all that reads or writes these channels is reordered alike: rows of the block's last convolution and its
BatchNorm, columns of every first convolution and of the linear layer behind the stages.
"""

from __future__ import annotations

import numpy as np

from minisparse.errors import UsageError, unknown_name
from minisparse.exchange.layout import WEIGHT, Content
from minisparse.nn.layer import Layer, LinearLayer
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.residual import Residual, SubsamplePad

END, CENTRE = "end", "centre"
PADDINGS = (END, CENTRE)
Order = tuple[Array | None, Array | None]  # of rows, of columns; None: as they are


def check_padding(network: Network, padding: str | None, same_names: bool) -> bool:
    """Whether channels must be reordered.

    UsageError where that cannot be known: for a widening network with names that are not ours.
    """
    if padding is not None and padding not in PADDINGS:
        raise unknown_name("padding", padding, PADDINGS)
    if padding is None and not same_names and any(wider(layer) for layer in network.layers.values()):
        raise UsageError(
            f"model '{network.name}' from other code: got no padding, expected '{END}' if its shortcuts put "
            f"new channels behind the old ones, '{CENTRE}' if on both sides of them (as in the ResNets for "
            "CIFAR by Y. Idelbayev)."
        )
    return padding == CENTRE


def wider(layer: Layer) -> SubsamplePad | None:
    """The shortcut of a residual block that adds channels, if it has one."""
    if isinstance(layer, Residual):
        for _, part in layer.shortcut.children():
            if isinstance(part, SubsamplePad):
                return part
    return None


def widened(order: Array, out: int) -> Array:
    """Equation (1): the order behind a shortcut to `out` channels from that before it."""
    left = (out - len(order)) // 2
    return np.concatenate([left + order, np.arange(left), np.arange(left + len(order), out)])


def orders(network: Network) -> dict[str, Order]:
    """Rows and columns of each layer, as numbers of theirs; layers that stay as they are left out."""
    found: dict[str, Order] = {}
    stream: Array | None = None
    for name, layer in network.layers.items():
        if isinstance(layer, Residual):
            inner = [(f"{name}.branch.{key}", part) for key, part in layer.branch.children()]
            before, pad = stream, wider(layer)
            if pad is not None:
                stream = widened(_entered(inner) if before is None else before, pad.channels)
            found |= _branch(inner, before, stream)
        elif stream is not None and isinstance(layer, LinearLayer):
            found[name] = (None, _flattened(stream, layer.weight.geometry[1]))
            stream = None
        elif stream is not None and layer.params():
            found[name] = (stream, None)
    return found


def _entered(inner: list[tuple[str, Layer]]) -> Array:
    """The channels that the first convolution of a branch reads, in order."""
    first = next(part for _, part in inner if isinstance(part, LinearLayer))
    return np.arange(first.weight.geometry[1])


def _flattened(stream: Array, inputs: int) -> Array:
    """Inputs of a layer that reads channels, or all pixels of one channel after the other."""
    pixels = inputs // len(stream)
    return (stream[:, None] * pixels + np.arange(pixels)).reshape(-1)


def _branch(inner: list[tuple[str, Layer]], before: Array | None, after: Array | None) -> dict[str, Order]:
    """All up to the first convolution reads the stream; the last, and the BatchNorm behind it, write it."""
    linear = [at for at, (_, part) in enumerate(inner) if isinstance(part, LinearLayer)]
    found: dict[str, Order] = {}
    for at, (key, part) in enumerate(inner):
        if part.params():
            reads, writes = at == linear[0], at >= linear[-1]
            rows = after if writes else before if at < linear[0] else None
            found[key] = (rows, before if reads else None)
    return found


def reordered(given: Content, order: Order) -> Content:
    """Theirs in our order of channels."""
    arrays = {key: _taken(value, order, key) for key, value in given.arrays.items()}
    return Content(arrays, None if given.mask is None else _taken(given.mask, order, WEIGHT))


def inverse(order: Order) -> Order:
    """The order that undoes this one."""
    rows, columns = (None if part is None else np.argsort(part) for part in order)
    return rows, columns


def _taken(value: Array, order: Order, key: str) -> Array:
    rows, columns = order
    if rows is not None:
        value = value[rows]
    if columns is not None and key == WEIGHT and value.ndim > 1:
        value = value[:, columns]
    return value
