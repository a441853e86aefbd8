"""Which channels and neurons can only be removed together, and every array a removed one has an entry in.

G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang. DepGraph: Towards Any Structural Pruning. CVPR 2023.
arXiv:2301.12900 (groups by dependence); H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf. Pruning Filters
for Efficient ConvNets. ICLR 2017. arXiv:1608.08710 (filters of residual networks follow their shortcut)

A unit is born as a row of a layer with weights. Elementwise layers and pooling pass it on, flattening makes
h*w columns of it, and a sum

    y_k = a_k + b_k     makes one unit of a's k-th and b's k-th                            (1)

so that all layers that write into a residual stream share their units. Units are the connected components
under (1). The network's inputs and outputs stay what they are: a unit tied to one of them is in no group.

Units that have equally many entries in the same arrays form one group: those of a plain layer, those of a
stream; behind a zero-padded shortcut the channels that came in and those that were added are two groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from minisparse.nn.layer import Layer, Role
from minisparse.nn.network import Network
from minisparse.nn.param import Array

Parts = tuple[tuple[str, Array], ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed, each for itself. Parts are (layer name, indices (units, entries of each)).

    name       of the first producer, with the first row if another group has that name
    units      (units,) numbers, ascending in the order data flows, different for all units of a network
    producers  layers with weights: the rows that write the unit (its biases lie at the same indices)
    norms      BatchNorms the unit passes: its channels
    consumers  layers with weights: the columns of the matrix (out, in) that read the unit
    paddings   zero-padded shortcuts the unit passes: its output channels

    A group is compared and hashed by identity, so that it can be the key of a dict.
    """

    name: str
    units: Array
    producers: Parts
    norms: Parts = ()
    consumers: Parts = ()
    paddings: Parts = ()

    def __len__(self) -> int:
        return len(self.units)


class Trace:
    """What `Layer.route` tells (a `Flow`): numbers handed out, sums (1), who has entries of which unit."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Array] = [np.zeros((2, 0), dtype=np.intp)]
        self.notes: list[tuple[Role, Layer, Array]] = []

    def new(self, count: int) -> Array:
        self.count += count
        return np.arange(self.count - count, self.count)

    def join(self, a: Array, b: Array) -> Array:
        self.sums.append(np.stack([a, b]))
        return a

    def note(self, role: Role, layer: Layer, units: Array) -> None:
        self.notes.append((role, layer, units))

    def merged(self) -> Array:
        """(count,) lowest number of the component each number belongs to."""
        a, b = np.concatenate(self.sums, axis=1)
        graph = coo_array((np.ones(a.size), (a, b)), shape=(self.count, self.count))
        component = connected_components(graph, directed=False)[1]
        return np.unique(component, return_index=True)[1][component]


def groups_of(network: Network) -> tuple[Group, ...]:
    """All groups of a network, in the order data flows."""
    trace = Trace()
    inputs = trace.new(network.input_shape[0])
    outputs = network.route(inputs, network.input_shape, trace)
    unit_of = trace.merged()
    names = {layer: name for name, layer in network.walk()}
    fixed = np.concatenate([unit_of[inputs], unit_of[outputs]])
    free = np.setdiff1d(unit_of, fixed)
    owners = [unit_of[numbers] for _, _, numbers in trace.notes]
    entries = [
        (role, names[layer], *_sorted(o)) for (role, layer, _), o in zip(trace.notes, owners, strict=True)
    ]
    found = [_group(units, entries) for units in _alike(free, owners)]
    return tuple(_named_apart(found))


def _alike(free: Array, owners: list[Array]) -> Iterator[Array]:
    """`free` unit numbers cut into those that own equally many entries of every array."""
    if free.size == 0:
        return
    counts = np.stack([np.bincount(o, minlength=free[-1] + 1)[free] for o in owners])
    _, first, kind = np.unique(counts, axis=1, return_index=True, return_inverse=True)
    for k in np.argsort(first):
        yield free[kind.reshape(-1) == k]


def _sorted(owners: Array) -> tuple[Array, Array]:
    """Entries of an array in the order of the units they belong to, and those units."""
    order = np.argsort(owners, kind="stable")
    return order, owners[order]


def _group(units: Array, entries: list[tuple[Role, str, Array, Array]]) -> Group:
    parts: dict[Role, Parts] = {"producers": (), "norms": (), "consumers": (), "paddings": ()}
    for role, name, order, owners in entries:
        begin, end = (int(np.searchsorted(owners, units[0], side=side)) for side in ("left", "right"))
        each = end - begin
        if each:
            start = np.searchsorted(owners, units)
            parts[role] += ((name, order[start[:, None] + np.arange(each)]),)
    first = (*parts["producers"], *parts["paddings"])[0][0]
    return Group(first, units, **parts)


def _named_apart(groups: list[Group]) -> Iterator[Group]:
    taken: set[str] = set()
    for group in groups:
        first = (*group.producers, *group.paddings)[0][1]
        name = f"{group.name}[{first.min()}]" if group.name in taken else group.name
        taken.add(name)
        yield Group(name, group.units, group.producers, group.norms, group.consumers, group.paddings)
