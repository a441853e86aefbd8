"""What one decision of AMC removes: input channels of a layer, or single weights of it.

Y. He, J. Lin, Z. Liu, H. Wang, L.-J. Li, S. Han. AMC: AutoML for Model Compression and Acceleration on Mobile
Devices. ECCV 2018. arXiv:1802.03494 (section 3.2)

    channel i of a group:  s_i = sum of |W_oj| over layers that read it, outputs o, columns j of i    (1)
    weight:                s_oj = |W_oj|                                                              (2)

A decision names how many units stay; those of largest score do, ties to the lower index. Where channels
leave, layers that read the others may be refitted by least squares to what they put out in the whole network,
from inputs of the whole network too. So layers do not wait for each other, and a solution can be kept for
when the same channels are asked for again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from minisparse.methods.structured.budget import Bill, bill_of_groups, bill_of_weights
from minisparse.methods.structured.channel_pruning import Moments, columns_read, refit
from minisparse.methods.structured.ranked import masks_without, remove
from minisparse.nn.conv import Conv2d
from minisparse.nn.layer import LinearLayer
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.groups import Group, groups_of
from minisparse.sparsity.select import top_k
from minisparse.training.state import TrainState

# layer name -> (mask (out, in), weight (out, in), bias (out,) or None)
Values = dict[str, tuple[Array, Array, Array | None]]


def table_of(network: Network, names: Sequence[str], cost: Array) -> Array:
    """(D, 8) of the layers of these names: number, outputs, channels, h, w, stride, kernel, cost.

    cost (L,): of all layers of the network.
    """
    probe, rows = network.copy(), []
    probe.forward(np.zeros((1, *network.input_shape), dtype=network.dtype))
    layers = probe.prunable()
    at = {name: k for k, name in enumerate(layers)}
    for t, name in enumerate(names):
        out, channels, kernel, _ = layers[name].weight.geometry
        rows.append([t, out, channels, *_extent(layers[name]), kernel, cost[at[name]]])
    return np.array(rows, dtype=np.float64).reshape(len(names), 8)


def _extent(layer: LinearLayer) -> tuple[int, int, int]:
    """Height and width of the input of the last forward pass, and the stride; 1 where there is no image."""
    if isinstance(layer, Conv2d):
        return (*layer.x.shape[1:3], layer.window.stride[0])
    return 1, 1, 1


@dataclass
class Granularity(ABC):
    """The decisions a network leaves open.

    readers: the layer each decision is about; refittable: layers whose inputs leave; moments: of those to be
    refitted, by name.
    """

    network: Network
    resource: str
    moments: Mapping[str, Moments] = field(default_factory=dict)
    bill: Bill = field(init=False)
    readers: list[str] = field(init=False)
    refittable: tuple[str, ...] = field(init=False, default=())

    @abstractmethod
    def masks(self, kept: Array) -> dict[str, Array]:
        """Masks (out, in) of all layers for kept units (D,)."""

    def values(self, kept: Array) -> Values:
        """Masks, weights and biases of all layers for kept units (D,)."""
        layers = self.network.prunable()
        return {name: self._layer(name, layers[name], mask) for name, mask in self.masks(kept).items()}

    def prune(self, state: TrainState, kept: Array) -> None:
        """Give `state.network`, of which `network` is a copy, what `values` says, its optimiser too."""
        values = self.values(kept)
        state.rewire({name: mask for name, (mask, _, _) in values.items()})
        put(state.network, values)

    def _layer(self, name: str, layer: LinearLayer, mask: Array) -> tuple[Array, Array, Array | None]:
        return mask, layer.weight.dense(), None if layer.bias is None else layer.bias.value

    @property
    def table(self) -> Array:
        """`table_of` the layer each decision is about."""
        return table_of(self.network, self.readers, self.bill.layers(self.bill.units))


@dataclass
class Weights(Granularity):
    """A decision keeps the weights of largest size (2) of a layer."""

    def __post_init__(self) -> None:
        self.bill = bill_of_weights(self.network, self.resource)
        self.readers = list(self.network.prunable())

    def masks(self, kept: Array) -> dict[str, Array]:
        layers = self.network.prunable().items()
        return {
            name: top_k(np.abs(layer.weight.dense()), min(int(k), layer.weight.kept), layer.weight.mask)
            for (name, layer), k in zip(layers, kept, strict=True)
        }


@dataclass
class Channels(Granularity):
    """A decision keeps the channels of largest score (1) of a group."""

    def __post_init__(self) -> None:
        layers = self.network.prunable()
        self.groups = [g for g in groups_of(self.network) if g.consumers]
        self.bill = bill_of_groups(self.network, self.groups, self.resource)
        self.readers = [group.consumers[0][0] for group in self.groups]
        self.scores = [
            sum(
                np.abs(layers[name].weight.dense()[:, columns]).sum(axis=(0, 2))
                for name, columns in g.consumers
            )
            for g in self.groups
        ]
        self.refittable = tuple(dict.fromkeys(name for g in self.groups for name, _ in g.consumers))
        self.known: dict[tuple[str, bytes], tuple[Array, Array | None]] = {}

    def chosen(self, kept: Array) -> list[Array]:
        """(units,) bool of each group."""
        return [top_k(score, int(k)) for score, k in zip(self.scores, kept, strict=True)]

    def masks(self, kept: Array) -> dict[str, Array]:
        return masks_without(self.network, self._keep(kept))

    def prune(self, state: TrainState, kept: Array) -> None:
        super().prune(state, kept)
        remove(state, self._keep(kept))

    def _keep(self, kept: Array) -> dict[Group, Array]:
        return dict(zip(self.groups, self.chosen(kept), strict=True))

    def _layer(self, name: str, layer: LinearLayer, mask: Array) -> tuple[Array, Array, Array | None]:
        _, weight, bias = super()._layer(name, layer, mask)
        read = columns_read(mask)
        if name not in self.moments or (read == columns_read(layer.weight.mask)).all():
            return mask, weight, bias
        key = name, read.tobytes()
        if key not in self.known:
            self.known[key] = refit(weight, bias, read, self.moments[name])
        return mask, *self.known[key]


GRANULARITIES: dict[str, type[Granularity]] = {"channels": Channels, "weights": Weights}


def put(network: Network, values: Values) -> None:
    """Impose masks, weights and biases on a network of the same layers, in place."""
    for name, layer in network.prunable().items():
        mask, weight, bias = values[name]
        layer.weight.rewire(mask)
        layer.weight.assign(weight)
        if layer.bias is not None:
            layer.bias.value[...] = bias
