"""Surgery: cutting units out of a network, so that a smaller network with the same outputs is left.

H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf. Pruning Filters for Efficient ConvNets. ICLR 2017.
arXiv:1608.08710 (filters leave with the channels that read them)

Removing unit u takes every row, column, bias and BatchNorm entry of it (see `groups`) out of the arrays. With
a_u[o, p] what u adds to a layer that reads it, at output o and position p (see `reading`):

    b_o <- b_o + a_u[o]     where a_u depends neither on the input nor on p                (1)

and no output changes. That is so when nobody reads u (a_u = 0), and when u does not depend on the input: its
weights or a normalisation's scale are 0, and its bias comes through activation, pooling and flattening. Only
where a padded convolution reads a constant other than 0 do the zeros of the padding mix in, so that a_u
depends on p. Then the constants c_u of several such units are brought together in one of them, k:

    W[o, j_k] <- W[o, j_k] + sum_u (c_u / c_k) W[o, j_u]      for every tap               (2)

which changes no output either, and all of them but k leave.

Everything here is about evaluation mode: in training mode a BatchNorm makes what it likes of a constant.
Reparametrised, factored and compressed weights become masked ones where something is cut out of them. An N:M
mask stays the mask it was, but where columns leave from within its groups it is N:M no more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from minisparse.errors import UsageError
from minisparse.nn.network import Network
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import MaskedWeight
from minisparse.sparsity.groups import Group, groups_of
from minisparse.sparsity.reading import Reading, readings
from minisparse.sparsity.shape import Mask

Readings = Mapping[str, Reading]


def removable(network: Network, groups: tuple[Group, ...]) -> dict[Group, Mask]:
    """Units (units,) that can leave, one or all of them, without changing any output, by (1)."""
    read = readings(network)
    return {group: np.array([_leaves(group, u, read) for u in range(len(group))]) for group in groups}


def _leaves(group: Group, u: int, read: Readings) -> bool:
    return all(read[name].addition(columns[u]) is not None for name, columns in group.consumers)


def shrink(network: Network, keep: Mapping[Group, Mask] | None = None) -> Network:
    """A new, smaller network without the units (units,) for which `keep` says False.

    keep: some of `groups_of(network)`, the others stay whole; None is `remove_dead`. Where what a removed
    unit adds to a layer is constant, the layer's bias takes it over by (1) (a layer without bias gets one if
    that is not 0); where it is not, the layer does without it, as if its columns were masked. Masks of what
    stays are kept. UsageError for groups of another network, and unless every group keeps a unit.
    """
    if keep is None:
        return remove_dead(network)
    _check(network, keep)
    small = network.copy()
    _fold(small, keep)
    layers = dict(small.walk())
    inputs, outputs = _gone(keep)
    nothing = np.zeros(0, dtype=np.intp)
    for name in inputs.keys() | outputs.keys():
        layers[name].cut(inputs.get(name, nothing), outputs.get(name, nothing))
    return Network(small.layers, network.input_shape, network.name)


def remove_dead(network: Network) -> Network:
    """A new network of equal outputs (evaluation mode) without the units that can be spared, (1) and (2).

    Of each group one unit stays, also if none is needed; inputs and outputs stay all.
    """
    small = network.copy()
    while True:
        groups = groups_of(small)
        keep = {group: _all_but(free) for group, free in removable(small, groups).items()}
        if _whole(keep):
            keep = _merge(small, groups)
        if _whole(keep):
            return small
        small = shrink(small, keep)


def _whole(keep: Mapping[Group, Mask]) -> bool:
    return all(kept.all() for kept in keep.values())


def _all_but(free: Mask) -> Mask:
    """Units to keep: those that are not free, or the first if all are."""
    keep = ~free
    keep[0] |= not keep.any()
    return keep


def _check(network: Network, keep: Mapping[Group, Mask]) -> None:
    known = {group.name: group for group in groups_of(network)}
    for group, kept in keep.items():
        twin = known.get(group.name)
        if twin is None or not np.array_equal(twin.units, group.units):
            raise UsageError(
                f"group '{group.name}' does not belong to network '{network.name}': got {len(group)} units, "
                "expected one of groups_of(network). Find the groups of the network that is cut."
            )
        if kept.dtype != bool or kept.shape != (len(group),) or not kept.any():
            raise UsageError(
                f"group '{group.name}' cannot be cut: got {kept.dtype} {kept.shape} with "
                f"{np.count_nonzero(kept)} units to keep, expected bool ({len(group)},) with at least 1."
            )


def _fold(small: Network, keep: Mapping[Group, Mask]) -> None:
    """Equation (1) for every removed unit, where it holds."""
    read = readings(small)
    shift: dict[str, list[Array]] = defaultdict(list)
    for group, kept in keep.items():
        for name, columns in group.consumers:
            adds = [read[name].addition(columns[u]) for u in np.flatnonzero(~kept)]
            shift[name] += [a for a in adds if a is not None and a.any()]
    layers = small.prunable()
    for name, parts in shift.items():
        if parts:
            layer = layers[name]
            bias = layer.bias or Param(np.zeros(layer.weight.shape[0], dtype=small.dtype), decay=False)
            bias.value[...] += sum(parts)
            layer.bias = bias


def _gone(keep: Mapping[Group, Mask]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Indices of inputs and of outputs that leave, by layer name."""
    inputs: dict[str, Array] = {}
    outputs: dict[str, Array] = {}
    for group, kept in keep.items():
        written = (*group.producers, *group.norms, *group.paddings)
        for table, parts in ((inputs, group.consumers), (outputs, written)):
            for name, index in parts:
                before = table.get(name, np.zeros(0, dtype=np.intp))
                table[name] = np.concatenate([before, index[~kept].reshape(-1)])
    return inputs, outputs


def _merge(network: Network, groups: tuple[Group, ...]) -> dict[Group, Mask]:
    """Equation (2) in place: each group's constant units into as few of them as will do; which stay."""
    read = readings(network)
    keep = {}
    for group in groups:
        keep[group] = np.ones(len(group), dtype=bool)
        carriers: list[int] = []
        for u in range(len(group)):
            if not all(read[name].constant(columns[u]) for name, columns in group.consumers):
                continue
            fitting = ((k, _shares(group, u, k, read)) for k in carriers)
            k, shares = next(((k, s) for k, s in fitting if s is not None), (u, None))
            if shares is None:
                carriers.append(u)
                continue
            keep[group][u] = False
            _move(network, group, u, k, shares)
    return keep


def _shares(group: Group, u: int, k: int, read: Readings) -> dict[str, complex] | None:
    """c_u / c_k of (2) by layer, where (1) does not do; None if unit k cannot stand in for unit u."""
    shares = {}
    for name, columns in group.consumers:
        if read[name].addition(columns[u]) is None:
            share = read[name].ratio(columns[u], columns[k])
            if share is None:
                return None
            shares[name] = share
    return shares


def _move(network: Network, group: Group, u: int, k: int, shares: Mapping[str, complex]) -> None:
    layers = network.prunable()
    for name, columns in group.consumers:
        if name in shares:
            old = layers[name].weight
            dense, mask = old.dense().copy(), old.mask
            dense[:, columns[k]] += shares[name] * dense[:, columns[u]]
            mask[:, columns[k]] |= mask[:, columns[u]]
            dense[:, columns[u]], mask[:, columns[u]] = 0, False
            layers[name].weight = MaskedWeight(dense, old.geometry, mask)
