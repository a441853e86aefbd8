"""SparseGPT: column by column, each pruned weight's error is passed on to the columns still to come.

E. Frantar, D. Alistarh. SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot. ICML
2023. arXiv:2301.00774

With H = A + lambda I for the layer's inputs (`layerwise.py`), lambda = damping x mean diag A, and columns
removed in a fixed order, all rows share the inverses of the trailing matrices through one triangular factor

    H^-1 = U^T U,   U upper:   [(H_jj:)^-1]_00 = U_jj^2,   first row / corner = U_j,j: / U_jj   (1)

    score   eps_rj = W_rj^2 / U_jj^2                                                        (2)
    delete  e = W_rj / U_jj,     W_r,j: <- W_r,j: - e U_j,j:      (error rises by e^2 / 2)      (3)

The mask is chosen for `block` columns at a time, by (2) with the weights as they are when the block is
reached: the lowest of the block, all rows together, or the lowest of each N:M group when it is reached.
Within a block (3) stays inside it; what lies beyond gets all of the block's errors E at once,

    W[:, i2:] <- W[:, i2:] - E U[i1:i2, i2:]                                                (4)

which changes nothing but the order of additions, and is a matrix product instead of an outer product per
column. U is found from one Cholesky factor: with J the reversal, J H J = L L^T gives U = (J L J)^-1.

Departures: counts are exact. Inputs that are always zero need no treatment of their own (the authors set
their weights to 0): by (2) they cost lambda w^2, the least there is. Derivation:
docs/derivations/sparsegpt.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from minisparse.curvature.inverse import damped_cholesky
from minisparse.kernels.columns import sweep
from minisparse.methods.base import Reconstructed, setting
from minisparse.methods.reconstruct.layerwise import Solution, groups_of, kept_per_layer, reconstruct
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, Uniform
from minisparse.sparsity.count import check_flag, check_real, check_whole
from minisparse.sparsity.pattern import NM, Pattern, Unstructured
from minisparse.sparsity.select import top_k
from minisparse.sparsity.shape import LayerShape
from minisparse.training.state import TrainState

log = logging.getLogger("minisparse.methods.sparsegpt")

# (scores (out, width) of the columns from `first` on, first) -> keep (out, width)
Choice = Callable[[Array, int], Array]


def inverse_factor(gram: Array, damping: float) -> Array:
    """U (in, in) of equation (1) for A (in, in), damping relative to its mean diagonal."""
    root, amount = damped_cholesky(gram[::-1, ::-1], damping)
    log.info("layer of %d inputs: %.3g added to the diagonal of its Gram matrix", len(gram), amount)
    # the transpose has the order of memory LAPACK wants, so that nothing is copied
    inverse, _ = lapack.dtrtri(root.T, lower=0)
    return np.ascontiguousarray(inverse.T[::-1, ::-1])


def lowest_of_block(live: Array, kept: int) -> Choice:
    """Keep `kept` entries of live (out, in), blocks of columns losing in proportion to their width."""
    columns = live.shape[1]
    drop, gone = live.size - kept, 0
    absent = np.cumsum([0, *(~live).sum(axis=0)])

    def choose(score: Array, first: int) -> Array:
        nonlocal gone
        stop = first + score.shape[1]
        wanted = round(drop * stop / columns) - gone
        most = drop - gone - (absent[-1] - absent[stop])
        here = int(min(max(wanted, absent[stop] - absent[first]), most))
        gone += here
        return top_k(score, score.size - here, among=live[:, first:stop])

    return choose


def lowest_of_groups(live: Array, pattern: NM) -> Choice:
    """Keep the best of every N:M group; called group by group."""

    def choose(score: Array, first: int) -> Array:
        width = score.shape[1]
        return pattern.eligible(score, LayerShape(len(live), width), live[:, first : first + width])

    return choose


def by_columns(weight: Array, factor: Array, choose: Choice, every: int) -> tuple[Array, Array]:
    """(mask, values) (out, in) by equations (2) and (3) as they stand: the plain loop.

    weight (out, in); choose is asked for `every` columns at a time.
    """
    w, mask = weight.copy(), np.ones(weight.shape, dtype=bool)
    for j in range(w.shape[1]):
        if j % every == 0:
            ahead = slice(j, j + every)
            mask[:, ahead] = choose(score(w[:, ahead], factor, j), j)
        e = np.where(mask[:, j], 0, w[:, j] / factor[j, j])
        w[:, j:] -= np.outer(e, factor[j, j:])
        w[~mask[:, j], j] = 0
    return mask, w


def by_blocks(weight: Array, factor: Array, choose: Choice, every: int, block: int) -> tuple[Array, Array]:
    """The same as `by_columns` with equation (4) after every `block` columns, a multiple of `every`."""
    w, mask = weight.copy(), np.ones(weight.shape, dtype=bool)
    error = np.zeros(w.shape)
    columns = w.shape[1]
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        for j in range(start, stop, every):
            ahead = slice(j, min(j + every, stop))
            mask[:, ahead] = choose(score(w[:, ahead], factor, j), j)
            sweep(w, factor, np.ascontiguousarray(mask[:, ahead]), error, j, stop)
        w[:, stop:] -= error[:, start:stop] @ factor[start:stop, stop:]
    return mask, w


def score(w: Array, factor: Array, first: int) -> Array:
    """Equation (2) for the columns w (out, width) that start at `first`."""
    return (w / np.diag(factor)[first : first + w.shape[1]]) ** 2


@register("sparsegpt", family="reconstruct", paper="arXiv:2301.00774")
@dataclass(frozen=True)
class SparseGPT(Reconstructed):
    """Prune layer by layer, columns in order, with compensation to the right."""

    damping: float = setting(0.01, "lambda as a share of the Gram matrix's mean diagonal")
    block: int = setting(128, "columns whose mask is chosen together, and between two lazy updates")
    propagate: bool = setting(True, "take inputs through the layers already pruned")
    allocation: Allocation = setting(Uniform(), "how the kept weights are shared among layers")
    pattern: Pattern = setting(Unstructured(), "single weights, or N:M groups along the inputs")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.damping, "sparsegpt damping", 0)
        check_whole(self.block, "sparsegpt block")
        check_flag(self.propagate, "sparsegpt propagate")
        groups_of(self.pattern, self.sparsity)

    def solve(self, state: TrainState, sparsity: float) -> Solution:
        groups = groups_of(self.pattern, self.sparsity)
        if groups and sparsity != self.sparsity:
            return {}

        def rule(weight: Array, gram: Array, live: Array, kept: int) -> tuple[Array, Array]:
            factor = inverse_factor(gram, self.damping)
            if groups is None:
                return by_blocks(weight, factor, lowest_of_block(live, kept), self.block, self.block)
            block = -(-self.block // groups.of) * groups.of
            return by_blocks(weight, factor, lowest_of_groups(live, groups), groups.of, block)

        kept = kept_per_layer(state.network, sparsity, self.allocation)
        return reconstruct(state, self.samples, kept, rule, self.propagate)
