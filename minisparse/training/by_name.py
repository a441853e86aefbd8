"""Networks that their model's name rebuilds: what a checkpoint of formats 1 and 2 says of them.

Such a network is its model (`nn.models`), masks or storage formats of its layers, and numbers:

    <layer>.weight, <layer>.mask     matrix, and its mask packed to bits
    <layer>.weight and others        of a layer in a storage format the entries alone, see `training.entries`
    <layer>.bias, ...                all other parameters and buffers
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from minisparse.errors import CheckpointError, UsageError
from minisparse.nn.init import Geometry
from minisparse.nn.layer import Shape
from minisparse.nn.models import PLANS, Builder
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.training.born import nothing
from minisparse.training.entries import from_arrays, to_arrays
from minisparse.weights.stored import StoredWeight

MOST = 1 << 62  # weights of a layer


def stored_of(network: Network) -> dict[str, StoredWeight]:
    """The weights in storage formats, by layer."""
    weights = {name: layer.weight for name, layer in network.prunable().items()}
    return {name: weight for name, weight in weights.items() if isinstance(weight, StoredWeight)}


def arrays_of(network: Network) -> dict[str, Array]:
    """Every array of a network by name: weights as entries or matrices with packed masks, and all others."""
    arrays = {f"{key}": p.value for key, p in network.params().items()}
    stored = stored_of(network)
    for name, layer in network.prunable().items():
        for key in layer.weight.params():
            del arrays[f"{name}.{key}"]
        if name in stored:
            arrays |= {f"{name}.{part}": a for part, a in to_arrays(stored[name]).items()}
        else:
            arrays[f"{name}.weight"] = layer.weight.dense()
            arrays[f"{name}.mask"] = np.packbits(layer.weight.mask, axis=None)
    arrays |= network.buffers()
    return {key: np.asarray(arrays[key], order="C") for key in sorted(arrays)}


def skeleton(
    model: str,
    input_shape: Shape,
    outputs: int,
    dtype: np.dtype,
    storage: Mapping[str, Mapping[str, Any]],
    arrays: Mapping[str, Array],
) -> Network:
    """The model of this name: matrices are 0, layers in storage formats have their entries.

    storage: a layer's name -> its format and settings, masked layers being left out. A model that needs more
    numbers than the file has is refused before it is allocated, so that a short file cannot ask for a large
    amount of memory.
    """
    budget = sum(a.size for a in arrays.values())

    def spend(numbers: int) -> None:
        nonlocal budget
        budget -= numbers
        if budget < 0:
            raise CheckpointError(f"does not fit: got too few numbers, expected model '{model}'.")

    def empty(geometry: Geometry) -> Weight:
        spend(geometry[0])
        if prod(geometry) >= MOST:
            raise CheckpointError(f"does not fit: got a layer of {prod(geometry)} weights, expected fewer.")
        return nothing(geometry)

    kind, _, text = model.partition(":")
    if kind not in PLANS:
        raise CheckpointError(f"does not fit: got model '{model}', expected one of {', '.join(PLANS)}.")
    try:
        layers = PLANS[kind][1](Builder(empty), input_shape, outputs, text)
        network = Network(layers, input_shape, model)
    except UsageError as error:
        raise CheckpointError(f"does not fit: {error}") from None
    network = network.astype(dtype)
    known = network.prunable()
    odd = sorted(set(storage) - set(known))
    if odd:
        raise CheckpointError(f"does not fit: got storage of layer '{odd[0]}', expected layers of the model.")
    for name, layer in known.items():
        weight = layer.weight
        if name in storage:
            layer.weight = from_arrays(name, storage[name], weight.geometry, arrays, dtype)
        else:
            spend(weight.size - weight.shape[0])
            layer.weight = MaskedWeight(np.zeros(weight.shape, dtype=dtype), weight.geometry)
    return network


def fill(network: Network, arrays: Mapping[str, Array]) -> None:
    """Put the arrays into a skeleton of the same names, shapes and types."""
    wanted = arrays_of(network)
    if set(wanted) != set(arrays):
        odd = sorted(set(wanted) ^ set(arrays))
        rule = f"those of model '{network.name}'"
        raise CheckpointError(f"does not fit: got other arrays, first '{odd[0]}', expected {rule}.")
    for key, array in arrays.items():
        have, want = (array.shape, str(array.dtype)), (wanted[key].shape, str(wanted[key].dtype))
        if have != want:
            raise CheckpointError(
                f"does not fit: got array '{key}' {have[1]} of shape {have[0]}, expected {want[1]} of "
                f"shape {want[0]}."
            )
    stored = stored_of(network)
    for key, p in network.params().items():
        if key.rpartition(".")[0] not in stored or not key.endswith(".weight"):
            p.value[...] = arrays[key]
    for key, buffer in network.buffers().items():
        buffer[...] = arrays[key]
    for name, layer in network.prunable().items():
        if name in stored:
            continue
        bits = np.unpackbits(arrays[f"{name}.mask"], count=layer.weight.size)
        mask = bits.reshape(layer.weight.shape).astype(bool)
        if np.count_nonzero(arrays[f"{name}.weight"][~mask]):
            raise CheckpointError(f"does not fit: got weights of '{name}' where its mask has none.")
        layer.weight.rewire(mask)
