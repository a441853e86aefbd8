"""WoodFisher: Optimal Brain Surgeon with the empirical Fisher matrix in diagonal blocks.

S. P. Singh, D. Alistarh. WoodFisher: Efficient Second-Order Approximation for Neural Network Compression.
NeurIPS 2020. arXiv:2004.14340

With g_k the gradient of one sample's own loss, over `block` consecutive weights of a layer at a time,

    F = lambda I + 1/m sum_k g_k g_k^T,     P = F^-1  (Woodbury, `block_inverse.py`)        (1)
    rho_q = w_q^2 / (2 P_qq)                                                                (2)

The weights S of lowest rho leave, by default in one ranking of the network, and what stays changes by the
sum of what each deletion alone asks for,

    u = -P z,     z_q = w_q / P_qq for q in S, else 0                                       (3)

or, with `joint`, by the set formula u = -P[:,S] (P_SS)^-1 w_S, which is the best one for S and exactly
zeroes it. WoodTaylor (`taylor`) does not assume that the gradient g is 0: the quadratic model then has its
minimum at w - P g, and (2) and (3) hold with that in place of w.

The empirical Fisher vanishes where every sample is fitted; then P = I / lambda and (2) ranks by magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.curvature.gradient import gradient
from minisparse.methods.base import Reconstructed, layer_shapes, setting
from minisparse.methods.reconstruct.block_inverse import BlockInverse, check_memory, invert_blocks
from minisparse.methods.reconstruct.deletion import saliency
from minisparse.methods.reconstruct.factors import (
    block_sizes,
    check_block,
    fisher_factors,
    live_columns,
    live_values,
    split_live,
)
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, Global
from minisparse.sparsity.count import check_flag, check_real
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.select import select
from minisparse.training.state import TrainState


def independent_update(w: Array, inverse: BlockInverse, leaving: Array) -> Array:
    """u of equation (3) for one block; w (n,), leaving (n,) bool."""
    return -inverse.times(np.where(leaving, w / inverse.diagonal, 0))


def joint_update(w: Array, inverse: BlockInverse, leaving: Array) -> Array:
    """u of the set formula for one block, whose inverse is used up."""
    at = np.flatnonzero(leaving)
    return -inverse.leave(at, w[at]) if at.size else np.zeros_like(w)


@register("woodfisher", family="reconstruct", paper="arXiv:2004.14340")
@dataclass(frozen=True)
class WoodFisher(Reconstructed):
    """Prune by the compensated rise of the loss under the empirical Fisher matrix."""

    damping: float = setting(1e-5, "lambda, absolute")
    block: str = setting("500", "weights that may compensate each other: a number, or network, layer, row")
    joint: bool = setting(False, "set formula instead of the sum of single updates")
    taylor: bool = setting(False, "WoodTaylor: take the gradient into account")
    memory: float = setting(4.0, "GB the inverse may take")
    allocation: Allocation = setting(Global(), "how the kept weights are shared among layers")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "block", check_block(self.block))
        for name in ("joint", "taylor"):
            check_flag(getattr(self, name), f"woodfisher {name}")
        for name in ("damping", "memory"):
            check_real(getattr(self, name), f"woodfisher {name}", 1e-300)

    def solve(self, state: TrainState, sparsity: float) -> dict[str, tuple[Array, Array]]:
        work = state.network.astype(np.float64)
        masks = work.masks()
        x, target = state.calibration(self.samples)
        x = x.astype(np.float64)
        sizes = block_sizes(self.block, masks)
        check_memory("woodfisher", sizes, len(x), self.memory)
        parts = fisher_factors(work, state.loss, x, target)
        inverses = invert_blocks(parts, sizes, len(x), self.damping, relative=False)
        values = np.split(live_values(work), np.cumsum(sizes)[:-1])
        if self.taylor:
            g = live_columns(gradient(work, state.loss, x, target), masks)[0]
            slopes = np.split(g, np.cumsum(sizes)[:-1])
            values = [w - p.times(d) for w, p, d in zip(values, inverses, slopes, strict=True)]
        rho = np.concatenate([saliency(w, p.diagonal) for w, p in zip(values, inverses, strict=True)])
        stay = select(
            split_live(rho, masks), layer_shapes(work), sparsity, self.allocation, Unstructured(), masks
        )
        leaving = np.concatenate([~stay[name][mask] for name, mask in masks.items()])
        update = joint_update if self.joint else independent_update
        blocks = zip(values, inverses, np.split(leaving, np.cumsum(sizes)[:-1]), strict=True)
        final = split_live(np.concatenate([w + update(w, p, gone) for w, p, gone in blocks]), masks)
        return {name: (stay[name], final[name]) for name in masks}
