"""DSR: weights below one threshold leave; what they free goes to the layers in proportion to their survivors.

H. Mostafa, X. Wang. Parameter Efficient Training of Deep Convolutional Neural Networks by Dynamic Sparse
Reparameterization. ICML 2019. arXiv:1902.05967

Every `every` steps, with one threshold H for the whole network and N_p the number of weights to move:

    the weights with |w| < H leave, K in all; R_l stay in layer l                          (1)
    H <- H / 2 if K > (1 + delta) N_p,   2 H if K < (1 - delta) N_p,   for the next time   (2)
    G_l = K R_l / sum R  enter in layer l, at random, with value 0, not where one just left (3)

H adapts until about N_p weights move each time; the number is kept, not a proportion of any layer. A layer
keeps its largest weight at least. The number of weights of the network is constant, that of a layer is not.

Departures: shares are apportioned exactly, what a full layer cannot take going to the others in the
proportion of (3). No more leave than there is room for: in a network with few empty places the largest of
those in (1) stay. N_p is given as a share of all kept weights. All prunable layers take part. The interval
is constant; the authors double it as training goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minisparse.methods.base import DynamicSparse, rounded, setting
from minisparse.methods.dynamic.rules import grow_random, largest_together, share_out
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_real, check_share, check_whole
from minisparse.sparsity.select import top_k
from minisparse.training.state import TrainState

THRESHOLD = "dsr: threshold H"


def adapted(threshold: float, moved: int, target: float, tolerance: float) -> float:
    """H for the next time after K = `moved` left, equation (2)."""
    if moved > (1 + tolerance) * target:
        return threshold / 2
    return 2 * threshold if moved < (1 - tolerance) * target else threshold


def below(weight: Array, threshold: float) -> Array:
    """Who leaves by (1), the layer's largest weight excepted; weight (kept,) present entries."""
    size = np.abs(weight)
    return (size < threshold) & ~top_k(size, min(1, size.size))


def fewer(leave: Mapping[str, Array], weights: Mapping[str, Array], k: int) -> dict[str, Array]:
    """Of those who leave, the k of least magnitude over all layers together; arrays (kept,)."""
    chosen = largest_together({name: -np.abs(weights[name][out]) for name, out in leave.items()}, k)
    fewer = {name: np.zeros(out.shape, dtype=bool) for name, out in leave.items()}
    for name, out in leave.items():
        fewer[name][out] = chosen[name]
    return fewer


def count(chosen: Mapping[str, Array]) -> int:
    """True entries of all layers together."""
    return sum(int(np.count_nonzero(array)) for array in chosen.values())


@register("dsr", family="dynamic", paper="arXiv:1902.05967")
@dataclass(frozen=True)
class DSR(DynamicSparse):
    """Dynamic sparse reparameterization."""

    demo: ClassVar[Mapping[str, Any]] = {"move": 0.3, "threshold": 0.05}

    move: float = setting(0.05, "N_p as a share of the kept weights: how many move each time")
    threshold: float = setting(1e-3, "H at the start")
    tolerance: float = setting(0.1, "delta, how far the number moved may be from N_p")
    every: int = setting(100, "steps between exchanges")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.move, "move")
        check_real(self.threshold, "threshold", 1e-12)
        check_share(self.tolerance, "tolerance")
        check_whole(self.every, "every")

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        state.memory[THRESHOLD] = {"H": np.array(self.threshold)}

    def due(self, state: TrainState) -> bool:
        return 0 < state.step < state.horizon and state.step % self.every == 0 and self.move > 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        return self.exchange(state)[name]

    def exchange_all(self, state: TrainState) -> bool:
        h = state.memory[THRESHOLD]["H"]
        left = count(self.leaving(state))
        target = rounded(self.move, sum(x.weight.kept for x in state.network.prunable().values()))
        state.rewire_flat(self.exchange(state))
        h[...] = adapted(float(h), left, target, self.tolerance)
        return True

    def leaving(self, state: TrainState) -> dict[str, Array]:
        """Equation (1) in every layer: who of the present entries leaves."""
        h = float(state.memory[THRESHOLD]["H"])
        return {name: below(x.weight.values, h) for name, x in state.network.prunable().items()}

    def exchange(self, state: TrainState) -> dict[str, Array]:
        """The new positions, equations (1) and (3)."""
        weights = {name: layer.weight for name, layer in state.network.prunable().items()}
        leave, room = self.leaving(state), {name: w.size - w.kept for name, w in weights.items()}
        if count(leave) > sum(room.values()):
            leave = fewer(leave, {name: w.values for name, w in weights.items()}, sum(room.values()))
        stay = {name: w.flat[~leave[name]] for name, w in weights.items()}
        quota = share_out(count(leave), {name: flat.size for name, flat in stay.items()}, room)
        return {
            name: grow_random(stay[name], w.size, quota[name], state.rng(f"regrow {name}"), excluded=w.flat)
            for name, w in weights.items()
        }
