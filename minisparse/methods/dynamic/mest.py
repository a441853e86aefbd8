"""MEST: mutate the topology at random, ever less, and judge a weight by its size and its gradient.

G. Yuan, X. Ma, W. Niu, Z. Li, Z. Kong, N. Liu, Y. Gong, Z. Zhan, C. He, Q. Jin, S. Wang, M. Qin, B. Ren,
Y. Wang, S. Liu, X. Lin. MEST: Accurate and Fast Memory-Economic Sparse Training Framework on the Edge.
NeurIPS 2021. arXiv:2110.14032

Each layer has a budget of K weights. Every `every` steps, with r the mutation rate,

    importance = |w| + lambda |dL/dw|, of present weights                                  (1)
    elastic mutation    the round(r K) least important leave, as many enter at random      (2)
    soft memory bound   the least important leave until K are left, round(r K) more enter  (3)

with value 0, those that just left included. (3) trains K (1 + r) weights for an interval before it chooses
among them; under (2) what enters has to prove itself inside the budget. No gradient of an absent weight is
needed. r falls in stages to 0, where a last exchange leaves K weights under (3) too:

    r = `mutation` up to 9/16 of the run, half of it up to 3/4, then 0                     (4)

The defaults are those of the authors' scripts: of 160 epochs they halve at 90 and stop at 120, mutate every
5, and exchange 2 % of a layer of which 10 % are kept, 1 % of one of which 5 % are: a fifth of the budget.

Departures: rates are shares of the budget, counts exact. lambda is 1, the authors' code has 0 unless told
otherwise. An entry that leaves and re-enters at once keeps its value and momentum. The paper's second half,
which leaves out training samples that are never forgotten, is not part of this method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import DynamicSparse, rounded, setting
from minisparse.methods.dynamic.rules import drop_smallest, grow_random
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_flag, check_real, check_share, check_whole
from minisparse.training.state import TrainState

BUDGET = "mest: weights each layer ends with"
HALVED, ENDED = 9 / 16, 3 / 4


def mutation_rate(step: int, horizon: int, first: float) -> float:
    """r of equation (4) after `step` of `horizon` steps."""
    if step < rounded(HALVED, horizon):
        return first
    return first / 2 if step < rounded(ENDED, horizon) else 0.0


def importance(weight: Array, grad: Array, lam: float) -> Array:
    """Equation (1) for present entries; weight, grad (kept,)."""
    return np.abs(weight) + lam * np.abs(grad)


def bounds(budget: int, size: int, rate: float, soft: bool) -> tuple[int, int]:
    """Weights of a layer between leaving and entering, and after: equations (2) and (3)."""
    moved = rounded(rate, budget)
    return (budget, min(budget + moved, size)) if soft else (budget - moved, budget)


@register("mest", family="dynamic", paper="arXiv:2110.14032")
@dataclass(frozen=True)
class MEST(DynamicSparse):
    """Memory-economic sparse training."""

    mutation: float = setting(0.2, "share of the budget that mutates each time, at the start")
    lam: float = setting(1.0, "lambda, what a gradient counts for beside its weight")
    soft: bool = setting(False, "soft memory bound: exceed the budget by the mutation until it ends")
    every: int = setting(100, "steps between mutations")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.mutation, "mutation")
        check_real(self.lam, "lam", 0)
        check_flag(self.soft, "soft")
        check_whole(self.every, "every")

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        layers = state.network.prunable()
        state.memory[BUDGET] = {name: np.array(layer.weight.kept) for name, layer in layers.items()}

    def due(self, state: TrainState) -> bool:
        end = rounded(ENDED, state.horizon)
        return 0 < state.step <= end and (state.step % self.every == 0 or state.step == end)

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        weight = layer.weight
        rate = mutation_rate(state.step, state.horizon, self.mutation)
        low, high = bounds(int(state.memory[BUDGET][name]), weight.size, rate, self.soft)
        score = importance(weight.values, weight.grads, self.lam)
        stay = weight.flat[drop_smallest(score, weight.kept - low)]
        return grow_random(stay, weight.size, high - low, state.rng(f"regrow {name}"))

    def exchange_all(self, state: TrainState) -> bool:
        # a layer filled up by (3) is dense for a while and has to come back
        layers, budget = state.network.prunable(), state.memory[BUDGET]
        sparse = {name: layer for name, layer in layers.items() if budget[name] < layer.weight.size}
        state.rewire_flat({name: self.rewired(name, layer, state) for name, layer in sparse.items()})
        return bool(sparse)
