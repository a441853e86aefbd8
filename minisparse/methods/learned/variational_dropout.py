"""Variational dropout: weights that carry more noise than signal leave; the sparsity is found, not asked.

D. Molchanov, A. Ashukha, D. Vetrov. Variational Dropout Sparsifies Deep Neural Networks. ICML 2017.
arXiv:1701.05369
T. Gale, E. Elsen, S. Hooker. The State of Sparsity in Deep Neural Networks. 2019. arXiv:1902.09574 (the
coefficient c)

Each weight is drawn from N(theta, sigma^2), alpha = sigma^2 / theta^2, and the loss of N samples becomes

    L = mean cross-entropy + c r_t / N  sum KL(alpha)                                      (1)
    r_t = 0 up to share t0 of the run, then linear to 1 at share t1                        (2)
    mask = log alpha < threshold                                                           (3)

where c = 1 is the variational bound and 3 means a dropout rate of 0.95. The equations of the noisy layer, of
the divergence and of their gradients are in `weights/variational.py`.

A weight below 0.0015 counts as absent already at log sigma^2 = -10.

Departures: log alpha is clipped and e is added to theta^2 everywhere (the authors' layers and scripts
differ among themselves). Where it is clipped it has no gradient, and a weight above 0.4 would stay for ever,
whatever the data say; so log sigma^2 is put back to the border after each step. Means past the threshold stay
in the training pass. No weight decay on theta. The authors use Adam; descent with momentum does as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minisparse.errors import UsageError
from minisparse.methods.base import Learned, setting
from minisparse.methods.registry import register
from minisparse.nn.weight import Weight
from minisparse.sparsity.count import check_real, check_share
from minisparse.training.state import TrainState
from minisparse.weights.variational import (
    TINY,
    VariationalWeight,
    divergence,
    divergence_slope,
    log_alpha,
    projected,
)  # fmt: skip


def warm_up(progress: float, begin: float, end: float) -> float:
    """r_t of equation (2) at a share of the run; a step where begin = end."""
    if progress >= end:
        return 1.0
    return max(0.0, progress - begin) / (end - begin) if progress > begin else 0.0


@register("variational-dropout", family="learned", paper="arXiv:1701.05369")
@dataclass(frozen=True)
class VariationalDropout(Learned):
    """Sparsification by variational dropout."""

    demo: ClassVar[Mapping[str, Any]] = {"begin": 0.0, "end": 0.3, "initial": -3.0}

    strength: float = setting(1.0, "c, the weight of the divergence; 1 is the variational bound")
    begin: float = setting(0.025, "share of the run before the divergence counts")
    end: float = setting(0.1, "share of the run from which it counts in full")
    threshold: float = setting(3.0, "log alpha from which a weight is absent")
    initial: float = setting(-10.0, "log sigma^2 at the start")
    rate: float = setting(1.0, "learning rate of log sigma^2, as a multiple of the weights'")

    def __post_init__(self) -> None:
        check_real(self.strength, "strength", 0)
        check_real(self.threshold, "threshold", -8)
        check_real(self.initial, "initial", -100)
        check_real(self.rate, "rate", 0)
        if check_share(self.begin, "begin") > check_share(self.end, "end"):
            raise UsageError(
                f"warm-up is empty: got begin={self.begin}, end={self.end}, expected begin <= end."
            )

    def substitute(self, name: str, weight: Weight, state: TrainState) -> Weight:
        return VariationalWeight(weight, self.initial, self.threshold, self.rate)

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        self.project(state)

    def after_update(self, state: TrainState) -> None:
        self.project(state)

    def project(self, state: TrainState) -> None:
        """Keep log alpha where it has a gradient."""
        for layer in state.network.prunable().values():
            own = layer.weight.params()
            noise = own["log_sigma2"].value
            noise[...] = projected(own["weight"].value, noise)

    def penalty(self, state: TrainState) -> float:
        """Second term of (1)."""
        scale = self.strength * warm_up(state.step / state.horizon, self.begin, self.end) / len(state.train_x)
        value = 0.0
        for layer in state.network.prunable().values() if scale else ():
            own = layer.weight.params()
            theta, noise = own["weight"], own["log_sigma2"]
            la, free = log_alpha(theta.value, noise.value)
            pull = scale * np.where(free, divergence_slope(la), 0)
            noise.grad += pull
            theta.grad -= pull * 2 * theta.value / (theta.value**2 + TINY)
            value += scale * float(divergence(la).sum())
        return value
