"""Spartex: a sparse last layer of constant fan-in for thousands of classes, helped by a coarser objective.

N. Ullah, E. Schultheis, M. Lasby, Y. Ioannou, R. Babbar. Navigating Extremes: Dynamic Sparsity in Large
Output Spaces. NeurIPS 2024. arXiv:2411.03171; E. Schultheis, R. Babbar. Towards Memory-Efficient Training
for Extremely Large Output Spaces. ECML 2023. arXiv:2306.03725 (fixed fan-in)

Each of the o outputs reads k = floor(A / o) of the F features h, A = F o - round(sparsity F o); every other
layer stays as it is. Every `every` steps, after the optimiser's, until the share `until` of the run,

    the round(share A) weights of least |w| leave, and each output takes in as many others as it lost  (1)

with value 0: at random as in SET, those that just left included, or where |dL/dw| is largest. Through so few
weights little gradient reaches the layers below. A second head, dense and small, tells groups of classes
apart (meta-classes, `label_groups`), and its share of the loss falls to nothing:

    L = (1 - lambda_t) L_main + lambda_t L_meta,   L_meta = ce(V h + c, group of the class)            (2)
    lambda_t = lambda/2 (1 + cos(pi t / T)),   T the share `cutoff` of the run, 0 from there on        (3)

Departures: outputs have k different inputs; the authors' kernels may read one twice. (1) counts exactly, and
shares do not fall; the authors also drop below a threshold that does. One label per sample and cross-entropy
instead of many and sums of sigmoids. V is trained by SGD with momentum 0.9 at the run's rate, c too. For any
other loss than cross-entropy, or two classes, there is no second head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minisparse.errors import MethodError
from minisparse.methods.base import Method, rounded, setting
from minisparse.methods.dynamic.equal_groups import GROWTH, enter_largest, enter_random, leave
from minisparse.methods.dynamic.label_groups import class_means, label_groups
from minisparse.methods.dynamic.rules import cosine
from minisparse.methods.dynamic.srigl import constant_fan_in, has_constant_fan_in
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.param import Array
from minisparse.nn.residual import Sequence
from minisparse.sparsity.count import check_choice, check_share, check_sparsity, check_whole, kept_count
from minisparse.training.state import TrainState

GROUPS = "spartex: meta-class of each class"
HEAD, SLOPE, SPEED = (f"spartex: meta-classifier, {what}" for what in ("value", "gradient", "momentum"))
MOMENTUM = 0.9


def share_of_meta(t: float, end: float, first: float) -> float:
    """lambda_t of equation (3), T = end."""
    return cosine(first, 0.0, t / end) if t < end else 0.0


def meta_gradients(h: Array, v: Array, c: Array, group: Array) -> tuple[float, Array, Array, Array]:
    """(L_meta, dL_meta/dh, dV, dc) of (2); h (n, F), v (g, F), c (g,), group (n,)."""
    loss = CrossEntropy()
    value = float(loss.value(h @ v.T + c, group))
    dz = loss.grad()
    return value, dz @ v, dz.T @ h, dz.sum(axis=0)


def parts(state: TrainState) -> tuple[Sequence, str, LinearLayer]:
    """The layers below the last, and its name and itself; MethodError if it has no weight."""
    layers = state.network.layers
    name, last = list(layers.items())[-1]
    if not isinstance(last, LinearLayer):
        raise MethodError(
            f"method Spartex: got network '{state.network.name}' with last layer '{name}', expected a linear "
            "layer there. Choose another --model."
        )
    return Sequence({key: layer for key, layer in layers.items() if key != name}), name, last


@register("spartex", family="dynamic", paper="arXiv:2411.03171")
@dataclass(frozen=True)
class Spartex(Method):
    """Constant fan-in in a large last layer, with an auxiliary objective."""

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})

    sparsity: float = setting(0.9, "share of the last layer's weights that are zero; others are not pruned")
    growth: str = setting("random", "where weights enter: random (as in SET) or gradient (as in RigL)")
    share: float = setting(0.15, "share of the last layer's weights exchanged each time")
    every: int = setting(100, "steps between exchanges")
    until: float = setting(0.66, "share of the run after which the topology stays")
    auxiliary: float = setting(0.4, "lambda, share of the meta-classifier in the loss at the start")
    cutoff: float = setting(0.12, "share of the run after which that share is 0")
    groups: int = setting(0, "meta-classes; 0 for the square root of the number of classes")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_choice(self.growth, "growth", GROWTH)
        for name in ("share", "until", "auxiliary", "cutoff"):
            check_share(getattr(self, name), name)
        check_whole(self.every, "every")
        check_whole(self.groups, "groups", 0)

    def setup(self, state: TrainState) -> None:
        _, name, last = parts(state)
        budget = kept_count(last.weight.size, self.sparsity)
        if not has_constant_fan_in(last.weight, budget):
            start = constant_fan_in(last.weight.shape, budget, state.rng(f"topology {name}"))
            state.rewire_flat({name: start})
        self.add_head(state)

    def add_head(self, state: TrainState) -> None:
        """Groups of classes, and V = 0, c = 0; none where (2) has no meaning."""
        classes, features = parts(state)[2].weight.shape
        if not isinstance(state.loss, CrossEntropy) or classes < 3 or self.auxiliary == 0:
            return
        count = min(self.groups or max(2, round(classes**0.5)), classes)
        means = class_means(state.train_x, state.train_t, classes)
        state.memory[GROUPS] = {"group": label_groups(means, count, state.rng("meta-classes"))}
        dtype = state.network.dtype
        shapes = {"V": (count, features), "c": (count,)}
        for kind in (HEAD, SLOPE, SPEED):
            state.memory[kind] = {key: np.zeros(shape, dtype) for key, shape in shapes.items()}

    def penalty(self, state: TrainState) -> float:
        """Turn the loss and all gradients into those of (2); what it adds to the loss."""
        share = self.share_of_meta(state)
        if share == 0 or not isinstance(state.loss, CrossEntropy):
            return 0.0
        below, _, last = parts(state)
        head, group = state.memory[HEAD], state.memory[GROUPS]["group"]
        h = last.rows[:, 0]
        value, dh, dv, dc = meta_gradients(h, head["V"], head["c"], group[state.loss.target])
        state.memory[SLOPE] = {"V": share * dv, "c": share * dc}
        for p in last.params().values():
            p.grad *= 1 - share
        below.backward((1 - share) * last.pull(last.corows[:, 0]) + share * dh, need_dx=False)
        return share * (value - state.value)

    def share_of_meta(self, state: TrainState) -> float:
        """lambda_t; 0 where there is no second head."""
        end = self.cutoff * state.horizon
        return share_of_meta(state.step, end, self.auxiliary) if HEAD in state.memory else 0.0

    def update(self, state: TrainState) -> None:
        super().update(state)
        if self.share_of_meta(state) == 0:
            return
        for key, speed in state.memory[SPEED].items():
            speed *= MOMENTUM
            speed += state.memory[SLOPE][key]
            state.memory[HEAD][key] -= state.lr * speed

    def after_update(self, state: TrainState) -> None:
        _, name, last = parts(state)
        if self.due(state) and last.weight.kept < last.weight.size:
            state.rewire_flat({name: self.rewired(name, last, state)})

    def due(self, state: TrainState) -> bool:
        """Whether topology changes now."""
        t = state.step
        return 0 < t < self.until * state.horizon and t % self.every == 0 and self.share > 0

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        """Positions after (1)."""
        weight = layer.weight
        out, inputs = weight.shape
        stay, lost = leave(weight.flat, weight.values, rounded(self.share, weight.kept), out, inputs)
        if self.growth == "random":
            return enter_random(stay, lost, inputs, state.rng(f"regrow {name}"))
        return enter_largest(stay, lost, inputs, layer.gradient_blocks())
