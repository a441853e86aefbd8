"""Small networks, data and states for the tests of methods."""

from __future__ import annotations

import numpy as np

from minisparse.nn.loss import LOSSES
from minisparse.nn.lr import Constant
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD, Optimizer
from minisparse.testing.problems import IMAGE, chain, clusters, conv_net, convolution, mlp
from minisparse.training.state import TrainState

__all__ = [
    "IMAGE", "Array", "chain", "clusters", "conv_net", "convolution", "descend", "identity_problem",
    "mlp", "state_of",
]  # fmt: skip

Array = np.ndarray


def state_of(
    network: Network,
    x: Array,
    target: Array,
    loss: str = "cross-entropy",
    horizon: int = 20,
    per_epoch: int = 5,
    seed: int = 0,
    optimizer: Optimizer | None = None,
) -> TrainState:
    """A state before step 0 whose training data and probe are the given samples."""
    return TrainState(
        network, optimizer or SGD(), LOSSES[loss](), Constant(0.1), seed, horizon, per_epoch,
        x, target, x, target,
    )  # fmt: skip


def descend(state: TrainState) -> float:
    """Forward and backward pass on the state's samples in evaluation mode; the loss."""
    value = float(state.loss.value(state.network.forward(state.train_x), state.train_t))
    state.network.backward(state.loss.grad(), need_dx=False)
    return value


def identity_problem(target: object) -> tuple[Array, Array]:
    """Samples x with X'X = n I and targets y = X w*: the mse gradient of a row w is w - w*."""
    t = np.array(target, dtype=np.float64)
    x = np.sqrt(len(t)) * np.eye(len(t))
    return x, (x @ t)[:, None]
