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

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from minisparse.errors import MethodError
from minisparse.kernels.merge import union
from minisparse.methods.base import DynamicSparse, layer_shapes, rounded, setting
from minisparse.methods.dynamic.rigl import exchange_fraction
from minisparse.methods.dynamic.rules import drop_smallest
from minisparse.methods.dynamic.silence import hidden, silence, unused
from minisparse.methods.registry import register
from minisparse.nn.largest import Blocks, largest, largest_by_row
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.sparsity.count import check_real, check_share, check_whole
from minisparse.sparsity.sample import sample_distinct, sample_rows
from minisparse.sparsity.select import top_k
from minisparse.training.state import TrainState

BUDGET = "srigl: weights each layer may hold"


def first_fan_in(shape: tuple[int, int], budget: int) -> tuple[int, int]:
    """(units with inputs, inputs of each) at the start: all and floor(budget / out), or `budget` and 1."""
    units = min(shape[0], budget)
    return units, min(shape[1], budget // max(1, units))


def constant_fan_in(shape: tuple[int, int], budget: int, rng: Generator) -> Array:
    """Flat positions of random inputs, as many at every unit as `first_fan_in` says."""
    units, inputs = first_fan_in(shape, budget)
    active = sample_distinct(units, shape[0], rng)
    row, column = np.divmod(sample_rows(inputs, units, shape[1], rng), shape[1])
    return active[row] * shape[1] + column


def has_constant_fan_in(weight: Weight, budget: int) -> bool:
    """Whether this is a start as good as any `constant_fan_in` draws."""
    units, inputs = first_fan_in(weight.shape, budget)
    if weight.kept != units * inputs:
        return False
    fans = np.bincount(weight.flat // weight.shape[1], minlength=1)
    return set(fans[fans > 0]) <= {inputs}


def salient(flat: Array, weight: Array, shape: tuple[int, int], gradient: Blocks, k: int) -> Array:
    """c (out,) of equation (1) for K = k; flat, weight (kept,), gradient of all entries in blocks of rows."""
    large = flat[drop_smallest(weight, k)]
    steep = largest(gradient, k, excluded=flat[:0])
    return np.bincount(np.union1d(large, steep) // shape[1], minlength=shape[0])


def survivors(counts: Array, gamma: float, budget: int, fan: int) -> Array:
    """Units (out,) that stay active, equation (2); gamma = 0 ablates none."""
    units = len(counts)
    limit = int(gamma) if gamma >= 1 else max(1, int(gamma * (budget // units))) if gamma > 0 else 0
    enough = np.sort(counts)[::-1][min(budget // fan, units - 1)]
    active = counts >= min(limit, enough)
    return top_k(counts, min(budget, int(np.count_nonzero(active))), among=active)


def largest_of_rows(flat: Array, weight: Array, columns: int, k: int) -> Array:
    """Positions of the k largest |weight| of each row, all where it has fewer; flat, weight (kept,)."""
    row = flat // columns
    order = np.lexsort((-np.abs(weight), row))  # row by row, the largest first
    place = np.arange(flat.size) - np.searchsorted(row, row)  # rows are ascending: how far into its own
    return np.sort(flat[order[place < k]])


def fill(keep: Array, weight: Array, gradient: Blocks, active: Array, columns: int, k: int) -> Array:
    """Positions of (4): k in each active row, kept ones by |weight|, then others by |gradient|.

    keep, weight (kept,): entries that may stay, all in active rows; active (out,) bool.
    """
    stay = largest_of_rows(keep, weight, columns, k)
    missing = np.where(active, k - np.bincount(stay // columns, minlength=active.size), 0)
    return union(stay, largest_by_row(gradient, missing, excluded=stay))


def exchange(
    flat: Array, weight: Array, shape: tuple[int, int], gradient: Callable[[], Blocks],
    k: int, budget: int, gamma: float,
) -> Array:  # fmt: skip
    """Positions after K = k weights were up for exchange, equations (1) to (4).

    flat, weight (kept,): where present entries are, and they; gradient(): dL/dw of all, in blocks of rows.
    """
    out, columns = shape
    active = survivors(salient(flat, weight, shape, gradient(), k), gamma, budget, columns)
    present = active[flat // columns]
    stay = min(flat.size - k, int(np.count_nonzero(present)))
    keep = top_k(np.abs(weight), stay, among=present)
    fan_in = min(columns, budget // max(1, int(np.count_nonzero(active))))
    return fill(flat[keep], weight[keep], gradient(), active, columns, fan_in)


def silence_ablated(state: TrainState) -> None:
    """Hold at 0 what units without inputs emit, but those of the last layer."""
    silence(state, {name: unused(layer.weight) for name, layer in hidden(state).items()})


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
        state.rewire_flat({
            name: constant_fan_in(layer.weight.shape, budgets[name], state.rng(f"topology {name}"))
            for name, layer in state.network.prunable().items()
            if not has_constant_fan_in(layer.weight, budgets[name])
        })  # fmt: skip
        silence_ablated(state)

    def due(self, state: TrainState) -> bool:
        t = state.step
        return 0 < t < self.until * state.horizon and t % self.every == 0 and self.alpha > 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        f = exchange_fraction(state.step, self.until * state.horizon, self.alpha)
        weight, flat, rows = layer.weight, layer.weight.flat, layer.rows
        idle = np.logical_not(np.any(rows.reshape(-1, rows.shape[-1]), axis=0))
        seen = np.where(idle[flat % weight.shape[1]], 0, weight.values)
        gamma = self.gamma if name in hidden(state) else 0.0
        return exchange(
            flat, seen, weight.shape, layer.gradient_blocks,
            rounded(f, weight.kept), int(state.memory[BUDGET][name]), gamma,
        )  # fmt: skip

    def after_update(self, state: TrainState) -> None:
        silence_ablated(state)
