"""Early-bird tickets: draw a mask every epoch and prune as soon as the masks hardly change any more.

H. You, C. Li, P. Xu, Y. Fu, Y. Wang, X. Chen, R. G. Baraniuk, Z. Wang, Y. Lin. Drawing Early-Bird Tickets:
Towards More Efficient Training of Deep Networks. ICLR 2020. arXiv:1909.11957

At the start of every epoch a mask m is drawn from the magnitudes, at the final sparsity, but not imposed. Of
two masks with n units

    distance(m, m') = #{units in which they differ} / n                                    (1)

and once the last `window` masks m_1 .. m_q are there, the ticket is drawn when

    max over i < q of distance(m_q, m_i) < threshold                                       (2)

Training then goes on with the pruned network; its weights are inherited, or drawn anew with control reinit.

Two masks that both keep the share d of the units differ in at most the share 2 d of them: above 95 % sparsity
(2) with 0.1 is met as soon as the window is full.

Departures: the paper prunes channels (30 to 70 %) by the scale of their BatchNorm, trained with an L1
penalty; here the units are those of the pattern, single weights by default and channels with `--pattern row`,
and there is no penalty. (2) is the authors' code, which compares the newest with the others; the text speaks
of all pairs. A run in which (2) is never met prunes at the share `latest` of its steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisparse.methods.base import Method, dense_weights, layer_shapes, rounded, setting, take_away
from minisparse.methods.registry import register
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, Global
from minisparse.sparsity.control import Control, Untouched
from minisparse.sparsity.count import check_real, check_share, check_sparsity, check_whole
from minisparse.sparsity.pattern import Pattern, Unstructured
from minisparse.sparsity.select import select
from minisparse.training.state import TrainState

DRAWN = "early-bird: mask {}"
ORIGIN = "early-bird: weights at step 0"

Masks = Mapping[str, Array]


def mask_distance(a: Masks, b: Masks) -> float:
    """Equation (1) over all layers together; the same layers with bool arrays of the same shapes."""
    differing = sum(int(np.count_nonzero(a[name] != b[name])) for name in a)
    return differing / sum(mask.size for mask in a.values())


def stable(masks: Sequence[Masks], window: int, threshold: float) -> bool:
    """Equation (2) for the last `window` of these masks, the newest last; False while there are fewer."""
    *earlier, newest = masks[-window:]
    full = len(earlier) + 1 == window
    return full and max((mask_distance(newest, old) for old in earlier), default=0.0) < threshold


@register("early-bird", family="lottery", paper="arXiv:1909.11957")
@dataclass(frozen=True)
class EarlyBird(Method):
    """Prune once, when the masks have settled."""

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})

    sparsity: float = setting(0.5, "share of prunable weights that are zero once the ticket is drawn")
    window: int = setting(5, "how many masks are compared, one an epoch")
    threshold: float = setting(0.1, "distance below which masks count as settled")
    latest: float = setting(0.5, "share of the run after which the ticket is drawn in any case")
    allocation: Allocation = setting(Global(), "how the kept weights are shared among layers")
    pattern: Pattern = setting(Unstructured(), "which sets of weights stay or leave together")
    control: Control = setting(Untouched(), "what is taken from the ticket before it trains on")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_whole(self.window, "window", 2)
        check_real(self.threshold, "threshold", 0)
        check_share(self.latest, "latest")

    def setup(self, state: TrainState) -> None:
        self.allocation.check(layer_shapes(state.network), self.sparsity)
        if self.control.moves:
            state.memory[ORIGIN] = dense_weights(state.network)
        self.look(state)

    def after_update(self, state: TrainState) -> None:
        self.look(state)

    def look(self, state: TrainState) -> None:
        """Draw a mask at the start of an epoch, and the ticket if it is time."""
        if state.topology:
            return
        due = state.step >= rounded(self.latest, state.horizon)
        if state.step % state.steps_per_epoch and not due:
            return
        masks, shapes = self.drawn(state), layer_shapes(state.network)
        units = {n: self.pattern.total(m.astype(np.int64), shapes[n]) > 0 for n, m in masks.items()}
        slots = [DRAWN.format(i) for i in range(self.window)]
        queue = [state.memory[slot] for slot in slots if slot in state.memory]
        queue = [*queue, units][-self.window :]
        state.memory.update(zip(slots, queue, strict=False))
        if due or stable(queue, self.window, self.threshold):
            state.rewire(masks)
            take_away(state, self.control, self.pattern, state.memory.get(ORIGIN, {}))

    def drawn(self, state: TrainState) -> dict[str, Array]:
        """Masks (out, in) at the final sparsity from the magnitudes of now."""
        layers = state.network.prunable()
        scores = {name: magnitude(layer.weight.dense()) for name, layer in layers.items()}
        ranked = self.control.scores(scores)
        present = state.network.masks()
        return select(
            ranked, layer_shapes(state.network), self.sparsity, self.allocation, self.pattern, present
        )
