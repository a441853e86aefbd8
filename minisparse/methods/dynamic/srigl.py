"""SRigL: RigL with the same number of inputs at every unit, where a unit that matters too little is ablated.

M. Lasby, A. Golubeva, U. Evci, M. Nica, Y. Ioannou. Dynamic Sparse Training with Structured Sparsity.
ICLR 2024. arXiv:2305.02299

A layer of n units with F inputs each may hold A weights. It starts with floor(A / n) random inputs at every
unit. An exchange takes K = round(f(t) kept) weights, f as in RigL:

    c_i = salient entries of unit i: among the kept - K largest |w|, or the K largest |dL/dw| (1)
    unit i is ablated if c_i < max(1, floor(gamma floor(A / n)))                           (2)
    k = min(F, floor(A / active units)), the new fan-in                                    (3)
    each active unit keeps of its weights those among the layer's kept - K largest, at most the k largest,
    and fills up to k with its other entries of largest |dL/dw|, those new with value 0    (4)

The limit of (2) is lowered where it would leave too few units to place A weights, at most F each. gamma = 0
ablates none, a gamma >= 1 is a number of entries. Fan-ins are equal at all times; the pattern costs up to one
weight per active unit, A - k active < active. With fewer weights than units, A units have one input each.

An ablated unit is silent: its bias, and the scale and shift of a normalisation that follows, are held at 0.
What the next layer reads from it is 0, and so is the gradient there: such inputs are not grown. Inputs
that were 0 in the whole batch count as weights of magnitude 0 in (1) and (4), so that they leave first.

Departures: A follows from the layer's sparsity, not from its mask (the authors' K and k use one each).
Ablated weights do not count among the kept - K of (4), and a surplus leaves by magnitude; in the authors'
code the first lets arbitrary entries in, the second removes arbitrary ones. Silence makes ablation final
under ReLU; the authors' biases go on, and units may return. The last layer is never ablated. An exchange
takes the place of the step, as in RigL. The authors use gamma = 0.3 for convolutional networks, 0.95 for
vision transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from minisparse.errors import MethodError
from minisparse.methods.base import DynamicSparse, layer_shapes, rounded, setting
from minisparse.methods.dynamic.rigl import exchange_fraction
from minisparse.methods.dynamic.silence import hidden, silence
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_real, check_share, check_whole
from minisparse.sparsity.measure import dead_units
from minisparse.sparsity.select import top_k
from minisparse.training.state import TrainState

BUDGET = "srigl: weights each layer may hold"


def constant_fan_in(shape: tuple[int, int], budget: int, rng: Generator) -> Array:
    """Mask (out, in) with floor(budget / out) random inputs at every unit, or 1 at `budget` of them."""
    out, fan = shape
    draws = rng.random(shape)
    units = top_k(rng.random(out), min(out, budget))
    return fill(np.zeros(shape, dtype=bool), draws, draws, units, min(fan, budget // max(1, units.sum())))


def salient(weight: Array, grad: Array, mask: Array, k: int) -> Array:
    """c (out,) of equation (1) for K = k; weight, grad, mask (out, in)."""
    kept = int(np.count_nonzero(mask))
    large = top_k(np.abs(weight), kept - k, among=mask) | top_k(np.abs(grad), k)
    return np.count_nonzero(large, axis=1)


def survivors(counts: Array, gamma: float, budget: int, fan: int) -> Array:
    """Units (out,) that stay active, equation (2); gamma = 0 ablates none."""
    units = len(counts)
    limit = int(gamma) if gamma >= 1 else max(1, int(gamma * (budget // units))) if gamma > 0 else 0
    enough = np.sort(counts)[::-1][min(budget // fan, units - 1)]
    active = counts >= min(limit, enough)
    return top_k(counts, min(budget, int(np.count_nonzero(active))), among=active)


def fill(keep: Array, weight: Array, grad: Array, active: Array, k: int) -> Array:
    """Mask of (4): in each active row the k first entries, kept ones by |weight|, then others by |grad|."""
    score = np.where(keep, np.abs(weight), np.abs(grad))
    order = np.lexsort((-score, ~keep), axis=1)[:, :k]
    mask = np.zeros(keep.shape, dtype=bool)
    np.put_along_axis(mask, order, active[:, None], axis=1)
    return mask


def exchange(weight: Array, grad: Array, mask: Array, k: int, budget: int, gamma: float) -> Array:
    """Mask after K = k weights were up for exchange, equations (1) to (4); all arrays (out, in)."""
    active = survivors(salient(weight, grad, mask, k), gamma, budget, mask.shape[1])
    present = mask & active[:, None]
    stay = min(int(np.count_nonzero(mask)) - k, int(np.count_nonzero(present)))
    keep = top_k(np.abs(weight), stay, among=present)
    fan_in = min(mask.shape[1], budget // max(1, int(np.count_nonzero(active))))
    return fill(keep, weight, grad, active, fan_in)


def silence_ablated(state: TrainState) -> None:
    """Hold at 0 what units without inputs emit, but those of the last layer."""
    silence(state, {name: dead_units(layer.weight.mask)[1] for name, layer in hidden(state).items()})


@register("srigl", family="dynamic", paper="arXiv:2305.02299")
@dataclass(frozen=True)
class SRigL(DynamicSparse):
    """Gradient-grown dynamic sparse training with constant fan-in and neuron ablation."""

    replaces_step: ClassVar[bool] = True

    alpha: float = setting(0.3, "share of active weights exchanged at t = 0")
    every: int = setting(100, "steps between exchanges")
    until: float = setting(0.75, "T_end as a share of the run")
    gamma: float = setting(0.3, "salient share of its fan-in below which a unit is ablated; 0 ablates none")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.alpha, "alpha")
        check_whole(self.every, "every")
        check_share(self.until, "until")
        check_real(self.gamma, "gamma", 0)

    def setup(self, state: TrainState) -> None:
        shapes = layer_shapes(state.network)
        budgets = self.allocation.counts(shapes, self.sparsity)
        if budgets is None:
            raise MethodError(
                f"allocation of srigl: got {self.allocation}, expected one that gives every layer its count. "
                "Use --allocation erk."
            )
        state.memory[BUDGET] = {name: np.array(count) for name, count in budgets.items()}
        masks = {
            name: constant_fan_in(shape.matrix, budgets[name], state.rng(f"topology {name}"))
            for name, shape in shapes.items()
        }
        state.rewire(masks)
        silence_ablated(state)

    def due(self, state: TrainState) -> bool:
        t = state.step
        return 0 < t < self.until * state.horizon and t % self.every == 0 and self.alpha > 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        f = exchange_fraction(state.step, self.until * state.horizon, self.alpha)
        weight, rows = layer.weight, layer.rows
        idle = ~rows.reshape(-1, rows.shape[-1]).any(axis=0)
        gamma = self.gamma if name in hidden(state) else 0.0
        return exchange(
            np.where(idle, 0, weight.dense()), layer.dense_grad(), weight.mask,
            rounded(f, weight.kept), int(state.memory[BUDGET][name]), gamma,
        )  # fmt: skip

    def after_update(self, state: TrainState) -> None:
        silence_ablated(state)
