"""Ranked units: methods that remove the neurons, filters or channels of lowest score.

A method scores units; which of them leave, when, and what leaves with them is the same for all:

    L(r) = weights left when the r units of lowest score are removed                       (1)
    r*   = the r for which L(r) is nearest to N - rhe(s N),  the lower r if two are        (2)

N counts the prunable weights and s is the sparsity, so that "sparsity 0.9" means what it means for single
weights. With share_of="units" r* is rhe(s U) of U units, as in the papers, and the sparsity follows from it.
The allocation shares out units: global is one ranking, uniform takes the same share of every group. Of every
group the best unit stays, even if less is removed than was asked.

A removed unit loses its rows and columns, its biases, scales and shifts: the masked network is the one that
`sparsity.surgery.remove_dead` cuts out, weight for weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisparse.errors import UsageError
from minisparse.methods.base import Method, setting
from minisparse.nn.network import Network
from minisparse.nn.param import Array, Param
from minisparse.sparsity.allocation import Allocation, Global, Uniform
from minisparse.sparsity.count import check_choice, check_sparsity, kept_count
from minisparse.sparsity.groups import Group
from minisparse.sparsity.parse import to_text
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.sparsity.select import select, top_k
from minisparse.sparsity.shape import LayerShape, Mask
from minisparse.training.state import TrainState

Keep = dict[Group, Mask]


def present(network: Network, group: Group) -> Mask:
    """(units,) those that have a weight left, in a row or in a column."""
    layers = network.prunable()
    counts = np.zeros(len(group), dtype=np.int64)
    for name, rows in group.producers:
        counts += layers[name].weight.mask.sum(axis=1)[rows].sum(axis=1)
    for name, columns in group.consumers:
        counts += layers[name].weight.mask.sum(axis=0)[columns].sum(axis=1)
    return counts > 0


def masks_without(network: Network, keep: Mapping[Group, Mask]) -> dict[str, Mask]:
    """Masks of all prunable layers after the units that are not kept have left."""
    masks = network.masks()
    for group, kept in keep.items():
        for name, rows in group.producers:
            masks[name][rows[~kept].reshape(-1)] = False
        for name, columns in group.consumers:
            masks[name][:, columns[~kept].reshape(-1)] = False
    return masks


def lowest_removed(
    scores: Mapping[Group, Array], live: Mapping[Group, Mask], count: int, allocation: Allocation
) -> Keep:
    """What stays when `count` units of all are gone, those that are not `live` among them."""
    table = {group.name: group for group in scores}
    shapes = {name: LayerShape(len(group), 1) for name, group in table.items()}
    total = sum(len(group) for group in scores)
    masks = select(
        {name: scores[group][:, None] for name, group in table.items()}, shapes, count / total,
        allocation, Unstructured(), {name: live[group][:, None] for name, group in table.items()},
    )  # fmt: skip
    best = {group: top_k(scores[group], min(1, int(live[group].sum())), live[group]) for group in scores}
    return {group: masks[name][:, 0] | best[group] for name, group in table.items()}


def nearest_removed(
    network: Network, scores: Mapping[Group, Array], wanted: int, allocation: Allocation
) -> Keep:
    """Equation (2): what stays when the weights left are as near to `wanted` as removing units allows."""
    live = {group: present(network, group) for group in scores}

    def left(count: int) -> int:
        masks = masks_without(network, lowest_removed(scores, live, count, allocation))
        return sum(int(np.count_nonzero(mask)) for mask in masks.values())

    gone = sum(int(np.count_nonzero(~alive)) for alive in live.values())
    low, high = gone, sum(len(group) for group in scores) - 1
    while low < high:  # the lowest count that leaves no more than wanted
        middle = (low + high) // 2
        low, high = (low, middle) if left(middle) <= wanted else (middle + 1, high)
    if low > gone and abs(left(low - 1) - wanted) <= abs(left(low) - wanted):
        low -= 1
    return lowest_removed(scores, live, low, allocation)


def remove(state: TrainState, keep: Mapping[Group, Mask]) -> None:
    """Take units out of masks, biases and normalisations, and out of the optimiser's slots."""
    state.rewire(masks_without(state.network, keep))
    layers = dict(state.network.walk())
    for group, kept in keep.items():
        held: list[tuple[str, Param, Array]] = []
        for name, rows in group.producers:
            bias = layers[name].params().get("bias")
            held += [] if bias is None else [(f"{name}.bias", bias, rows)]
        for name, channels in group.norms:
            held += [(f"{name}.{key}", p, channels) for key, p in layers[name].params().items()]
        for key, p, index in held:
            source = np.arange(len(p.value))
            source[index[~kept]] = -1
            p.value[source < 0] = 0
            state.optimizer.remap(key, source)


@dataclass(frozen=True)
class Ranked(Method, ABC):
    """Keep the units of largest score; a subclass defines `score`."""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden units"})

    sparsity: float = setting(0.9, "share of prunable weights (or of units) removed at the end")
    schedule: Schedule = setting(OneShot(0.5), "when to prune, and how far each time")
    allocation: Allocation = setting(Global(), "how the units that stay are shared among groups")
    share_of: str = setting("weights", "weights or units: what the sparsity is a share of")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_choice(self.share_of, "share_of", ("weights", "units"))
        if self.share_of == "weights" and not isinstance(self.allocation, Global | Uniform):
            raise UsageError(
                f"allocation of units: got {to_text(self.allocation)}, expected global or uniform when the "
                "sparsity is a share of weights. Use share_of units."
            )

    @abstractmethod
    def score(self, state: TrainState) -> dict[Group, Array]:
        """Score (units,) of every unit that may be removed; the largest stay."""

    def setup(self, state: TrainState) -> None:
        self.impose(state)

    def after_update(self, state: TrainState) -> None:
        self.impose(state)

    def impose(self, state: TrainState) -> None:
        """Prune to each level the schedule names for this step, scoring anew for each."""
        for level in self.schedule.levels(state.step, state.horizon, self.sparsity):
            self.prune_to(state, level)

    def pruned_by(self, state: TrainState) -> int:
        """The step after which nothing more is removed."""
        return self.schedule.curve(state.horizon, self.sparsity)[-1][0]

    def prune_to(self, state: TrainState, sparsity: float) -> None:
        """Score, choose and remove once."""
        network, scores = state.network, self.score(state)
        if self.share_of == "units":
            live = {group: present(network, group) for group in scores}
            total = sum(len(group) for group in scores)
            keep = lowest_removed(scores, live, total - kept_count(total, sparsity), self.allocation)
        else:
            size = sum(layer.weight.size for layer in network.prunable().values())
            keep = nearest_removed(network, scores, kept_count(size, sparsity), self.allocation)
        remove(state, keep)


def normalized(score: Array) -> Array:
    """Scores (units,) divided by their mean, so that groups of different scale can be ranked together."""
    mean = score.mean()
    return score / mean if mean > 0 else score
