"""LAP (lookahead): remove the weights that change the product with both neighbouring layers least.

S. Park, J. Lee, S. Mo, J. Shin. Lookahead: A Far-sighted Alternative of Magnitude-based Pruning. ICLR 2020.
arXiv:2002.04809

Without activations, removing the weight W_l[j,i] changes the product of three layers by the rank-one matrix
W_l[j,i] W_{l+1}[:,j] W_{l-1}[i,:], whose Frobenius norm is

    score(W_l[j,i]) = |W_l[j,i]| ||W_{l-1}[i,:]||_2 ||W_{l+1}[:,j]||_2                     (1)

with norm 1 where there is no neighbour. In convolutions the norms run over whole filters and over all taps
that read a channel; BatchNorm multiplies them by |gamma| / sqrt(v) (see `neighbours.py`).

    order    together: all layers are scored before any is pruned (LAP);                   (2)
             forward, backward: one layer after the other, each score seeing the neighbours
             already pruned, from the input or from the output (LFP, LBP)
    rounds   S: each pruning is done in S rounds that remove equal numbers of weights (LAP-seq)

Scores of different layers have different units: layers are ranked each for itself (allocation uniform). With
an order, how many weights a layer keeps is settled by the scores before anything is pruned.

Departures: at a residual sum all layers that feed or read a channel count (the authors' code follows the list
of layers and skips none); biases and the authors' activation-rate factor (LAP-act) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import Scored, layer_shapes, setting
from minisparse.methods.registry import register
from minisparse.methods.saliency.neighbours import neighbours
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, Uniform
from minisparse.sparsity.count import check_choice, check_whole
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.sparsity.select import select
from minisparse.sparsity.shape import LayerShape
from minisparse.training.state import TrainState

ORDERS = ("together", "forward", "backward")


def lookahead(weight: Array, fed: Array, read: Array) -> Array:
    """Equation (1): weight (out, in), fed (in,) and read (out,) the norms of the neighbours."""
    return np.abs(weight) * fed * read[:, None]


@register("lap", family="saliency", paper="arXiv:2002.04809")
@dataclass(frozen=True)
class LAP(Scored):
    """Lookahead pruning."""

    schedule: Schedule = setting(OneShot(0.5), "when to prune, and how far each time")
    allocation: Allocation = setting(Uniform(), "how the kept weights are shared among layers")
    order: str = setting("together", "together, forward or backward: which neighbours are pruned already")
    rounds: int = setting(1, "rounds of equal size each pruning is cut into")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.order, "order", ORDERS)
        check_whole(self.rounds, "rounds")

    def score(self, state: TrainState) -> dict[str, Array]:
        around = neighbours(state.network)
        layers = state.network.prunable()
        return {name: lookahead(layer.weight.dense(), *around[name]) for name, layer in layers.items()}

    def prune_to(self, state: TrainState, sparsity: float) -> None:
        weights = [layer.weight for layer in state.network.prunable().values()]
        now = 1 - sum(w.kept for w in weights) / sum(w.size for w in weights)
        rounds = self.rounds if self.pattern.fixed_sparsity is None else 1
        levels = [now + (sparsity - now) * k / rounds for k in range(1, rounds)]
        for level in [*levels, sparsity]:
            self.prune_round(state, level)

    def prune_round(self, state: TrainState, sparsity: float) -> None:
        """Prune all layers to one level, (2)."""
        network, shapes = state.network, layer_shapes(state.network)
        masks = select(self.ranked(state), shapes, sparsity, self.allocation, self.pattern, network.masks())
        names = {"together": [], "forward": list(masks), "backward": list(masks)[::-1]}[self.order]
        for name in names:
            masks[name] = self.chosen_anew(state, name, masks[name])
            state.rewire({name: masks[name]})
        if not names:
            state.rewire(masks)

    def chosen_anew(self, state: TrainState, name: str, mask: Array) -> Array:
        """As many weights of one layer as `mask` (out, in) has, by the scores of now."""
        if mask.all() or not mask.any():
            return mask
        layer, fixed = state.network.prunable()[name], self.pattern.fixed_sparsity
        share = 1 - np.count_nonzero(mask) / mask.size if fixed is None else fixed
        scores, shape = {name: self.ranked(state)[name]}, {name: LayerShape(*layer.weight.geometry)}
        return select(scores, shape, share, Uniform(), self.pattern, {name: layer.weight.mask})[name]
