"""GraSP: before training, remove the weights whose removal leaves the largest gradient norm.

C. Wang, G. Zhang, R. Grosse. Picking Winning Tickets Before Training by Preserving Gradient Flow. ICLR
2020. arXiv:2002.07376

With g the gradient and H the Hessian of the loss at initialisation, removing weight q (the step -w_q e_q)
changes the squared gradient norm by

    |g(w - w_q e_q)|^2 - |g|^2 = 2 S_q + O(w_q^2),     S = -w (H g)                         (1)

A large positive S raises the gradient norm when the weight goes, a negative one lowers it: the highest S
leave. Hence, for scores of which the largest stay,

    score = -S = w (H g)                                                                    (2)

The sign is a known trap. The paper and its code keep the S below a threshold, as here; codes that keep the
largest S remove the other end of the ranking, which is GraSP inverted, and |S| is a third method. A weight
that carries no signal has S = 0 and stands between the ends, not at one of them. On a quadratic loss with
Hessian A and minimum 0, g = A w and S = -w (A A w): where A is diagonal every S is negative, and weights
leave in the order of their |a_i w_i|, the smallest first.

The loss is taken of the outputs divided by a temperature T = 200, as published. That is no mere change of
scale: the softmax is then near uniform and the loss nearly linear in the outputs, so that of

    H = J^T (H_loss / T^2) J + sum_k (dloss/dy_k / T) d2y_k/dw2                             (3)

the first term, the curvature of the loss, vanishes beside the second, that of the network itself.

Departures: g and H are of the probe sample's mean loss in evaluation mode, over the weights alone (as in the
authors' code), both from one batch; the exact product H g is Pearlmutter's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minisparse.curvature.gradient import gradient
from minisparse.curvature.hvp import hvp
from minisparse.methods.base import Scored, setting
from minisparse.methods.registry import register
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_real
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.training.state import TrainState


class Tempered(Loss):
    """L(y / T): value, derivatives and samples of another loss at divided outputs."""

    name = "tempered"

    def __init__(self, loss: Loss, temperature: float) -> None:
        """temperature T > 0."""
        self.loss, self.temperature = loss, temperature

    def value(self, y: Array, target: Array) -> float:
        return self.loss.value(y / self.temperature, target)

    def grad(self) -> Array:
        return self.loss.grad() / self.temperature

    def rgrad(self, ry: Array) -> Array:
        return self.loss.rgrad(ry / self.temperature) / self.temperature

    def sqrt_hessian(self) -> Array:
        return self.loss.sqrt_hessian() / self.temperature

    def sample(self, rng: np.random.Generator) -> Array:
        return self.loss.sample(rng) / self.temperature


def gradient_flow(weights: Mapping[str, Array], hg: Mapping[str, Array]) -> dict[str, Array]:
    """S of equation (1) for weights and H g of any shapes, by layer; the highest are removed."""
    return {name: -weight * hg[name] for name, weight in weights.items()}


def hessian_gradient(network: Network, loss: Loss, x: Array, target: Array) -> dict[str, Array]:
    """H g (out, in) by layer, g being the gradient of the weights, 0 for all other parameters."""
    names = {f"{name}.weight": name for name in network.prunable()}
    g = {key: a for key, a in gradient(network, loss, x, target).items() if key in names}
    product = hvp(network, loss, x, target, g)
    return {name: product[key] for key, name in names.items()}


@register("grasp", family="initial", paper="arXiv:2002.07376")
@dataclass(frozen=True)
class GraSP(Scored):
    """Single-shot pruning that preserves the gradient flow."""

    schedule: Schedule = setting(OneShot(0.0), "when to prune, and how far each time")
    temperature: float = setting(200.0, "T, what outputs are divided by")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.temperature, "grasp temperature", 1e-6)

    def score(self, state: TrainState) -> dict[str, Array]:
        network = state.network.astype(np.float64)
        loss = Tempered(state.loss, self.temperature)
        hg = hessian_gradient(network, loss, state.probe_x.astype(np.float64), state.probe_t)
        weights = {name: layer.weight.dense() for name, layer in network.prunable().items()}
        return {name: -s for name, s in gradient_flow(weights, hg).items()}
