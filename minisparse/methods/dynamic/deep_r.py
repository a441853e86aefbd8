"""Deep R: a weight whose sign would change leaves, and a dormant one enters at random in its place.

G. Bellec, D. Kappel, W. Maass, R. Legenstein. Deep Rewiring: Training very sparse deep networks. ICLR 2018.
arXiv:1711.05136

Every connection has a fixed sign s and a parameter theta; K of them are active, the others dormant:

    w = s theta if active, 0 if dormant                                                    (1)
    theta <- theta - eta (s dL/dw + alpha) + sqrt(2 eta T) nu,   nu ~ N(0, 1)              (2)

for the active ones: gradient descent with an L1 drift, at temperature T. Where (2) makes theta negative the
connection becomes dormant, and as many, drawn uniformly among all that are dormant then, become active with
theta = 0. A weight thus changes its sign never, but by leaving and entering again.

Signs are those of the initial weights. A theta of exactly 0 is active. An entry that leaves and enters at
once starts at 0 like any other, and with empty slots.

Departures: nothing is stored of dormant connections, so one that becomes active draws a sign, as in the
authors' code for sparse tensors; the paper's signs are fixed for good. The step of (2) is that of the run's
optimiser, s alpha being added to the gradient; plain gradient descent gives (2) as it stands. K is a layer's
own; the paper can also share it among layers. A layer without dormant weights has none to exchange and is
trained without signs, drift and noise. alpha and T are the authors' code's, whose noise of 1e-5 eta is
T = 2.5e-11 at its eta = 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from minisparse.methods.base import DynamicSparse, setting
from minisparse.methods.dynamic.rules import grow_random
from minisparse.methods.registry import register
from minisparse.nn.layer import LinearLayer
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_real
from minisparse.training.state import TrainState

SIGNS = "deep_r: sign of each connection"


def signs(weight: Array, rng: Generator) -> Array:
    """s, 1 or -1: the sign of each weight (kept,), drawn where the weight is 0."""
    drawn = np.where(rng.random(weight.shape) < 0.5, -1, 1)
    return np.where(weight == 0, drawn, np.sign(weight)).astype(weight.dtype)


def noise(count: int, eta: float, temperature: float, rng: Generator) -> Array:
    """Last term of equation (2) for `count` active connections."""
    return np.sqrt(2 * eta * temperature) * rng.standard_normal(count)


def active(weight: Array, sign: Array) -> Array:
    """Who of the present connections has theta = s w >= 0; weight, sign (kept,)."""
    return sign * weight >= 0


def carried(sign: Array, stay: Array, now: Array, rng: Generator) -> Array:
    """Signs at the positions `now`: at those of `stay` the given ones, at all others drawn."""
    carried = signs(np.zeros(now.size, dtype=sign.dtype), rng)
    carried[np.searchsorted(now, stay)] = sign
    return carried


def sparse_layers(state: TrainState) -> dict[str, LinearLayer]:
    """Prunable layers with dormant weights."""
    layers = state.network.prunable()
    return {name: x for name, x in layers.items() if x.weight.kept < x.weight.size}


@register("deep-r", family="dynamic", paper="arXiv:1711.05136")
@dataclass(frozen=True)
class DeepR(DynamicSparse):
    """Deep rewiring."""

    l1: float = setting(1e-5, "alpha, drift of active weights towards 0")
    temperature: float = setting(2.5e-11, "T, strength of the random walk of active weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.l1, "l1", 0)
        check_real(self.temperature, "temperature", 0)

    def setup(self, state: TrainState) -> None:
        super().setup(state)
        layers = state.network.prunable()
        state.memory[SIGNS] = {
            name: signs(layer.weight.values, state.rng(f"sign {name}")) for name, layer in layers.items()
        }

    def penalty(self, state: TrainState) -> float:
        """alpha times the sum of theta; adds its gradient s alpha."""
        total = 0.0
        for name, layer in sparse_layers(state).items():
            weight, sign = layer.weight, state.memory[SIGNS][name]
            total += float((sign * weight.values).sum())
            for key, drift in weight.place(self.l1 * sign).items():
                weight.params()[key].grad += drift
        return self.l1 * total

    def update(self, state: TrainState) -> None:
        super().update(state)
        if self.temperature == 0:
            return
        for name, layer in sparse_layers(state).items():
            weight, rng = layer.weight, state.rng(f"temperature {name}")
            shaken = weight.values + noise(weight.kept, state.lr, self.temperature, rng)
            for key, value in weight.place(shaken).items():
                weight.params()[key].value[...] = value

    def due(self, state: TrainState) -> bool:
        return True

    def rewired(self, name: str, layer: LinearLayer, state: TrainState) -> Array:
        weight = layer.weight
        stay = weight.flat[active(weight.values, state.memory[SIGNS][name])]
        return grow_random(stay, weight.size, weight.kept - stay.size, state.rng(f"regrow {name}"))

    def exchange_all(self, state: TrainState) -> bool:
        layers, sign = sparse_layers(state), state.memory[SIGNS]
        alive = {name: active(layer.weight.values, sign[name]) for name, layer in layers.items()}
        if all(living.all() for living in alive.values()):
            return False
        now = {name: self.rewired(name, layer, state) for name, layer in layers.items()}
        stay = {name: layer.weight.flat[alive[name]] for name, layer in layers.items()}
        for name, living in alive.items():
            rng = state.rng(f"sign {name}")
            sign[name] = carried(sign[name][living], stay[name], now[name], rng)
        state.rewire_flat(stay)  # twice, for what leaves and enters at once starts anew
        state.rewire_flat(now)
        return True
