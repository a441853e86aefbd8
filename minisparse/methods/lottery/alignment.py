"""Alignment: the order of hidden units in which a mask found on one network fits another one.

M. Adnan, R. Jain, E. Sharma, R. G. Krishnan, Y. Ioannou. Sparse Training from Random Initialization: Aligning
Lottery Ticket Masks using Weight Symmetry. ICML 2025. arXiv:2505.05143
S. K. Ainsworth, J. Hayase, S. Srinivasa. Git Re-Basin: Merging Models modulo Permutation Symmetries. ICLR
2023. arXiv:2209.04836

Exchanging hidden units changes no output, so a mask that fits network A fits B only in the order in which B
has its units. With a permutation P_l of the outputs of layer l (P_0 and P_L the identity)

    W_l -> P_l W_l P_{l-1}^T,   b_l -> P_l b_l,   m_l -> P_l m_l P_{l-1}^T                   (1)

also for scale, shift and statistics of BatchNorm; in a convolution P_{l-1} moves channels, all taps alike.
Layers that write into one residual stream share one permutation. Both networks are trained and dense, and

    weights       max sum_l <W_l^B, P_l W_l^A P_{l-1}^T> + <b_l^B, P_l b_l^A>                (2)
    activations   P_l = argmax <P, corr(Z_l^B, Z_l^A)>                                       (3)

where Z_l are the values that the next layers read, corr their correlations over samples. (3) is one linear
assignment per l. In (2) each P_l given the others is one; they are solved in turn, an answer is taken if it
raises (2), until none does.

A permutation is an array `source`: place i of B's order is taken by unit source[i] of A.

Departures: where a layer reads and writes the same stream, (2) is quadratic in its permutation, and the
assignment is of its linear part only; (2) still never falls. The authors of the first paper add 1e-4 to the
standard deviations' product, which favours units of large values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.random import Generator
from scipy.optimize import linear_sum_assignment

from minisparse.errors import ShapeError
from minisparse.nn.layer import Layer, LinearLayer
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm
from minisparse.nn.param import Array
from minisparse.sparsity.groups import Group, groups_of

Permutations = dict[str, Array]
GAIN = 1e-12


def assignment(similarity: Array) -> Array:
    """source (units,) that maximises sum_i similarity[i, source[i]]; similarity (units, units)."""
    return linear_sum_assignment(similarity, maximize=True)[1]


def correlations(a: Array, b: Array) -> Array:
    """(units of a, units of b) from values (units, samples); a constant unit has correlation 0."""
    a, b = (z - z.mean(axis=1, keepdims=True) for z in (a.astype(np.float64), b.astype(np.float64)))
    norms = np.outer(*(np.sqrt((z**2).mean(axis=1)) for z in (a, b)))
    return a @ b.T / a.shape[1] / np.where(norms == 0, 1, norms)


def identity(network: Network) -> Permutations:
    """The permutation of every group of a network (see `sparsity.groups`) that changes nothing."""
    return {group.name: np.arange(len(group)) for group in groups_of(network)}


def moves(
    network: Network, groups: Sequence[Group], permutations: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """(rows, columns): for each layer by name the index from which each entry is taken.

    groups: of this network; one that `permutations` does not name stays as it is.
    """
    rows: dict[str, Array] = {}
    columns: dict[str, Array] = {}
    for name, layer in network.prunable().items():
        rows[name], columns[name] = (np.arange(size) for size in layer.weight.shape)
    for name, norm in network.walk():
        if isinstance(norm, BatchNorm):
            rows[name] = np.arange(len(norm.gamma.value))
    for group in groups:
        source = permutations.get(group.name, np.arange(len(group)))
        for name, index in (*group.producers, *group.norms):
            rows[name][index] = index[source]
        for name, index in group.consumers:
            columns[name][index] = index[source]
    return rows, columns


def permuted_masks(
    network: Network, masks: Mapping[str, Array], permutations: Mapping[str, Array]
) -> dict[str, Array]:
    """Masks (out, in) by layer in the new order, (1); `network` says which units belong together."""
    rows, columns = moves(network, groups_of(network), permutations)
    return {name: mask[rows[name]][:, columns[name]] for name, mask in masks.items()}


def permuted(network: Network, permutations: Mapping[str, Array]) -> Network:
    """A copy with its hidden units, and masks, in the new order, (1); its outputs are the same."""
    other = network.copy()
    rearrange(other, groups_of(network), permutations)
    return other


def rearrange(network: Network, groups: Sequence[Group], permutations: Mapping[str, Array]) -> None:
    """`permuted` in place."""
    rows, columns = moves(network, groups, permutations)
    for name, layer in network.walk():
        if isinstance(layer, LinearLayer):
            matrix, mask = (
                a[rows[name]][:, columns[name]] for a in (layer.weight.dense(), layer.weight.mask)
            )
            layer.weight.rewire(np.ones_like(mask))
            layer.weight.assign(matrix)
            layer.weight.rewire(mask)
        if name in rows:
            for array in _per_unit(layer):
                array[...] = array[rows[name]]


def _per_unit(layer: Layer) -> list[Array]:
    """Arrays of one number per output unit: biases, BatchNorm's parameters and statistics."""
    own = [p.value for p in layer.params().values() if p.value.ndim == 1]
    return own + list(layer.buffers().values())


