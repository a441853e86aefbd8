"""ITOP: rare and large exchanges: weights are judged once trained, and much of the network is explored.

S. Liu, L. Yin, D. C. Mocanu, M. Pechenizkiy. Do We Actually Need Dense Over-Parameterization? In-Time
Over-Parameterization in Sparse Training. ICML 2021. arXiv:2102.02887

What counts is the share R of entries that were ever present, and that each was trained long enough to be
judged. Every `every` steps, in each layer,

    the round(p kept) smallest |w| leave,   p = cosine from 0.5 to 0.005 over the run      (1)
    as many enter with value 0: at random, or where |dL/dw| is largest                     (2)

those that just left included. An interval longer than RigL's 100 lets a weight be trained before it is
judged; a longer run makes up for the rarer exchanges (the authors: 1500 steps for random growth, 4000 for
gradient growth, at batch 128). The union of all masks is kept in the state, for R.

Departures: counts are exact in drop, growth and first mask (the authors' masks and random growth are drawn
entry by entry). An entry that leaves and re-enters at once keeps its value and momentum.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisparse.methods.base import DynamicSparse, rounded, setting
from minisparse.methods.dynamic.explored import record
from minisparse.methods.dynamic.rules import cosine, drop_smallest, grow_largest, grow_random
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_choice, check_share, check_whole
from minisparse.training.state import TrainState

GROWTH = ("gradient", "random")


@register("itop", family="dynamic", paper="arXiv:2102.02887")
@dataclass(frozen=True)
class ITOP(DynamicSparse):
    """In-time over-parameterization."""

    growth: str = setting("gradient", "where weights enter: gradient (as in RigL) or random (as in SET)")
    every: int = setting(200, "steps between exchanges")
    first: float = setting(0.5, "share of a layer's weights exchanged, at the start of the run")
    last: float = setting(0.005, "the same at the end of the run")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.growth, "growth", GROWTH)
        check_whole(self.every, "every")
        check_share(self.first, "first")
        check_share(self.last, "last")

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        record(state)

    def due(self, state: TrainState) -> bool:
        return 0 < state.step < state.horizon and state.step % self.every == 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        weight = layer.weight
        k = rounded(cosine(self.first, self.last, state.step / state.horizon), weight.kept)
        stay = weight.flat[drop_smallest(weight.values, k)]
        if self.growth == "random":
            return grow_random(stay, weight.size, k, state.rng(f"regrow {name}"))
        return grow_largest(stay, layer.gradient_blocks(), k)

    def exchange_all(self, state: TrainState) -> bool:
        changed = super().exchange_all(state)
        record(state)
        return changed
