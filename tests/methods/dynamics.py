"""Runs of dynamic methods, watched at every step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minisparse import data as datasets
from minisparse.methods.base import Method
from minisparse.methods.dynamic.rigl import exchange
from minisparse.nn import models
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD, Optimizer
from minisparse.nn.param import Array
from minisparse.training.run import train
from minisparse.training.state import TrainState
from tests.methods.problems import clusters, conv_net, descend, mlp, state_of


def network_of(kind: str, seed: int = 1) -> Network:
    rng = np.random.default_rng(seed)
    return conv_net(rng, np.float32) if kind == "conv" else mlp((6, 12, 9, 3), rng, dtype=np.float32)


def watched(
    method: Method,
    watch: Callable[[TrainState], None],
    kind: str = "mlp",
    epochs: int = 6,
    optimizer: Optimizer | None = None,
) -> None:
    """Train on three clusters, three steps an epoch; watch(state) is called before and after every step."""
    network = network_of(kind)
    data = clusters(np.random.default_rng(0), network.input_shape)
    optimizer = optimizer or SGD(0.9, weight_decay=1e-3)
    train(network, data, method, epochs=epochs, batch=16, optimizer=optimizer, progress=watch)


def positions(mask: Array) -> Array:
    """Ascending flat positions of the True entries."""
    return np.flatnonzero(mask)


def mask_of(flat: Array, shape: tuple[int, ...]) -> Array:
    """True at these flat positions, which ascend and do not repeat."""
    assert (np.diff(flat) > 0).all()
    mask = np.zeros(shape, dtype=bool)
    mask.reshape(-1)[flat] = True
    return mask


def spread(chosen: Array, mask: Array) -> Array:
    """A number for each True entry of mask, in order, in its place; 0 elsewhere."""
    full = np.zeros(mask.shape, dtype=chosen.dtype)
    full[mask] = chosen
    return full


def masked_exchange(weight: Array, grad: Array, mask: Array, k: int) -> Array:
    """RigL's exchange as a mask, from matrices."""
    return mask_of(exchange(positions(mask), weight[mask], [grad], k), mask.shape)


def counts_of(network: Network) -> dict[str, int]:
    return {name: layer.weight.kept for name, layer in network.prunable().items()}


def trained_state(method: Method, network: Network, seed: int = 0, horizon: int = 100) -> TrainState:
    """A state after setup and three optimiser steps, the gradient of a fourth in place."""
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((9, *network.input_shape)), rng.integers(0, network.outputs, 9)
    state = state_of(network, x, target, horizon=horizon, seed=seed)
    method.setup(state)
    for _ in range(3):
        descend(state)
        state.optimizer.step(network, 0.05)
    descend(state)
    return state


class Snapshot:
    """Masks, weights and momentum slots of a state at one moment."""

    def __init__(self, state: TrainState) -> None:
        layers = state.network.prunable()
        self.masks = state.network.masks()
        self.weights = {n: x.weight.dense().copy() for n, x in layers.items()}
        self.slots = {n: state.optimizer.slots[f"{n}.weight"]["u"].copy() for n in layers}

    def assert_moved_to(self, after: Snapshot) -> int:
        """Survivors keep value and slot, what is new or absent has none; the number of new entries."""
        new = 0
        for name, old in self.masks.items():
            mask = after.masks[name]
            entered = mask & ~old
            pairs = ((self.weights, after.weights), (self.slots, after.slots))
            for before, now in ((a[name], b[name]) for a, b in pairs):
                np.testing.assert_array_equal(now[mask & old], before[mask & old])
                assert not now[entered].any() and not now[~mask].any()
            new += int(entered.sum())
        return new


def assert_growth_is_silent(state: TrainState, before: Snapshot) -> None:
    """The loss is that of the network from which the new entries are missing."""
    value = descend(state)
    without = state.network.copy()
    for name, layer in without.prunable().items():
        layer.weight.rewire(layer.weight.mask & before.masks[name])
    assert value == descend(state_of(without, state.train_x, state.train_t))


def accuracy(method: Method, epochs: int = 10) -> float:
    """Mean test accuracy on the digits, two seeds."""
    data = datasets.load("digits")
    nets = [models.build("mlp:64-100-100-10", data, seed=seed) for seed in range(2)]
    runs = [train(net, data, method, epochs=epochs, seed=seed) for seed, net in enumerate(nets)]
    return float(np.mean([run.accuracy for run in runs]))
