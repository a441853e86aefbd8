"""Top-KAST: the largest weights are used, a larger set of the largest is trained, all others wait.

S. Jayakumar, R. Pascanu, J. Rae, S. Osindero, E. Elsen. Top-KAST: Top-K Always Sparse Training. NeurIPS 2020.
arXiv:2106.03517

With theta the stored weights, D the density of the forward pass and D + M that of the backward pass,

    A = the share D of largest |theta|,   B = the share D + M, layer by layer              (1)
    forward with theta on A and 0 elsewhere; theta changes on B only, by dL/dW             (2)
    penalty  lambda/2 (|theta_A|^2 + |theta_(B - A)|^2 / D)                                (3)

(3) draws what is trained without being used to 0 faster by 1/D than what is used, so that it must earn its
place. Weights outside B are frozen bit for bit, without momentum. M is given as the share `explore` of the
entries outside A that B takes in; 0 trains A alone, 1 gives dense gradients to a sparse network. From the
share `until` of the run on B is A.

Departures: the paper's norms in (3) are read as weight decay, squared and halved. The optimiser's own weight
decay, if any, comes on top, on B. |theta| of all entries is ranked at every exchange, as in the paper. theta
is dense by definition: every layer trains a whole matrix, however its weights were stored before; only what
the method stands for, not this code, is sparse in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import Learned, layer_shapes, rounded, setting
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.sparsity.allocation import ERK, Allocation
from minisparse.sparsity.count import check_real, check_share, check_sparsity, check_whole
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.select import select, top_k
from minisparse.training.state import TrainState
from minisparse.weights.two_mask import TwoMaskWeight


def trained(theta: Array, used: Array, explore: float) -> Array:
    """B of equation (1), A = `used` and the share `explore` of all other entries; theta, used (out, in)."""
    return used | top_k(np.abs(theta), rounded(explore, int(np.count_nonzero(~used))), among=~used)


def penalty_gradient(theta: Array, used: Array, trained: Array, lam: float) -> Array:
    """Gradient of the penalty (3) in one layer; D is the layer's share of used entries."""
    density = np.count_nonzero(used) / used.size
    weight = np.where(used, lam, np.where(trained, lam / max(density, 1 / used.size), 0))
    return (weight * theta).astype(theta.dtype)


def two_masked(state: TrainState) -> dict[str, TwoMaskWeight]:
    """The weights this method put into the network, by layer name."""
    layers = state.network.prunable()
    return {n: layer.weight for n, layer in layers.items() if isinstance(layer.weight, TwoMaskWeight)}


def stop_frozen(state: TrainState) -> None:
    """Empty the optimiser's slots of weights outside B."""
    for name, weight in two_masked(state).items():
        source = np.where(weight.backward.ravel(), np.arange(weight.size), -1)
        state.optimizer.remap(f"{name}.weight", source)


@register("topkast", family="dynamic", paper="arXiv:2106.03517")
@dataclass(frozen=True)
class TopKAST(Learned):
    """Top-K always sparse training."""

    sparsity: float = setting(0.9, "share of prunable weights that are zero in the forward pass")
    explore: float = setting(0.5, "share of the entries not used that receive gradients all the same")
    decay: float = setting(1e-4, "lambda, strength of the exploration penalty")
    every: int = setting(1, "steps between two choices of what is used and trained")
    until: float = setting(1.0, "share of the run after which only what is used is trained")
    allocation: Allocation = setting(ERK(), "how the used weights are shared among layers")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_share(self.explore, "explore")
        check_real(self.decay, "decay", 0)
        check_whole(self.every, "every")
        check_share(self.until, "until")

    def substitute(self, name: str, weight: Weight, state: TrainState) -> Weight:
        return TwoMaskWeight(weight)

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        self.choose(state)

    def penalty(self, state: TrainState) -> float:
        """Equation (3)."""
        total = 0.0
        for weight in two_masked(state).values():
            theta = weight.theta
            push = penalty_gradient(theta.value, weight.gate, weight.backward, self.decay)
            theta.grad += push
            total += float((push * theta.value).sum()) / 2
        return total

    def update(self, state: TrainState) -> None:
        weights = two_masked(state)
        held = {name: weight.theta.value.copy() for name, weight in weights.items()}
        super().update(state)
        for name, weight in weights.items():  # weight decay acts on frozen weights too
            weight.theta.value[...] = np.where(weight.backward, weight.theta.value, held[name])
        stop_frozen(state)

    def after_update(self, state: TrainState) -> None:
        if state.step % self.every == 0:
            self.choose(state)

    def choose(self, state: TrainState) -> None:
        """Equation (1)."""
        weights = two_masked(state)
        scores = {name: np.abs(weight.theta.value) for name, weight in weights.items()}
        used = select(scores, layer_shapes(state.network), self.sparsity, self.allocation, Unstructured())
        state.rewire(used)
        explore = self.explore if state.step < self.until * state.horizon else 0.0
        for name, weight in weights.items():
            weight.backward = trained(weight.theta.value, used[name], explore)
        stop_frozen(state)
