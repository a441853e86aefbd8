"""Subspace: train d coordinates along random directions in which all parameters move at once.

C. Li, H. Farkhoor, R. Liu, J. Yosinski. Measuring the Intrinsic Dimension of Objective Landscapes. ICLR 2018.
arXiv:1804.08838

    theta = theta_0 + P z,      P (D, d) fixed and random, z = 0 at the start                (1)
    dL/dz = P^T dL/dtheta                                                                  (2)

theta are all parameters of the network one after another, biases and normalisation included; theta_0 is the
usual start. The optimiser of the run steps z and nothing else. The smallest d that reaches 90 % of the
accuracy of full training is the intrinsic dimension of the task, d_int90 (`experiments/theory/intrinsic.py`).

Kinds of P are in `projections.py`. Their columns have norm 1 in the mean: columns of Gaussians as drawn
would multiply the learning rate by D. With an orthonormal square P, gradient descent on z is gradient descent
on theta, also with momentum, but not with Adam, which depends on the axes. Plain steps along an orthonormal
P are -lr P P^T g, the gradient's projection.

The optimiser's weight decay acts on z ("indirect" in the authors' code), so it draws theta to theta_0.
Entries absent from a network that is already sparse stay absent: their rows of P are taken as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from minisparse.curvature import tree as trees
from minisparse.errors import MethodError
from minisparse.methods.base import Method, setting
from minisparse.methods.registry import register
from minisparse.methods.subspace.projections import PROJECTIONS, Projection
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight
from minisparse.sparsity.count import check_choice, check_whole
from minisparse.training.state import TrainState

MEMORY, PARTS = "subspace", "subspace: parts of P"


def coordinates(z: Array, grad: Array) -> Network:
    """z (d) as the one parameter of a linear form, for an optimiser to step in place; grad (d)."""
    weight = MaskedWeight(z[None])
    weight.param.grad = grad[None]
    return Network({"z": Linear(weight)}, (z.size,))


def move_to(network: Network, theta: Array) -> None:
    """Set all parameters from one vector (D); absent entries stay 0."""
    params = network.params()
    for name, part in trees.unflatten(theta, {n: p.value for n, p in params.items()}).items():
        params[name].value[...] = part
    for layer in network.prunable().values():
        if layer.weight.kept < layer.weight.size:
            layer.weight.rewire(layer.weight.mask)


@register("subspace", family="subspace", paper="arXiv:1804.08838")
@dataclass(frozen=True)
class Subspace(Method):
    """Random subspace training."""

    demo: ClassVar[Mapping[str, Any]] = {"dimension": 16}

    dimension: int = setting(200, "d, the number of coordinates that are trained")
    projection: str = setting("sparse", "P: dense, orthonormal, sparse, fastfood or axes")

    def __post_init__(self) -> None:
        check_whole(self.dimension, "dimension")
        check_choice(self.projection, "projection", tuple(PROJECTIONS))

    def check(self, network: Network) -> None:
        super().check(network)
        size = sum(p.value.size for p in network.params().values())
        if self.dimension > size:
            raise MethodError(
                f"subspace dimension: got {self.dimension}, expected at most {size}, all parameters of "
                f"network '{network.name}'. Choose a smaller --dimension."
            )

    @property
    def kind(self) -> Projection:
        """P as functions."""
        return PROJECTIONS[self.projection]

    def setup(self, state: TrainState) -> None:
        start = trees.flatten(trees.values(state.network))
        parts = self.kind.draw(start.size, self.dimension, state.rng("subspace"))
        floats = {k: a.astype(start.dtype) for k, a in parts.items() if a.dtype.kind == "f"}
        z = start[: self.dimension] * 0
        state.memory |= {MEMORY: {"start": start, "z": z}, PARTS: parts | floats}

    def update(self, state: TrainState) -> None:
        parts, (start, z) = state.memory[PARTS], state.memory[MEMORY].values()
        g = trees.flatten({name: p.grad for name, p in state.network.params().items()})
        state.optimizer.step(coordinates(z, self.kind.restrict(parts, g, z.size)), state.lr)
        move_to(state.network, start + self.kind.expand(parts, z, start.size))
