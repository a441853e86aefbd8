"""IMP: prune the smallest trained weights, rewind the others to an early value, train again.

J. Frankle, M. Carbin. The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks. ICLR 2019.
arXiv:1803.03635 (k = 0)
J. Frankle, G. K. Dziugaite, D. M. Roy, M. Carbin. Linear Mode Connectivity and the Lottery Ticket
Hypothesis. ICML 2020. arXiv:1912.05671 (k > 0)
A. Renda, J. Frankle, M. Carbin. Comparing Rewinding and Fine-tuning in Neural Network Pruning. ICLR 2020.
arXiv:2003.02389 (`keep_weights`: only the learning rate is rewound; with `keep_rate` too: fine-tuning)

Let A(theta, k -> T) be training from step k to step T with the learning rates of those steps, theta_k the
weights after k steps, n the number of prunable weights. Rounds r = 1..R:

    theta_T = A(m theta_k, k -> T)                                                         (1)
    m       = the n - round(s_r n) largest |theta_T| among those present                   (2)
    s_r     = 1 - (1 - p)^r,   (1 - p)^R = 1 - s                                           (3)

and A(m theta_k, k -> T) once more: T + R (T - k) steps. With `keep_weights`, (1) goes on from m theta_T; with
`keep_rate` the rate stays what it was at step T - 1 (next to nothing after a cosine: it is meant for rates
that fall in steps). The optimiser starts anew with each round. Biases and BatchNorm's parameters and
statistics are rewound with the weights. Each round sees later epochs, that is another order of the data: a
ticket has to survive that noise.

The ticket (m, theta_k) is found as it is; a control then acts on it before the last training only. Under
`invert` the last of the R rankings is turned round.

Departures: one ranking over all layers, as since arXiv:1912.05671; the first paper prunes each layer by its
own share, which is the allocation `slow-last`. Counts are exact; both official codes prune one weight more.
A sparsity of 0 leaves nothing to prune and is one training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from minisparse.methods.base import Method, layer_shapes, rounded, setting, take_away
from minisparse.methods.registry import register
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.sparsity.allocation import Allocation, Global
from minisparse.sparsity.control import Control, Untouched
from minisparse.sparsity.count import check_flag, check_share, check_sparsity, check_whole
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.schedule import geometric_levels
from minisparse.sparsity.select import select
from minisparse.training.state import TrainState

UNTOUCHED = Untouched()
SNAPSHOT = "imp: state at step k"


def levels_at(step: int, horizon: int, k: int, levels: tuple[float, ...]) -> tuple[float, ...]:
    """Sparsities to prune to when `step` steps are done: one where each training but the last ends.

    Trainings end at horizon, then every horizon - k steps; if k is the horizon all levels fall on it.
    """
    if k == horizon:
        return levels if step == horizon else ()
    finished, rest = divmod(step - horizon, horizon - k)
    return levels[finished : finished + 1] if step >= horizon and rest == 0 else ()


@register("imp", family="lottery", paper="arXiv:1803.03635")
@dataclass(frozen=True)
class IMP(Method):
    """Iterative magnitude pruning with rewinding."""

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})

    sparsity: float = setting(0.9, "share of prunable weights that are zero at the end")
    rounds: int = setting(5, "how many times to prune and train again")
    rewind: float = setting(0.0, "k as a share of one training; 0 rewinds to initialisation")
    keep_weights: bool = setting(False, "rewind the learning rate but not the weights")
    allocation: Allocation = setting(Global(), "how the kept weights are shared among layers")
    keep_rate: bool = setting(False, "train on with the last learning rate; do not rewind it")
    control: Control = setting(UNTOUCHED, "what is taken from the ticket before its last training")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_whole(self.rounds, "rounds")
        check_share(self.rewind, "rewind")
        check_flag(self.keep_weights, "keep_weights")
        check_flag(self.keep_rate, "keep_rate")

    @property
    def levels(self) -> tuple[float, ...]:
        """s_1 .. s_R of equation (3)."""
        return geometric_levels(self.sparsity, self.rounds) if self.sparsity > 0 else ()

    def length(self, horizon: int) -> int:
        return horizon + len(self.levels) * (horizon - rounded(self.rewind, horizon))

    def setup(self, state: TrainState) -> None:
        self.advance(state)

    def after_update(self, state: TrainState) -> None:
        self.advance(state)

    def advance(self, state: TrainState) -> None:
        """Take the snapshot at step k; where a training ends, prune and rewind."""
        k = rounded(self.rewind, state.horizon)
        if state.step == k:
            state.memory[SNAPSHOT] = state.network.state()
        for level in levels_at(state.step, state.horizon, k, self.levels):
            last = level == self.sparsity
            self.prune_to(state, level, self.control if last else UNTOUCHED)
            if not self.keep_weights:
                state.network.restore(state.memory[SNAPSHOT])
            state.optimizer.reset()
            state.clock = k
            if last:
                early = state.memory[SNAPSHOT]
                origin = {name: early[f"{name}.weight"] for name in state.network.prunable()}
                take_away(state, self.control, Unstructured(), origin)
        if self.keep_rate and state.step >= state.horizon:
            state.clock = max(0, state.horizon - 1)

    def prune_to(self, state: TrainState, sparsity: float, control: Control = UNTOUCHED) -> None:
        """Equation (2), with the scores as `control` lets them be ranked."""
        network = state.network
        scores = {name: magnitude(layer.weight.dense()) for name, layer in network.prunable().items()}
        shapes, present = layer_shapes(network), network.masks()
        ranked = control.scores(scores)
        state.rewire(select(ranked, shapes, sparsity, self.allocation, Unstructured(), present))
