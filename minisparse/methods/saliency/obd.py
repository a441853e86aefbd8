"""Optimal Brain Damage: remove the weights whose removal raises the loss least, to second order.

Y. LeCun, J. S. Denker, S. A. Solla. Optimal Brain Damage. NIPS 1989.

With h the diagonal of the Hessian, other second derivatives neglected, setting w_q to zero changes the
loss at a minimum by

    s_q = h_q w_q^2 / 2                                                                     (1)

and away from a minimum, with g = dL/dw, by

    s_q = -w_q g_q + h_q w_q^2 / 2                                                          (2)

which `taylor` asks for. Scores are in units of loss, so that layers are compared as they are.

h comes from one of the engines of `curvature`: exact; ggn, the Gauss-Newton part of it; lecun, the paper's
own recursion, which also neglects second derivatives between units; hutchinson, by random probes. Only ggn
is never negative. A negative s says that removal lowers the loss; the larger it is, the less the quadratic
model is to be trusted, and deleting by it again and again follows one direction: by default its size counts.

Departures: h is taken over calibration samples in evaluation mode. The paper retrains and repeats after
each few percent: use a gradual schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minisparse.curvature.gradient import gradient
from minisparse.curvature.modes import MODES, hessian_diagonal
from minisparse.methods.base import Scored, setting
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_choice, check_flag, check_whole
from minisparse.training.state import TrainState

NEGATIVE: dict[str, Callable[[Array], Array]] = {
    "absolute": np.abs,
    "clip": lambda s: np.maximum(s, 0),
    "keep": lambda s: s,
}


def obd_saliency(weight: Array, curvature: Array) -> Array:
    """Equation (1); any one shape."""
    return curvature * weight * weight / 2


def taylor_saliency(weight: Array, grad: Array, curvature: Array) -> Array:
    """Equation (2); any one shape."""
    return obd_saliency(weight, curvature) - weight * grad


@register("obd", family="saliency", paper="LeCun et al., NIPS 1989")
@dataclass(frozen=True)
class OBD(Scored):
    """Keep the weights of largest second-order saliency."""

    diagonal: str = setting("ggn", "engine of the Hessian's diagonal: exact, ggn, lecun or hutchinson")
    taylor: bool = setting(False, "add the first-order term, for networks not at a minimum")
    negative: str = setting("absolute", "what a negative saliency counts: absolute, clip or keep")
    samples: int = setting(512, "training samples the Hessian is computed from")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.diagonal, "obd diagonal", tuple(MODES))
        check_choice(self.negative, "obd negative", tuple(NEGATIVE))
        check_flag(self.taylor, "obd taylor")
        check_whole(self.samples, "obd samples")

    def score(self, state: TrainState) -> dict[str, Array]:
        network, loss = state.network, state.loss
        x, target = state.calibration(self.samples)
        settings: dict[str, dict[str, Any]] = {"hutchinson": {"rng": state.rng("hutchinson")}}
        own = settings.get(self.diagonal, {})
        h = hessian_diagonal(network, loss, x, target, self.diagonal, **own)
        weights = {n: x.weight.dense() for n, x in network.prunable().items()}
        s = {n: obd_saliency(w, h[f"{n}.weight"]) for n, w in weights.items()}
        if self.taylor:
            g = gradient(network, loss, x, target)
            s = {n: taylor_saliency(w, g[f"{n}.weight"], h[f"{n}.weight"]) for n, w in weights.items()}
        return {name: NEGATIVE[self.negative](saliency) for name, saliency in s.items()}
