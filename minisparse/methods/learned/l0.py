"""L0: random gates on weights or units, and a price for the expected number of open ones.

C. Louizos, M. Welling, D. P. Kingma. Learning Sparse Neural Networks through L0 Regularization. ICLR 2018.
arXiv:1712.01312

    L = E_z[mean loss of theta z] + 1/N sum_g (lambda |g| + wd/2 ||theta_g||^2) P(z_g > 0)  (1)
    log a_g ~ N(log((1 - p) / p), 0.01^2) at the start, clipped to [log 0.01, log 100]     (2)

over gates g, |g| the number of weights behind one. The distribution of z and its derivative are in
`weights/hard_concrete.py`. Gates belong to single weights or, by `unit`, to what feeds a layer (`column`; in
a convolution a channel with all its taps), or to what it computes (`row`: neurons, filters). The sparsity is
found, not asked: at the end gates that are 0 in evaluation take their weights along.

The price has a gradient of size 1/N, which plain descent follows only with a large `rate`; with Adam, which
the authors use, 10 will do. Where a gate is saturated only the price moves it, which is what the clipping is
for. Units carry the price of all their weights and want a smaller lambda, about 0.1.

Departures: theta starts divided by the gates of evaluation, so that the network is the same. p = 0.2 for
all layers by default (the authors use 0.5 for hidden layers; on a deep narrow network the noise of half-open
gates on single weights drowns the signal). Parameters are not averaged for evaluation (the authors keep an
average of rate 0.999). Biases have no price; in the authors' code theirs has the wrong sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from minisparse.methods.base import Learned, setting
from minisparse.methods.registry import register
from minisparse.nn.weight import Weight
from minisparse.sparsity.count import check_choice, check_real, check_share
from minisparse.sparsity.pattern import InChannel, Pattern, Row, Unstructured
from minisparse.sparsity.shape import LayerShape
from minisparse.training.state import TrainState
from minisparse.weights.hard_concrete import HardConcreteWeight, opened

UNITS: dict[str, Pattern] = {"weight": Unstructured(), "column": InChannel(), "row": Row()}
LOWEST, HIGHEST = np.log(0.01), np.log(100.0)


@register("l0", family="learned", paper="arXiv:1712.01312")
@dataclass(frozen=True)
class L0(Learned):
    """L0 regularisation with hard-concrete gates."""

    strength: float = setting(1.0, "lambda, the price of an open gate for each weight behind it")
    unit: str = setting("weight", "what has a gate: weight, column (input unit) or row (neuron, filter)")
    dropout: float = setting(0.2, "p, which sets how far gates are open at the start")
    weight_decay: float = setting(0.0, "wd, decay of weights in proportion to the chance they are present")
    rate: float = setting(300.0, "learning rate of the gates, as a multiple of the weights'")

    def __post_init__(self) -> None:
        check_real(self.strength, "strength", 0)
        check_choice(self.unit, "unit", tuple(UNITS))
        check_share(self.dropout, "dropout")
        check_real(self.weight_decay, "weight_decay", 0)
        check_real(self.rate, "rate", 0)

    def substitute(self, name: str, weight: Weight, state: TrainState) -> Weight:
        shape, pattern = LayerShape(*weight.geometry), UNITS[self.unit]
        p = np.clip(self.dropout, 1e-6, 1 - 1e-6)
        noise = state.rng(f"gates of {name}").normal(0, 0.01, pattern.sizes(shape).shape)
        log_a = np.clip(np.log((1 - p) / p) + noise, LOWEST, HIGHEST)
        spread, total = (partial(f, shape=shape) for f in (pattern.spread, pattern.total))
        return HardConcreteWeight(weight, log_a, spread, total, self.rate)

    def penalty(self, state: TrainState) -> float:
        """Second term of (1)."""
        scale, value = 1 / len(state.train_x), 0.0
        for layer in state.network.prunable().values():
            shape, pattern = LayerShape(*layer.weight.geometry), UNITS[self.unit]
            theta, gates = (layer.weight.params()[key] for key in ("weight", "log_a"))
            chance, size = opened(gates.value), pattern.sizes(shape).astype(gates.value.dtype)
            norms = pattern.total(theta.value**2, shape)
            price = scale * (self.strength * size + self.weight_decay / 2 * norms)
            gates.grad += price * chance * (1 - chance)
            theta.grad += scale * self.weight_decay * theta.value * pattern.spread(chance, shape)
            value += float((price * chance).sum())
        return value

    def after_update(self, state: TrainState) -> None:
        for layer in state.network.prunable().values():
            log_a = layer.weight.params()["log_a"].value
            np.clip(log_a, LOWEST, HIGHEST, out=log_a)