def similarity(a: Network, b: Network, group: Group) -> Array:
    """(units, units) of one group: what placing unit j of A at i adds to (2), the rest as it is."""
    layers, own = [n.prunable() for n in (a, b)], [dict(n.walk()) for n in (a, b)]
    total = np.zeros((len(group), len(group)))
    for name, index in group.producers:
        x, y = (found[name].weight.dense()[index[:, 0]] for found in layers)
        total += y @ x.T
    for name, index in group.consumers:
        x, y = (np.moveaxis(found[name].weight.dense()[:, index], 1, 0) for found in layers)
        total += y.reshape(len(group), -1) @ x.reshape(len(group), -1).T
    for name, index in (*group.producers, *group.norms):
        vectors = ([p.value for p in found[name].params().values() if p.value.ndim == 1] for found in own)
        for x, y in zip(*vectors, strict=True):
            total += np.outer(y[index[:, 0]], x[index[:, 0]])
    return total


def agreement(a: Network, b: Network) -> float:
    """(2) of two networks as they are: inner product of all their parameters."""
    pairs = zip(a.params().values(), b.params().values(), strict=True)
    return float(sum(np.vdot(p.value.astype(np.float64), q.value.astype(np.float64)) for p, q in pairs))


def match_weights(a: Network, b: Network, rng: Generator, sweeps: int = 100) -> Permutations:
    """The permutations that bring A's units into B's order by (2), groups in random order each sweep.

    ShapeError if the networks are not of one shape.
    """
    groups = _common_groups(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    found, best = identity(a), agreement(a, b)
    for _ in range(sweeps):
        before = best
        for k in rng.permutation(len(groups)):
            name = groups[k].name
            source = assignment(similarity(a, b, groups[k]))
            rearrange(a, groups, {name: source})
            value = agreement(a, b)
            if value > best + GAIN * max(1.0, abs(best)):
                found[name], best = found[name][source], value
            else:
                rearrange(a, groups, {name: np.argsort(source)})
        if best == before:
            break
    return found


def match_activations(a: Network, b: Network, x: Array) -> Permutations:
    """The permutations that bring A's units into B's order by (3) on the samples x (n, ...)."""
    groups = _common_groups(a, b)
    values = [_read(network, groups, x) for network in (a, b)]
    return {g.name: assignment(correlations(values[1][g.name], values[0][g.name])) for g in groups}


def _read(network: Network, groups: tuple[Group, ...], x: Array) -> dict[str, Array]:
    """Values (units, samples and positions) of each group, as the layers read them that follow."""
    network = network.copy()
    network.forward(x.astype(network.dtype))
    layers, found = network.prunable(), {}
    for group in groups:
        parts = [layers[name].rows[:, :, index] for name, index in group.consumers]
        found[group.name] = np.concatenate(
            [np.moveaxis(part, 2, 0).reshape(len(group), -1) for part in parts], axis=1
        )
    return found


def _common_groups(a: Network, b: Network) -> tuple[Group, ...]:
    shapes = [{name: layer.weight.geometry for name, layer in n.prunable().items()} for n in (a, b)]
    if shapes[0] != shapes[1] or a.params().keys() != b.params().keys():
        raise ShapeError(
            f"networks cannot be aligned: got '{a.name}' and '{b.name}' with layers of other shapes, "
            "expected two of one architecture."
        )
    return groups_of(a)
