"""Dynamic N:M: RigL's or SET's exchange in which N of every M consecutive inputs are present throughout.

M. Lasby, A. Golubeva, U. Evci, M. Nica, Y. Ioannou. Dynamic Sparse Training with Structured Sparsity.
ICLR 2024. arXiv:2305.02299 (constant fan-in as N:M with M all inputs); A. Mishra et al. Accelerating Sparse
Deep Neural Networks. 2021. arXiv:2104.08378 (2:4)

Each group of M consecutive inputs of a unit starts with N of them, at random. Every `every` steps before
T_end, in each layer of A weights, f as in RigL,

    the round(f(t) A) weights of least |w| leave, and each group takes in as many others as it lost    (1)

with value 0, those that just left included: where |dL/dw| is largest, or at random. An exchange takes the
place of the optimiser's step. Unlike SR-STE, which trains all weights and uses N of every M of them, only
present weights are ever stored.

Departures: this is RigL held to the pattern, not a method of a paper of its own. A layer whose number of
inputs M does not divide stays dense. Groups run along input channels, as in the pattern `nm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisparse.methods.base import Method, rounded, setting
from minisparse.methods.dynamic.equal_groups import GROWTH, enter_largest, enter_random, leave
from minisparse.methods.dynamic.rigl import exchange_fraction
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.sparsity.count import check_choice, check_share, check_whole
from minisparse.sparsity.pattern import NM
from minisparse.sparsity.sample import sample_rows
from minisparse.training.state import TrainState


def has_groups(weight: Weight, keep: int, of: int) -> bool:
    """Whether every group of `of` positions has `keep` entries already."""
    counts = np.bincount(weight.flat // of, minlength=weight.size // of)
    return bool((counts == keep).all())


@register("dynamic-nm", family="dynamic", paper="arXiv:2305.02299")
@dataclass(frozen=True)
class DynamicNM(Method):
    """Dynamic sparse training with N:M sparsity."""

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})

    keep: int = setting(2, "N, weights kept of every M")
    of: int = setting(4, "M, consecutive weights along the inputs")
    growth: str = setting("gradient", "where weights enter: gradient (as in RigL) or random (as in SET)")
    alpha: float = setting(0.3, "share of active weights exchanged at t = 0")
    every: int = setting(100, "steps between exchanges")
    until: float = setting(0.75, "T_end as a share of the run")

    def __post_init__(self) -> None:
        NM(self.keep, self.of)
        check_choice(self.growth, "growth", GROWTH)
        check_share(self.alpha, "alpha")
        check_whole(self.every, "every")
        check_share(self.until, "until")

    def grouped(self, state: TrainState) -> dict[str, LinearLayer]:
        """Prunable layers that M divides; none if N = M."""
        layers = state.network.prunable()
        return {n: x for n, x in layers.items() if x.weight.shape[1] % self.of == 0 and self.keep < self.of}

    def setup(self, state: TrainState) -> None:
        state.rewire_flat({
            name: sample_rows(self.keep, x.weight.size // self.of, self.of, state.rng(f"topology {name}"))
            for name, x in self.grouped(state).items()
            if not has_groups(x.weight, self.keep, self.of)
        })  # fmt: skip

    def due(self, state: TrainState) -> bool:
        """Whether topology changes now."""
        t = state.step
        return 0 < t < self.until * state.horizon and t % self.every == 0 and self.alpha > 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        """Positions after (1)."""
        f = exchange_fraction(state.step, self.until * state.horizon, self.alpha)
        weight = layer.weight
        k = rounded(f, weight.kept)
        stay, lost = leave(weight.flat, weight.values, k, weight.size // self.of, self.of)
        if self.growth == "random":
            return enter_random(stay, lost, self.of, state.rng(f"regrow {name}"))
        return enter_largest(stay, lost, self.of, layer.gradient_blocks())

    def update(self, state: TrainState) -> None:
        layers = self.grouped(state) if self.due(state) else {}
        if layers:
            state.rewire_flat({name: self.rewired(name, layer, state) for name, layer in layers.items()})
        else:
            super().update(state)
