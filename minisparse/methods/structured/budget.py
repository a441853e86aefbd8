"""What a network costs when some of its units are left, and the largest decision a budget still allows.

Y. He, J. Lin, Z. Liu, H. Wang, L.-J. Li, S. Han. AMC: AutoML for Model Compression and Acceleration on Mobile
Devices. ECCV 2018. arXiv:1802.03494 (algorithm 1)

Decision d keeps k_d of its n_d units. Layer l, used at p_l positions of a sample, costs

    C_l = p_l (f_l + sum_d r_ld k_d) (h_l + sum_d w_ld k_d)                                 (1)

where r_ld columns of its matrix read each unit of d and w_ld rows write it; f_l columns and h_l rows belong
to no decision. Whoever removes inputs of a layer also shortens the layer before it. When decisions are made
one after the other, each may be at most

    k_t <= max { k : sum_l C_l(k_1 .. k_t-1, k, m_t+1 .. m_D) <= budget }                   (2)

with m_d the least of each decision still to come. As k_t = m_t is always allowed if the least of all fits the
budget, no sequence of decisions ever exceeds it. All are whole numbers: nothing is rounded afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minisparse.errors import SparsityError
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_choice
from minisparse.sparsity.groups import Group

RESOURCES = ("macs", "weights")


@dataclass(frozen=True, eq=False)
class Bill:
    """Equation (1): p, f, h (L,), r and w (L, D), n = units (D,); whole numbers."""

    positions: Array
    inputs: Array
    outputs: Array
    reads: Array
    writes: Array
    units: Array

    def layers(self, kept: Array) -> Array:
        """Cost (..., L) of each layer for kept units (..., D)."""
        kept = np.asarray(kept)
        return self.positions * (self.inputs + kept @ self.reads.T) * (self.outputs + kept @ self.writes.T)

    def total(self, kept: Array) -> Array:
        """Cost (...) of all layers for kept units (..., D)."""
        return self.layers(kept).sum(axis=-1)

    @property
    def whole(self) -> int:
        """Cost if every unit stays."""
        return int(self.total(self.units))


def _uses(network: Network, resource: str) -> Array:
    check_choice(resource, "resource", RESOURCES)
    layers = network.prunable()
    return np.array(
        list(network.positions().values()) if resource == "macs" else [1] * len(layers), dtype=np.int64
    )


def bill_of_groups(network: Network, groups: Sequence[Group], resource: str) -> Bill:
    """Decision d keeps units of groups[d]; cost in MACs of a sample or in weights."""
    shape = np.array([layer.weight.shape for layer in network.prunable().values()], dtype=np.int64)
    row = {name: k for k, name in enumerate(network.prunable())}
    reads, writes = np.zeros((2, len(shape), len(groups)), dtype=np.int64)
    for d, group in enumerate(groups):
        for name, columns in group.consumers:
            reads[row[name], d] = columns.shape[1]
        for name, rows in group.producers:
            writes[row[name], d] = rows.shape[1]
    units = np.array([len(group) for group in groups], dtype=np.int64)
    return Bill(
        _uses(network, resource),
        shape[:, 1] - reads @ units,
        shape[:, 0] - writes @ units,
        reads,
        writes,
        units,
    )


def bill_of_weights(network: Network, resource: str) -> Bill:
    """Decision d keeps single weights of the d-th layer."""
    units = np.array([layer.weight.size for layer in network.prunable().values()], dtype=np.int64)
    none, one = np.zeros_like(units), np.ones_like(units)
    return Bill(_uses(network, resource), none, one, np.diag(one), np.diag(none), units)


def ceiling(bill: Bill, kept: Array, t: int, budget: int) -> int:
    """Equation (2): kept (D,) holds the decisions before t and the least of those from t on.

    SparsityError if even the least of decision t exceeds the budget.
    """
    low, high = int(kept[t]), int(bill.units[t])
    tried = kept.copy()
    if bill.total(tried) > budget:
        raise SparsityError(
            f"budget cannot be met: got {budget:,}, expected at least {int(bill.total(kept)):,}, the cost if "
            "all decisions keep their least. Lower the sparsity or the floor."
        )
    while low < high:  # the cost rises with k
        tried[t] = (low + high + 1) // 2
        low, high = (int(tried[t]), high) if bill.total(tried) <= budget else (low, int(tried[t]) - 1)
    return low


def least_counts(units: Array, floor: float) -> Array:
    """The least (D,) each decision keeps: the share `floor` of its units to the nearest, and at least one."""
    return np.maximum(1, np.rint(floor * units).astype(np.int64))


def counts_of(share: Array | float, bill: Bill, least: Array) -> Array:
    """Shares (D,) as numbers of units: to the nearest, at least `least`, at most all there are."""
    return np.clip(np.rint(share * bill.units).astype(np.int64), least, bill.units)


def uniform(bill: Bill, least: Array, budget: int) -> Array:
    """Units (D,) of the largest share, the same for all decisions, whose rounded counts fit the budget.

    What is left of the budget goes to one unit each, decision by decision in turn, until no unit fits.
    `least` where not even that fits.
    """
    if bill.whole <= budget:
        return bill.units.copy()
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        fits = bill.total(counts_of(middle, bill, least)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    kept, added = counts_of(low, bill, least), True
    while added:
        added = False
        for t in range(len(kept)):
            more = kept.copy()
            more[t] += 1
            if more[t] <= bill.units[t] and bill.total(more) <= budget:
                kept, added = more, True
    return kept
