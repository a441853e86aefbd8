"""Optimal Brain Surgeon: delete the weight whose loss the others can best make up for, and adjust them.

B. Hassibi, D. G. Stork. Second Order Derivatives for Network Pruning: Optimal Brain Surgeon. NIPS 1992.
B. Hassibi, D. G. Stork, G. Wolff. Optimal Brain Surgeon: Extensions and Performance Comparisons. NIPS
1993 (losses other than the squared error)

Around a minimum the loss rises by u^T H u / 2 when the weights change by u. With P = H^-1, the smallest
rise under the constraint w_q + u_q = 0, and the u that attains it, are

    L_q = w_q^2 / (2 P_qq),     u = -(w_q / P_qq) P e_q                                     (1)

and for a set S at once

    L_S = w_S^T (P_SS)^-1 w_S / 2,     u = -P[:,S] (P_SS)^-1 w_S                            (2)

Before the next deletion P becomes the inverse for the weights that are left,

    P <- P - P e_q e_q^T P / P_qq                                                           (3)

and deleting one after the other by (1) and (3) ends where (2) does. H is the damped generalised
Gauss-Newton matrix of `samples` training samples,

    H = alpha I + 1/n sum_n J_n^T H_n J_n,     alpha = damping x mean diagonal              (4)

inverted exactly, for all weights of the network together, from its factors (`block_inverse.py`); the
greedy order is that of `deletion.py`, one weight at a time among the lowest. H is taken from the data
anew `refreshes` times, at densities in geometric progression.

Departures: the paper takes H anew after each deletion (per_solve=1 and many refreshes come to that).
Biases take no part. Derivation: docs/derivations/obs.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import Reconstructed, layer_shapes, setting
from minisparse.methods.reconstruct.block_inverse import check_memory, invert_blocks
from minisparse.methods.reconstruct.deletion import prune
from minisparse.methods.reconstruct.factors import (
    block_sizes,
    check_block,
    ggn_factors,
    live_values,
    split_live,
)
from minisparse.methods.registry import register
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, Global
from minisparse.sparsity.count import check_real, check_whole, kept_count
from minisparse.training.state import TrainState


def compensation(w: Array, p: Array, at: Array) -> Array:
    """u of equation (2) for the indices `at`, one index being equation (1); w (n,), p = P (n, n)."""
    return -p[:, at] @ np.linalg.solve(p[np.ix_(at, at)], w[at])


def rise(w: Array, p: Array, at: Array) -> float:
    """L_S of equation (2), one index being equation (1)."""
    return float(w[at] @ np.linalg.solve(p[np.ix_(at, at)], w[at])) / 2


@register("obs", family="reconstruct", paper="Hassibi & Stork, NIPS 1992")
@dataclass(frozen=True)
class OBS(Reconstructed):
    """Delete by smallest compensated rise of the loss, over the whole network."""

    samples: int = setting(128, "training samples of the Hessian; each gives one factor per output")
    damping: float = setting(1e-3, "alpha as a share of the Hessian's mean diagonal")
    refreshes: int = setting(8, "how often on the way the Hessian is taken from the data")
    per_solve: int = setting(64, "deletions between two updates of all scores; 1 is the paper's")
    block: str = setting("network", "weights that may compensate each other: network, layer, row or a number")
    memory: float = setting(4.0, "GB the inverse may take")
    allocation: Allocation = setting(Global(), "how the kept weights are shared among layers")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "block", check_block(self.block))
        for name in ("refreshes", "per_solve"):
            check_whole(getattr(self, name), f"obs {name}")
        for name in ("damping", "memory"):
            check_real(getattr(self, name), f"obs {name}", 1e-300)

    def solve(self, state: TrainState, sparsity: float) -> dict[str, tuple[Array, Array]]:
        work = state.network.astype(np.float64)
        shapes, masks = layer_shapes(work), work.masks()
        caps = {name: int(mask.sum()) for name, mask in masks.items()}
        kept = self.allocation.counts(shapes, sparsity, caps)
        room = np.array([caps[name] - (kept[name] if kept else 0) for name in caps])
        live, total = sum(caps.values()), sum(shape.size for shape in shapes.values())
        for level in self._levels(live, sum(kept.values()) if kept else kept_count(total, sparsity)):
            if level < live:
                room = self._delete(work, state, live - level, room)
                live = level
        return {name: (x.weight.mask, x.weight.dense()) for name, x in work.prunable().items()}

    def _levels(self, live: int, kept: int) -> list[int]:
        """Weights left after each refresh, in geometric progression."""
        shares = np.arange(1, self.refreshes) / self.refreshes
        between = live * (kept / live) ** shares if live else 0 * shares
        return [max(kept, int(n)) for n in np.rint(between)] + [kept]

    def _delete(self, work: Network, state: TrainState, count: int, room: Array) -> Array:
        """Delete `count` weights of `work` with one Hessian; returns how many may still leave each layer."""
        masks = work.masks()
        sizes = block_sizes(self.block, masks)
        x, target = state.calibration(self.samples)
        factors = len(x) * work.outputs
        check_memory("obs", sizes, factors, self.memory)
        parts = ggn_factors(work, state.loss, x.astype(np.float64), target)
        inverses = invert_blocks(parts, sizes, factors, self.damping, relative=True)
        group = np.repeat(np.arange(len(masks)), [int(mask.sum()) for mask in masks.values()])
        alive, w = prune(live_values(work), inverses, group, room, count, self.per_solve)
        present, values = split_live(alive, masks), split_live(w, masks)
        for name, layer in work.prunable().items():
            layer.weight.rewire(present[name])
            layer.weight.assign(values[name])
        return room - np.bincount(group[~alive], minlength=len(room))
