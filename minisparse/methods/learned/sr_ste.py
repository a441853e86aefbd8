"""SR-STE: train N:M sparse weights from scratch, the N of every M chosen anew at every step.

A. Zhou, Y. Ma, J. Zhu, J. Liu, Z. Zhang, K. Yuan, W. Sun, H. Li. Learning N:M Fine-grained Structured Sparse
Neural Networks From Scratch. ICLR 2021. arXiv:2102.04010

    W = M theta,   M keeps the N largest |theta| of every M consecutive inputs             (1)
    grad theta = dL/dW + decay (1 - M) theta                                               (2)

dL/dW passes to absent weights as if they were present (straight through), so they train and may return; the
second term draws them to 0, which keeps groups from changing their choice back and forth.

Departures: a layer whose inputs are no multiple of M keeps the last ones whole (remainder error refuses it);
the authors' groups run on into the next filter. Their classifier is dense; here every layer is N:M.
"""

from __future__ import annotations

from dataclasses import dataclass

from minisparse.methods.base import Learned, layer_shapes, setting
from minisparse.methods.registry import register
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.nn.weight import Weight
from minisparse.sparsity.allocation import Global
from minisparse.sparsity.count import check_real
from minisparse.sparsity.pattern import NM
from minisparse.sparsity.select import select
from minisparse.training.state import TrainState
from minisparse.weights.straight_through import RefinedWeight


@register("sr-ste", family="learned", paper="arXiv:2102.04010")
@dataclass(frozen=True)
class SRSTE(Learned):
    """Sparse-refined straight-through estimator."""

    keep: int = setting(2, "N, weights kept of every M")
    of: int = setting(4, "M, consecutive weights along the inputs")
    decay: float = setting(2e-4, "pull of absent weights to 0; 0 is plain straight-through")
    remainder: str = setting("dense", "if M does not divide the inputs: dense keeps the last, error refuses")

    def __post_init__(self) -> None:
        NM(self.keep, self.of, self.remainder)
        check_real(self.decay, "decay", 0)

    def substitute(self, name: str, weight: Weight, state: TrainState) -> Weight:
        return RefinedWeight(weight, self.decay)

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        self.choose(state)

    def after_update(self, state: TrainState) -> None:
        self.choose(state)

    def choose(self, state: TrainState) -> None:
        """M of equation (1)."""
        layers = state.network.prunable()
        scores = {name: magnitude(x.weight.params()["weight"].value) for name, x in layers.items()}
        pattern = NM(self.keep, self.of, self.remainder)
        state.rewire(select(scores, layer_shapes(state.network), None, Global(), pattern))
