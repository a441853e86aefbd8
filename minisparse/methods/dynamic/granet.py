"""GraNet: prune a sparse network further by magnitude, and let connections regrow by gradient all the while.

S. Liu, T. Chen, X. Chen, Z. Atashgahi, L. Yin, H. Kou, L. Shen, M. Pechenizkiy, Z. Wang, D. C. Mocanu. Sparse
Training via Boosting Pruning Plasticity with Neuroregeneration. NeurIPS 2021. arXiv:2106.10404

Training starts from random masks of sparsity s_i. Every `every` steps up to T the network is pruned, then
each layer regenerates:

    s_t = s + (s_i - s) (1 - t/T)^3;  the largest |w| of all layers together stay          (1)
    the round(p kept_l) smallest |w| of each layer leave, as many enter where |dL/dw| is largest,
    p = cosine from 0.5 to 0.005 over the run                                              (2)

New weights are 0; those that just left may return, which costs nothing: counts are those of (1) at all times.
After T (2) goes on. s_i = 0 is the paper's dense-to-sparse form, s_i = s is RigL with this p, p = 0 is
gradual pruning by magnitude.

Departures: the last pruning is at T and reaches s; in the authors' code it is one interval earlier and stops
short. Counts are exact. The optimiser's step is taken, and its gradient is the one growth follows, as in that
code. An entry that leaves and re-enters at once keeps its value and momentum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from minisparse.methods.base import DynamicSparse, layer_shapes, rounded, setting
from minisparse.methods.dynamic.rigl import exchange
from minisparse.methods.dynamic.rules import cosine, largest_together
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import budget
from minisparse.sparsity.count import check_share, check_sparsity, check_whole
from minisparse.sparsity.schedule import Cubic
from minisparse.training.state import TrainState


@register("granet", family="dynamic", paper="arXiv:2106.10404")
@dataclass(frozen=True)
class GraNet(DynamicSparse):
    """Gradual pruning with zero-cost neuroregeneration."""

    sparsity: float = setting(0.9, "share of prunable weights that are zero at the end")
    initial: float = setting(0.5, "s_i, the same at the start; the final one if that is lower")
    every: int = setting(100, "steps between updates of the masks")
    until: float = setting(0.7, "T as a share of the run")
    first: float = setting(0.5, "share of a layer's weights that regenerates, at the start of the run")
    last: float = setting(0.005, "the same at the end of the run")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sparsity(self.initial, "initial")
        check_whole(self.every, "every")
        for name in ("until", "first", "last"):
            check_share(getattr(self, name), name)

    def setup(self, state: TrainState) -> None:
        DynamicSparse.setup(replace(self, sparsity=self.levels(state)[-1]), state)

    def levels(self, state: TrainState) -> tuple[float, ...]:
        """Sparsities to prune to now, equation (1)."""
        schedule = Cubic(0.0, self.until, self.every, min(self.initial, self.sparsity))
        return schedule.levels(state.step, state.horizon, self.sparsity)

    def due(self, state: TrainState) -> bool:
        return 0 < state.step < state.horizon and state.step % self.every == 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        p = cosine(self.first, self.last, state.step / state.horizon)
        weight = layer.weight
        return exchange(weight.flat, weight.values, layer.gradient_blocks(), rounded(p, weight.kept))

    def after_update(self, state: TrainState) -> None:
        for level in self.levels(state):
            self.prune_to(state, level)
        super().after_update(state)

    def prune_to(self, state: TrainState, sparsity: float) -> None:
        """The selection of (1)."""
        weights = {name: layer.weight for name, layer in state.network.prunable().items()}
        magnitudes = {name: np.abs(w.values) for name, w in weights.items()}
        stay = largest_together(magnitudes, budget(layer_shapes(state.network), sparsity))
        state.rewire_flat({name: w.flat[stay[name]] for name, w in weights.items()})
