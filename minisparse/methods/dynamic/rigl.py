"""RigL: drop the weights of least magnitude, grow where the loss gradient is largest.

U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen. Rigging the Lottery: Making All Tickets Winners.
ICML 2020. arXiv:1911.11134

Each layer holds A active weights throughout. Every `every` steps before T_end it exchanges

    k = round(f(t) A),   f(t) = alpha/2 (1 + cos(pi t / T_end))                            (1)

of them: the k active weights of least |w| leave; then, among all entries not active now
(those that just left included), the k of largest |dL/dw| enter with value 0.              (2)
An exchange takes the place of the optimiser's step (Algorithm 1). All gradients of (2) are computed, but only
a few rows at a time: of those gone by no more than the k largest are kept.

Departures: k is rounded half to even (the authors truncate). An entry that leaves and re-enters at once
keeps its value and momentum, as in the authors' code. Where there is nothing to exchange (alpha = 0, or no
layer is sparse) the optimiser steps, so that this is static, or dense, training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from minisparse.methods.base import DynamicSparse, rounded, setting
from minisparse.methods.dynamic.rules import cosine, drop_smallest, grow_largest
from minisparse.methods.registry import register
from minisparse.nn.largest import Blocks
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_share, check_whole
from minisparse.training.state import TrainState


def exchange_fraction(t: float, t_end: float, alpha: float) -> float:
    """Share of active weights exchanged at step t, equation (1)."""
    return cosine(alpha, 0, t / t_end)


def exchange(flat: Array, weight: Array, gradient: Blocks, k: int) -> Array:
    """Positions after k exchanges in one layer, equation (2).

    flat, weight (kept,): where the present entries are, and they; gradient: dL/dw of all, in blocks of rows.
    """
    return grow_largest(flat[drop_smallest(weight, k)], gradient, k)


@register("rigl", family="dynamic", paper="arXiv:1911.11134")
@dataclass(frozen=True)
class RigL(DynamicSparse):
    """Gradient-grown dynamic sparse training."""

    replaces_step: ClassVar[bool] = True

    alpha: float = setting(0.3, "share of active weights exchanged at t = 0")
    every: int = setting(100, "steps between exchanges")
    until: float = setting(0.75, "T_end as a share of the run")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.alpha, "alpha")
        check_whole(self.every, "every")
        check_share(self.until, "until")

    def due(self, state: TrainState) -> bool:
        t = state.step
        return 0 < t < self.until * state.horizon and t % self.every == 0 and self.alpha > 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        f = exchange_fraction(state.step, self.until * state.horizon, self.alpha)
        weight = layer.weight
        return exchange(weight.flat, weight.values, layer.gradient_blocks(), rounded(f, weight.kept))
