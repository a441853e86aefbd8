"""DCTpS: every layer is a fixed cosine transform plus a sparse matrix, which is all that is trained.

I. Price, J. Tanner. Dense for the Price of Sparse: Improved Performance of Sparsely Initialized Networks via
a Subspace Offset. ICML 2021. arXiv:2102.07655

    W = alpha M + S,      M the orthonormal DCT cut to (out, in), alpha = 1 and S = 0 at first        (1)

S has a random support of the size that the sparsity says, and alpha is trained with it. M costs no storage
and passes every signal on, so that the network can be trained with one weight in a thousand, where a sparse
network has units without inputs. The support is fixed, or moves in the manner of RigL: every `every` steps
until T_end, in each layer whose S has A entries,

    k = round(f(t) A),   f(t) = drop/2 (1 + cos(pi t / T_end))                             (2)

of least |S| leave, and as many enter with value 0, where |dL/dS| is largest (rigl) or drawn by lot (set).
An exchange takes the place of the optimiser's step. The transform is in `weights/dct.py`.

Without the offset, W = S starts from the network's own values: with the same seed this is the control,
`random` or `rigl`, bit for bit. Sparsity counts S; the one number alpha of each layer comes on top.

Departures: counts are shared among layers by ERK, as in the other dynamic methods; the paper also gives
every layer the same number (allocation `equal-per-layer`). alpha moves at a tenth of the learning rate: its
gradient is a sum over the whole matrix, and at the full rate, the authors' choice, SGD with momentum and a
rate of 0.1 drives it through 0, where the layer dies, on networks without normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisparse.methods.base import DynamicSparse, rounded, setting, swap
from minisparse.methods.dynamic.rigl import exchange_fraction
from minisparse.methods.dynamic.rules import drop_smallest, grow_largest, grow_random
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.sparsity.count import check_choice, check_flag, check_real, check_share, check_whole
from minisparse.training.state import TrainState
from minisparse.weights.csr import CSRWeight
from minisparse.weights.dct import DCTWeight
from minisparse.weights.pattern import CSRPattern

# (positions that stay, how many enter, layer's name, layer, state) -> positions
Grow = Callable[[Array, int, str, LinearLayer, TrainState], Array]


def by_gradient(stay: Array, k: int, name: str, layer: LinearLayer, state: TrainState) -> Array:
    return grow_largest(stay, layer.gradient_blocks(), k)


def by_lot(stay: Array, k: int, name: str, layer: LinearLayer, state: TrainState) -> Array:
    return grow_random(stay, layer.weight.size, k, state.rng(f"regrow {name}"))


SUPPORTS: dict[str, Grow | None] = {"static": None, "set": by_lot, "rigl": by_gradient}


def offset_by_cosines(weight: Weight, rate: float) -> DCTWeight:
    """Equation (1), S stored as its entries, which are where `weight` has any; rate: that of alpha."""
    nothing = np.zeros(weight.kept, dtype=weight.values.dtype)
    sparse = CSRWeight(CSRPattern.from_flat(weight.flat, weight.shape), nothing, weight.geometry)
    return DCTWeight(sparse, rate=rate)


def trained_part(weight: Weight) -> Weight:
    """S where there is an offset, else the weight itself."""
    return weight.sparse if isinstance(weight, DCTWeight) else weight


@register("dctps", family="subspace", paper="arXiv:2102.07655")
@dataclass(frozen=True)
class DCTpS(DynamicSparse):
    """DCT plus sparse."""

    replaces_step: ClassVar[bool] = True

    sparsity: float = setting(0.99, "share of the entries of all S that are zero")
    support: str = setting("static", "support of S: static, set (moves by lot) or rigl (by gradient)")
    offset: bool = setting(True, "add the cosine transform; without it S is a plain sparse weight")
    rate: float = setting(0.1, "learning rate of alpha as a multiple of that of S; 0 holds it at 1")
    drop: float = setting(0.3, "share of S exchanged at t = 0, if the support moves")
    every: int = setting(100, "steps between exchanges")
    until: float = setting(0.75, "T_end as a share of the run")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.support, "support", tuple(SUPPORTS))
        check_flag(self.offset, "offset")
        check_real(self.rate, "rate", 0)
        check_share(self.drop, "drop")
        check_whole(self.every, "every")
        check_share(self.until, "until")

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        if self.offset:
            swap(state, lambda name, weight: offset_by_cosines(weight, self.rate))

    def due(self, state: TrainState) -> bool:
        t, moves = state.step, SUPPORTS[self.support] is not None and self.drop > 0
        return moves and 0 < t < self.until * state.horizon and t % self.every == 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        grow, s = SUPPORTS[self.support], trained_part(layer.weight)
        if grow is None:
            return s.flat
        k = rounded(exchange_fraction(state.step, self.until * state.horizon, self.drop), s.kept)
        return grow(s.flat[drop_smallest(s.values, k)], k, name, layer, state)
