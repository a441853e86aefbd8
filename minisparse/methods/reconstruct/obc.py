"""OBC (ExactOBS): Optimal Brain Surgeon for a layer, exactly, one inverse per row.

E. Frantar, S. P. Singh, D. Alistarh. Optimal Brain Compression: A Framework for Accurate Post-Training
Quantization and Pruning. NeurIPS 2022. arXiv:2208.11580

The layer's error (`layerwise.py`, equation (1)) is a quadratic function of each row of W with the Hessian
A = X^T X / r. With P = (A + lambda I)^-1 at first, each row deletes, one at a time, its weight of lowest

    L_i = w_i^2 / (2 P_ii),     w <- w - (w_i / P_ii) P e_i,     P <- P - P e_i e_i^T P / P_ii  (1)

Rows are then put together: all L of all rows in one ascending order, of which the first k are taken; a
row that has t of these loses the first t of its own order. Its values are those of the set formula,

    w_S -> 0,     u = -P[:,S] (P_SS)^-1 w_S                                                 (2)

which is where (1) has brought it after t deletions. For N:M a group that has lost its quota loses no more.

Departures: the lowest L is sought among single weights only (no blocks). Cost: out x in^3 / 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.curvature.inverse import cholesky_inverse, damped_cholesky
from minisparse.kernels.columns import greedy_rows
from minisparse.methods.base import Reconstructed, setting
from minisparse.methods.reconstruct.layerwise import Solution, damped, groups_of, kept_per_layer, reconstruct
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, Uniform
from minisparse.sparsity.count import check_flag, check_real
from minisparse.sparsity.pattern import NM, Pattern, Unstructured
from minisparse.training.state import TrainState


def quotas(columns: int, groups: NM | None) -> tuple[int, Array]:
    """(width, how many entries each run of `width` columns may lose); a remainder of N:M loses none."""
    if groups is None:
        return columns, np.array([columns])
    quota = np.full(-(-columns // groups.of), groups.of - groups.keep)
    quota[columns // groups.of :] = 0
    return groups.of, quota


def row_orders(weight: Array, inverse: Array, live: Array, width: int, quota: Array) -> tuple[Array, Array]:
    """(order, rise) (out, in) of equation (1) row by row: columns as they go, then -1; what each costs."""
    order = np.full(weight.shape, -1, dtype=np.int64)
    rise = np.full(weight.shape, np.inf)
    greedy_rows(weight, inverse, live, width, quota, order, rise)
    return order, rise


def merged(rise: Array, drop: int) -> Array:
    """How many deletions each row makes (out,) when the `drop` lowest of all are taken; rise (out, in).

    Costs of a row need not ascend, so that it is their number that counts. Of equal costs later rows go.
    """
    flat = rise.ravel()[::-1]
    lowest = flat.size - 1 - np.argsort(flat, kind="stable")[:drop]
    return np.bincount(lowest // rise.shape[1], minlength=len(rise))


def compensated(weight: Array, hessian: Array, mask: Array) -> Array:
    """Equation (2): the best values (out, in) for a mask (out, in); hessian (in, in) positive definite.

    Solved for what stays, w_R + H_RR^-1 H_RS w_S, which is the same.
    """
    values = np.where(mask, weight, 0)
    for row, old, stay in zip(values, weight, mask, strict=True):
        if stay.any() and not stay.all():
            pull = hessian[np.ix_(stay, ~stay)] @ old[~stay]
            row[stay] += np.linalg.solve(hessian[np.ix_(stay, stay)], pull)
    return values


def obc(
    weight: Array, hessian: Array, live: Array, kept: int, groups: NM | None = None
) -> tuple[Array, Array]:
    """(mask, values) (out, in) of one layer; weight (out, in) is 0 where not live, hessian (in, in).

    With N:M groups the pattern fixes the count and `kept` is not read.
    """
    inverse = cholesky_inverse(damped_cholesky(hessian)[0])
    width, quota = quotas(len(hessian), groups)
    order, rise = row_orders(weight, inverse, live, width, quota)
    possible = int(np.count_nonzero(order >= 0))
    losses = merged(rise, possible if groups else int(live.sum()) - kept)
    mask = live.copy()
    for row, columns, count in zip(mask, order, losses, strict=True):
        row[columns[:count]] = False
    return mask, compensated(weight, hessian, mask)


@register("obc", family="reconstruct", paper="arXiv:2208.11580")
@dataclass(frozen=True)
class OBC(Reconstructed):
    """Exact greedy deletion in each layer, with exact compensation."""

    damping: float = setting(1e-3, "lambda as a share of the Gram matrix's mean diagonal")
    propagate: bool = setting(False, "take inputs through the layers already pruned")
    allocation: Allocation = setting(Uniform(), "how the kept weights are shared among layers")
    pattern: Pattern = setting(Unstructured(), "single weights, or N:M groups along the inputs")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.damping, "obc damping", 0)
        check_flag(self.propagate, "obc propagate")
        groups_of(self.pattern, self.sparsity)

    def solve(self, state: TrainState, sparsity: float) -> Solution:
        groups = groups_of(self.pattern, self.sparsity)
        if groups and sparsity != self.sparsity:
            return {}

        def rule(weight: Array, gram: Array, live: Array, kept: int) -> tuple[Array, Array]:
            return obc(weight, damped(gram, self.damping), live, kept, groups)

        kept = kept_per_layer(state.network, sparsity, self.allocation)
        return reconstruct(state, self.samples, kept, rule, self.propagate)
