"""A network's arrays as PyTorch lays them out, module by module.

    Linear      weight (out, in)                 the same
    Conv2d      weight K (out, channels, kh, kw) W[o, (ky kw + kx) channels + c] = K[o, c, ky, kx]      (1)
    BatchNorm   weight, bias, running_mean, running_var: the same names and meaning
    Flatten     both flatten (channel, row, column), the column fastest: the first Linear behind it has the
                same columns, wherever the channels lie in memory

A weight whose kernel is 1x1 is compared without these two axes, so that a classifier that is such a
convolution there is a Linear layer here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.nn.conv import Conv2d
from minisparse.nn.layer import Layer, LinearLayer, Shape
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight

WEIGHT, BIAS = "weight", "bias"


def to_kernel(matrix: Array, geometry: tuple[int, int, int, int]) -> Array:
    """(out, kh*kw*channels) -> (out, channels, kh, kw), equation (1)."""
    out, channels, kh, kw = geometry
    return matrix.reshape(out, kh, kw, channels).transpose(0, 3, 1, 2)


def to_matrix(kernel: Array) -> Array:
    """(out, channels, kh, kw) -> (out, kh*kw*channels), equation (1)."""
    return kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)


def trimmed(shape: Shape) -> Shape:
    """A weight's shape, without the axes of a 1x1 kernel."""
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape


def modules(network: Network) -> dict[str, Layer]:
    """Layers that have parameters or buffers of their own, in the order data flows."""
    return {name: layer for name, layer in network.walk() if layer.params() or layer.buffers()}


def tensors_of(layer: Layer) -> dict[str, Array]:
    """Copies of a layer's arrays in PyTorch's layout."""
    if not isinstance(layer, LinearLayer):
        held = {key: p.value for key, p in layer.params().items()} | layer.buffers()
        return {key: value.copy() for key, value in held.items()}
    found = {WEIGHT: laid(layer, layer.weight.dense())}
    if layer.bias is not None:
        found[BIAS] = layer.bias.value.copy()
    return found


def laid(layer: LinearLayer, matrix: Array) -> Array:
    """A copy of a matrix of the weight's shape, values or mask, in PyTorch's layout."""
    if isinstance(layer, Conv2d):
        matrix = to_kernel(matrix, layer.weight.geometry)
    return matrix.copy(order="C")


def shapes_of(layer: Layer) -> dict[str, Shape]:
    """Shapes of `tensors_of`, without forming them."""
    if not isinstance(layer, LinearLayer):
        held = {key: p.value for key, p in layer.params().items()} | layer.buffers()
        return {key: value.shape for key, value in held.items()}
    geometry = layer.weight.geometry
    found: dict[str, Shape] = {WEIGHT: trimmed(geometry)}
    if layer.bias is not None:
        found[BIAS] = layer.bias.value.shape
    return found


@dataclass(frozen=True)
class Content:
    """What a module of a state_dict says: arrays by name in PyTorch's layout, and the weight's mask."""

    arrays: dict[str, Array]
    mask: Array | None = None


def assign(layer: Layer, given: Content, dtype: np.dtype) -> None:
    """Put arrays of the right shapes into a layer, in this type; a weight becomes a MaskedWeight."""
    arrays = {key: value.astype(dtype) for key, value in given.arrays.items()}
    if isinstance(layer, LinearLayer):
        weight, mask = _flat(arrays.pop(WEIGHT)), None if given.mask is None else _flat(given.mask)
        layer.weight = MaskedWeight(weight, layer.weight.geometry, mask)
    params, buffers = layer.params(), layer.buffers()
    for key, value in arrays.items():
        target = params[key].value if key in params else buffers[key]
        target[...] = value


def _flat(array: Array) -> Array:
    return np.ascontiguousarray(to_matrix(array) if array.ndim == 4 else array)
