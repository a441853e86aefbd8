"""from_torch, load_into, to_torch: a PyTorch state_dict as a network, and the way back.

A state_dict is a flat dict, 'module.tensor' -> array. Understood, besides weights and statistics:

    weight_orig, weight_mask   torch.nn.utils.prune: the weight is their product, absent where the mask is 0
    num_batches_tracked        ignored when read; 0 when written
    mask, geometry             of `minisparse export`: the weight is a matrix (out, in), see `cli.export`
    bias of a convolution in front of a BatchNorm that has none here: BatchNorm takes the mean away, so that
                               running_mean - bias is the same function                                  (1)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from minisparse.errors import DataFormatError
from minisparse.exchange.files import read
from minisparse.exchange.layout import (
    BIAS,
    WEIGHT,
    Content,
    assign,
    laid,
    modules,
    shapes_of,
    tensors_of,
    to_kernel,
    trimmed,
)
from minisparse.exchange.limits import NUMBERS, check_name
from minisparse.exchange.matching import STATISTICS, match, plain
from minisparse.exchange.shortcut import check_padding, inverse, orders, reordered
from minisparse.nn.layer import Layer, LinearLayer
from minisparse.nn.models import Task, build
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm
from minisparse.nn.param import Array

COUNTER = "num_batches_tracked"
ORIGINAL, MASK = "_orig", "_mask"
OWN_MASK, OWN_GEOMETRY = "mask", "geometry"
VARIANCE = "running_var"
Source = str | os.PathLike[str] | Mapping[str, Any]
Modules = dict[str, dict[str, Array]]


def from_torch(
    source: Source,
    model: str,
    data: Task,
    *,
    names: Mapping[str, str] | None = None,
    padding: str | None = None,
    absent_zeros: bool = False,
) -> Network:
    """The network `models.build(model, data)` with the arrays of a state_dict.

    source: a .safetensors or .npz file, or a mapping to arrays. The network is float64 if a weight is, else
    float32. The other arguments and all errors are those of `load_into` and `models.build`.
    """
    tensors = _arrays(source)
    network = build(model, data)
    if any(a.dtype == np.float64 for a in tensors.values()):
        network = network.astype(np.float64)
    load_into(network, tensors, names=names, padding=padding, absent_zeros=absent_zeros)
    return network


def load_into(
    network: Network,
    source: Source,
    *,
    names: Mapping[str, str] | None = None,
    padding: str | None = None,
    absent_zeros: bool = False,
) -> dict[str, str]:
    """Put a state_dict into a network, in place; returns our layer -> their module.

    names         pairs of that kind, where names and shapes do not tell (see `exchange.matching`)
    padding       where the source's residual shortcuts put new channels: 'end' or 'centre'; must be said
                  for a residual network with other names than ours (see `exchange.shortcut`)
    absent_zeros  whether weights that are exactly 0 are absent (pruned) where there is no mask

    DataFormatError, naming tensor, shape and what was expected, if something is missing, left over, of
    another shape, ambiguous or not finite; the network is then as it was.
    """
    layers = modules(network)
    found = {name: _understood(name, tensors) for name, tensors in gathered(_arrays(source)).items()}
    shapes = {name: {k: trimmed(a.shape) for k, a in c.arrays.items()} for name, c in found.items()}
    pairs = match({name: shapes_of(layer) for name, layer in layers.items()}, shapes, names)
    given = {name: found[theirs] for name, theirs in pairs.items()}
    _absorb(layers, given)
    for name, layer in layers.items():
        _check(name, layer, pairs[name], given[name], network.dtype)
    same = all(plain(name) == plain(theirs) for name, theirs in pairs.items())
    moved = orders(network) if check_padding(network, padding, same) else {}
    for name, layer in layers.items():
        content = reordered(given[name], moved[name]) if name in moved else given[name]
        assign(layer, _pruned(content) if absent_zeros else content, network.dtype)
    return pairs


def to_torch(
    network: Network,
    *,
    masks: bool = False,
    like: Source | None = None,
    names: Mapping[str, str] | None = None,
    padding: str | None = None,
) -> dict[str, Array]:
    """The network's state_dict in PyTorch's layout, as copies; absent weights are 0.

    masks  weights as weight_orig and weight_mask, for modules on which torch.nn.utils.prune was called
    like   a state_dict of the module it is for: names are taken from there, else they are ours, such as
           'fc1.weight' and 'block1_1.conv1.weight'. names and padding are then as in `load_into`, and
           so are the errors.
    """
    layers = modules(network)
    pairs = {name: plain(name) for name in layers}
    theirs: Modules = {}
    if like is not None:
        theirs = gathered(_arrays(like))
        found = {name: _understood(name, tensors).arrays for name, tensors in theirs.items()}
        shapes = {name: {k: trimmed(a.shape) for k, a in arrays.items()} for name, arrays in found.items()}
        pairs = match({name: shapes_of(layer) for name, layer in layers.items()}, shapes, names)
    moved = orders(network) if check_padding(network, padding, like is None) else {}
    state: dict[str, Array] = {}
    for name, layer in layers.items():
        content = Content(tensors_of(layer), _mask(layer) if masks else None)
        if name in moved:
            content = reordered(content, inverse(moved[name]))
        for key, value in _written(layer, content, theirs.get(pairs[name], {})).items():
            state[f"{pairs[name]}.{key}".lstrip(".")] = value
    return state


def gathered(tensors: Mapping[str, Array]) -> Modules:
    """Tensors by module: 'a.b.weight' -> 'a.b' and 'weight'."""
    found: Modules = {}
    for key, value in tensors.items():
        module, _, leaf = key.rpartition(".")
        if leaf != COUNTER:
            found.setdefault(module, {})[leaf] = value
    return found


def _arrays(source: Source) -> dict[str, Array]:
    """The arrays of a file or mapping, of plain numbers."""
    if not isinstance(source, Mapping):
        return read(source)
    found = {}
    for key, value in source.items():
        check_name(str(key), "mapping")
        try:
            array = np.asarray(value)
            known = array.dtype.str[1:] in NUMBERS
        except (TypeError, ValueError, RuntimeError):  # a tensor of a type or in a place NumPy cannot reach
            known = False
        if not known:
            raise DataFormatError(
                f"tensor '{key}': got {type(value).__name__}, expected an array of numbers. "
                "From PyTorch: {k: v.float().cpu().numpy() for k, v in model.state_dict().items()}"
            )
        found[str(key)] = array
    return found


def _understood(module: str, tensors: Mapping[str, Array]) -> Content:
    """Arrays of one module without masks and geometry."""
    arrays = dict(tensors)
    mask = arrays.pop(OWN_MASK, None)
    for leaf in (WEIGHT, BIAS):
        if leaf + ORIGINAL in arrays and leaf + MASK in arrays:
            value, present = arrays.pop(leaf + ORIGINAL), arrays.pop(leaf + MASK)
            kept = _boolean(f"{module}.{leaf}{MASK}", present, value.shape)
            arrays[leaf] = np.where(kept, value, value.dtype.type(0))
            mask = kept if leaf == WEIGHT else mask
    weight = arrays.get(WEIGHT)
    if mask is not None and weight is not None:
        mask = _boolean(f"{module}.{OWN_MASK}", mask, weight.shape)
        arrays[WEIGHT] = weight = np.where(mask, weight, weight.dtype.type(0))
    geometry = arrays.pop(OWN_GEOMETRY, None)
    if geometry is not None and weight is not None:
        shape = _geometry(module, geometry, weight.shape)
        arrays[WEIGHT] = _kernel(weight, shape)
        mask = None if mask is None else _kernel(mask, shape)
    elif weight is not None and trimmed(weight.shape) != weight.shape:
        arrays[WEIGHT] = weight.reshape(weight.shape[:2])
        mask = None if mask is None else mask.reshape(weight.shape[:2])
    return Content(arrays, mask)


def _boolean(name: str, mask: Array, shape: tuple[int, ...]) -> Array:
    if mask.shape != shape or not ((mask == 0) | (mask == 1)).all():
        raise DataFormatError(
            f"tensor '{name}' is no mask: got {mask.dtype} of shape {mask.shape}, expected zeros and ones of "
            f"shape {shape}."
        )
    return mask.astype(bool)


def _geometry(module: str, geometry: Array, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    sizes = [int(n) for n in geometry.reshape(-1)] if geometry.dtype.kind in "iu" else []
    if len(sizes) != 4 or min(sizes) < 1 or (sizes[0], prod(sizes[1:])) != shape:
        raise DataFormatError(
            f"tensor '{module}.{OWN_GEOMETRY}': got {geometry.reshape(-1)[:5].tolist()}, expected (out, "
            f"channels, kh, kw) of a weight of shape {shape}."
        )
    return sizes[0], sizes[1], sizes[2], sizes[3]


def _kernel(matrix: Array, geometry: tuple[int, int, int, int]) -> Array:
    return matrix if geometry[2:] == (1, 1) else to_kernel(matrix, geometry)


def _absorb(layers: Mapping[str, Layer], given: dict[str, Content]) -> None:
    """Equation (1), in the contents given."""
    for (name, layer), (after, norm) in pairwise(layers.items()):
        arrays = given[name].arrays
        spare = isinstance(layer, LinearLayer) and layer.bias is None and BIAS in arrays
        statistics = given[after].arrays.get(STATISTICS)
        if not spare or not isinstance(norm, BatchNorm) or statistics is None:
            continue
        if arrays[BIAS].shape == statistics.shape:
            rest = {key: value for key, value in arrays.items() if key != BIAS}
            given[name] = Content(rest, given[name].mask)
            moved = {STATISTICS: statistics - arrays[BIAS]}
            given[after] = Content(given[after].arrays | moved, given[after].mask)


def _check(name: str, layer: Layer, module: str, content: Content, dtype: np.dtype) -> None:
    """DataFormatError unless the arrays are those of the layer, of its shapes, and finite in its type."""
    wanted = shapes_of(layer)
    for key in [*wanted, *content.arrays]:
        array = content.arrays.get(key)
        got = "none" if array is None else f"shape {array.shape}"
        want = f"shape {wanted[key]}" if key in wanted else "none"
        title = f"tensor '{module}.{key}' for layer '{name}'"
        if array is None or array.shape != wanted.get(key):
            raise DataFormatError(f"{title} does not fit: got {got}, expected {want}.")
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(array.astype(dtype))
        if bad.any():
            raise DataFormatError(
                f"{title} is not finite: got {array[bad][0]} ({bad.sum():,} such), expected {dtype} numbers."
            )
        if key == VARIANCE and array.min(initial=0) < 0:
            raise DataFormatError(f"{title}: got {array.min()}, expected variances >= 0.")


def _pruned(content: Content) -> Content:
    """The same with zeros as absent weights, if it has weights of a linear layer and no mask."""
    if content.mask is not None or STATISTICS in content.arrays:
        return content
    return Content(content.arrays, content.arrays[WEIGHT] != 0)


def _mask(layer: Layer) -> Array | None:
    return laid(layer, layer.weight.mask) if isinstance(layer, LinearLayer) else None


def _written(layer: Layer, content: Content, target: Mapping[str, Array]) -> dict[str, Array]:
    """One module's entries of a state_dict; a bias that only the target has is 0."""
    found = dict(content.arrays)
    if BIAS in target and BIAS not in found:
        found[BIAS] = np.zeros(target[BIAS].shape, dtype=found[WEIGHT].dtype)
    if WEIGHT in target and isinstance(layer, LinearLayer):
        found[WEIGHT] = found[WEIGHT].reshape(target[WEIGHT].shape)
    if content.mask is not None:
        weight = found.pop(WEIGHT)
        found |= {
            WEIGHT + ORIGINAL: weight,
            WEIGHT + MASK: content.mask.reshape(weight.shape).astype(weight.dtype),
        }
    if isinstance(layer, BatchNorm):
        found[COUNTER] = np.zeros((), dtype=np.int64)
    return found
