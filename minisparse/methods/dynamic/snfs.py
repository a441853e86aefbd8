"""SNFS: momentum of the dense gradient decides which layers grow, and where.

T. Dettmers, L. Zettlemoyer. Sparse Networks from Scratch: Faster Training without Losing Performance. 2019.
arXiv:1907.04840

    M <- mu M + (1 - mu) dL/dW   at every step, for absent entries too                     (1)

After each epoch but the last, in each of L layers with q_l the mean |M| over its present entries,

    the round(p kept_l) smallest |w| leave,   p = cosine from 0.5 to 0.005 over the run    (2)
    G_l = sum of all that left, times q_l / sum q, enter where |M| is largest              (3)

with value 0, those that just left included. A layer of sparsity below 0.2 that is about to grow
(q_l / sum q > 1/L) loses no more than the share of its entries that is empty. The number of weights of the
network is constant, that of a layer is not. All decisions are the same for any multiple of M.

M costs a dense gradient at every step, and a dense matrix for every layer: by its definition, however the
weights are stored, this is the one dynamic method beside Top-KAST that is not sparse in memory. M is never
reset: an entry that enters is judged next by what
it gathered while absent. The optimiser's slots of an entry that enters are empty, as everywhere here.

Departures: M is kept beside the optimiser, so that any optimiser can be used; the authors read the
optimiser's own buffer, which an entry that enters then inherits. G_l is apportioned exactly, and what a full
layer cannot take is shared in proportion; the authors round up, share overflow equally, and steer the total
back to its target by a correction. p kept_l is rounded half to even, where they round up. An entry that
leaves and re-enters at once keeps its value. All prunable layers take part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import DynamicSparse, rounded, setting
from minisparse.methods.dynamic.rules import cosine, drop_smallest, grow_largest, share_out
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_share
from minisparse.training.state import TrainState

MOMENTUM = "snfs: momentum of the dense gradient"
NEARLY_DENSE = 0.2


def mean_momentum(momentum: Array, flat: Array) -> float:
    """q_l: mean |M| over present entries, 0 if there is none; momentum (out, in), flat (kept,) positions."""
    present = np.abs(momentum.reshape(-1)[flat])
    return float(present.mean()) if present.size else 0.0


def dropped(kept: int, size: int, share: float, p: float) -> int:
    """How many leave a layer by (2); `share` is q_l L / sum q, above 1 for a layer about to grow."""
    sparsity = 1 - kept / size
    return rounded(min(sparsity, p) if sparsity < NEARLY_DENSE and share > 1 else p, kept)


def exchange(
    flats: Mapping[str, Array], weights: Mapping[str, Array], momentum: Mapping[str, Array], p: float
) -> dict[str, Array]:
    """New positions in all layers, equations (2) and (3); flats, weights (kept,), momentum (out, in)."""
    worth = {name: mean_momentum(momentum[name], flat) for name, flat in flats.items()}
    mean = sum(worth.values()) / len(worth) or 1.0
    stay = {}
    for name, flat in flats.items():
        gone = dropped(flat.size, momentum[name].size, worth[name] / mean, p)
        stay[name] = flat[drop_smallest(weights[name], gone)]
    room = {name: momentum[name].size - flat.size for name, flat in stay.items()}
    left = sum(flat.size - stay[name].size for name, flat in flats.items())
    quota = share_out(left, worth, room)
    return {name: grow_largest(flat, [momentum[name]], quota[name]) for name, flat in stay.items()}


@register("snfs", family="dynamic", paper="arXiv:1907.04840")
@dataclass(frozen=True)
class SNFS(DynamicSparse):
    """Sparse momentum."""

    momentum: float = setting(0.9, "mu, weight of the past in the momentum that steers growth")
    first: float = setting(0.5, "share of a layer's weights that leaves, at the start of the run")
    last: float = setting(0.005, "the same at the end of the run")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("momentum", "first", "last"):
            check_share(getattr(self, name), name)

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        layers = state.network.prunable()
        state.memory[MOMENTUM] = {
            name: np.zeros(x.weight.shape, x.weight.values.dtype) for name, x in layers.items()
        }

    def update(self, state: TrainState) -> None:
        for name, layer in state.network.prunable().items():
            m = state.memory[MOMENTUM][name]
            m *= self.momentum
            m += (1 - self.momentum) * layer.dense_grad()
        super().update(state)

    def due(self, state: TrainState) -> bool:
        return 0 < state.step < state.horizon and state.step % state.steps_per_epoch == 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        return self.exchange(state)[name]

    def exchange_all(self, state: TrainState) -> bool:
        state.rewire_flat(self.exchange(state))
        return True

    def exchange(self, state: TrainState) -> dict[str, Array]:
        """The new positions of this step."""
        weights = {name: layer.weight for name, layer in state.network.prunable().items()}
        p = cosine(self.first, self.last, state.step / state.horizon)
        return exchange(
            {name: w.flat for name, w in weights.items()}, {name: w.values for name, w in weights.items()},
            state.memory[MOMENTUM], p,
        )  # fmt: skip
