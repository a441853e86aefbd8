"""Importance pruning: SET in which hidden units with weak inputs are removed as training goes on.

S. Curci, D. C. Mocanu, M. Pechenizkiy. Truly Sparse Neural Networks at Scale. 2021. arXiv:2102.01732

Training is SET. From the share `begin` of the run on, after every `every` epochs and before SET's exchange,
in each hidden layer

    I_i = sum_j |w_ij| over the present inputs of unit i                                   (1)
    the round(share units) units of least I, of those that are left, lose all their inputs (2)

SET then exchanges what remains, so the number of weights falls with every removal. A removed unit is silent
(its bias, and the scale and shift of a normalisation behind it, are held at 0) and does not return: weights
enter the units that are left. The last layer's units are the outputs and are never removed.

Departures: in the authors' code the percentile counts units removed before, and random growth may bring
these back with a weight or two; here a share of the living leaves each time, for good. Their biases go on.
They take 20 % every 10 epochs of 500 from epoch 200 on (10 % every 20 epochs in parallel training).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import DynamicSparse, rounded, setting
from minisparse.methods.dynamic.rules import grow_random
from minisparse.methods.dynamic.set import survivors
from minisparse.methods.dynamic.silence import hidden, silence
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.sparsity.allocation import Allocation, ErdosRenyi
from minisparse.sparsity.count import check_share, check_whole
from minisparse.sparsity.select import top_k
from minisparse.training.state import TrainState

REMOVED = "importance pruning: removed units"


def importance(weight: Weight) -> Array:
    """I (out,) of equation (1)."""
    out, columns = weight.shape
    return np.bincount(weight.flat // columns, weights=np.abs(weight.values), minlength=out)


def unimportant(importance: Array, removed: Array, share: float) -> Array:
    """Units (out,) that leave by equation (2), none of which is `removed` already."""
    left = int(np.count_nonzero(~removed))
    return ~removed & ~top_k(importance, left - rounded(share, left), among=~removed)


@register("importance-pruning", family="dynamic", paper="arXiv:2102.01732")
@dataclass(frozen=True)
class ImportancePruning(DynamicSparse):
    """SET with removal of unimportant units."""

    allocation: Allocation = setting(ErdosRenyi(), "how the kept weights are shared among layers")
    zeta: float = setting(0.3, "share of the weights of each sign exchanged after an epoch")
    share: float = setting(0.2, "share of a layer's remaining units removed each time")
    begin: float = setting(0.4, "share of the run before units are removed")
    every: int = setting(10, "epochs between removals")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("zeta", "share", "begin"):
            check_share(getattr(self, name), name)
        check_whole(self.every, "every")

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        units = {name: layer.weight.shape[0] for name, layer in state.network.prunable().items()}
        state.memory[REMOVED] = {name: np.zeros(count, dtype=bool) for name, count in units.items()}

    def due(self, state: TrainState) -> bool:
        return 0 < state.step < state.horizon and state.step % state.steps_per_epoch == 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        weight, alive = layer.weight, np.flatnonzero(~state.memory[REMOVED][name])
        columns = weight.shape[1]
        rows, where = np.divmod(weight.flat[survivors(weight.values, self.zeta)], columns)
        # SET in the matrix of the rows that are left
        stay = np.searchsorted(alive, rows) * columns + where
        grown = grow_random(stay, alive.size * columns, weight.kept - stay.size, state.rng(f"regrow {name}"))
        rows, where = np.divmod(grown, columns)
        return alive[rows] * columns + where

    def exchange_all(self, state: TrainState) -> bool:
        epoch = state.step // state.steps_per_epoch
        if state.step >= self.begin * state.horizon and epoch % self.every == 0 and self.share > 0:
            self.remove(state)
        return super().exchange_all(state)

    def remove(self, state: TrainState) -> None:
        """Equations (1) and (2)."""
        flats = {}
        for name, layer in hidden(state).items():
            weight, removed = layer.weight, state.memory[REMOVED][name]
            removed |= unimportant(importance(weight), removed, self.share)
            flats[name] = weight.flat[~removed[weight.flat // weight.shape[1]]]
        state.rewire_flat(flats)

    def after_update(self, state: TrainState) -> None:
        super().after_update(state)
        silence(state, state.memory[REMOVED])
