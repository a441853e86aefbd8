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

import numpy as np

from minisparse.methods.base import DynamicSparse, rounded, setting
from minisparse.methods.dynamic.rules import grow_random, share_out
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


def below(weight: Array, mask: Array, threshold: float) -> Array:
    """Who leaves by (1), the layer's largest weight excepted; weight, mask (out, in)."""
    small = mask & (np.abs(weight) < threshold)
    return small & ~top_k(np.abs(weight), min(1, int(np.count_nonzero(mask))), among=mask)


def smallest(weights: Mapping[str, Array], masks: Mapping[str, Array], k: int) -> dict[str, Array]:
    """The k entries of least magnitude among those of the masks, over all layers together."""
    sizes = [mask.size for mask in masks.values()]
    magnitudes = np.concatenate([np.abs(weights[name]).ravel() for name in masks])
    chosen = top_k(-magnitudes, k, among=np.concatenate([mask.ravel() for mask in masks.values()]))
    parts = np.split(chosen, np.cumsum(sizes)[:-1])
    return {name: part.reshape(mask.shape) for (name, mask), part in zip(masks.items(), parts, strict=True)}


def count(masks: Mapping[str, Array]) -> int:
    """True entries of all masks together."""
    return sum(int(np.count_nonzero(mask)) for mask in masks.values())


@register("dsr", family="dynamic", paper="arXiv:1902.05967")
@dataclass(frozen=True)
class DSR(DynamicSparse):
    """Dynamic sparse reparameterization."""

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
        target = rounded(self.move, count(state.network.masks()))
        state.rewire(self.exchange(state))
        h[...] = adapted(float(h), left, target, self.tolerance)
        return True

    def leaving(self, state: TrainState) -> dict[str, Array]:
        """Equation (1) in every layer."""
        h = float(state.memory[THRESHOLD]["H"])
        layers = state.network.prunable()
        return {name: below(x.weight.dense(), x.weight.mask, h) for name, x in layers.items()}

    def exchange(self, state: TrainState) -> dict[str, Array]:
        """The new masks, equations (1) and (3)."""
        layers, masks, leave = state.network.prunable(), state.network.masks(), self.leaving(state)
        room = {name: int(np.count_nonzero(~mask)) for name, mask in masks.items()}
        if count(leave) > sum(room.values()):
            weights = {name: layer.weight.dense() for name, layer in layers.items()}
            leave = smallest(weights, leave, sum(room.values()))
        stay = {name: mask & ~leave[name] for name, mask in masks.items()}
        survivors = {name: int(np.count_nonzero(mask)) for name, mask in stay.items()}
        quota = share_out(count(leave), survivors, room)
        return {
            name: grow_random(stay[name], quota[name], state.rng(f"regrow {name}"), among=~mask)
            for name, mask in masks.items()
        }
