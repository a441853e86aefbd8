"""Scratch: prune while training, then train the mask that was found once more, from the beginning.

T. Gale, E. Elsen, S. Hooker. The State of Sparsity in Deep Neural Networks. 2019. arXiv:1902.09574

Is the structure enough, or does a sparse network need the training that found it? With A(theta, T) a training
of T steps, which prunes gradually by magnitude to the mask m the first time,

    (theta_T, m) = A(theta_0, T)                                                           (1)
    result       = A(m theta', b T)                                                        (2)

with theta' and b said by the settings:

    lottery      theta' = theta_0, b = 1               --control none
    scratch-e    theta' drawn anew, b = 1              --control reinit
    scratch-b    theta' drawn anew, b = 2              --control reinit --budget 2
    augmented    theta' / sqrt(density of the layer)   --control reinit:augmented=true

In (2) nothing is pruned. Its learning rate is that of (1), at 1/b of the speed. The mask depends on the step
counts of (1), so theta_0 is step 0 and no later. The optimiser starts anew; biases and BatchNorm are those of
theta_0, or as new with theta'.

Departures: b is whole. The data come in later epochs' order the second time. Absent weights stay absent in
(1), see `magnitude`.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisparse.methods.base import Scored, setting, take_away
from minisparse.methods.registry import register
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.nn.param import Array
from minisparse.sparsity.control import Control, Reinit
from minisparse.sparsity.count import check_whole
from minisparse.sparsity.schedule import Cubic, Schedule
from minisparse.training.state import TrainState

START = "scratch: state at step 0"


@register("scratch", family="lottery", paper="arXiv:1902.09574")
@dataclass(frozen=True)
class Scratch(Scored):
    """Training a mask that was found while training, from the beginning."""

    schedule: Schedule = setting(Cubic(), "when the first training prunes, and how far each time")
    control: Control = setting(Reinit(), "what the second training begins with: none is the lottery ticket")
    budget: int = setting(1, "b, length of the second training in lengths of the first")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.budget, "budget")

    def length(self, horizon: int) -> int:
        return horizon * (1 + (self.budget if self.sparsity > 0 else 0))

    def setup(self, state: TrainState) -> None:
        state.memory[START] = state.network.state()
        super().setup(state)

    def score(self, state: TrainState) -> dict[str, Array]:
        layers = state.network.prunable()
        return {name: magnitude(layer.weight.dense()) for name, layer in layers.items()}

    def settle(self, state: TrainState) -> None:
        """Nothing yet: the control acts when the first training is over."""

    def after_update(self, state: TrainState) -> None:
        super().after_update(state)
        if state.step == state.horizon and self.sparsity > 0:
            start = state.memory[START]
            state.network.restore(start)
            state.optimizer.reset()
            origin = {name: start[f"{name}.weight"] for name in state.network.prunable()}
            take_away(state, self.control, self.pattern, origin)
        if state.step >= state.horizon and self.sparsity > 0:
            state.clock = (state.step - state.horizon) // self.budget
