"""Small networks, data and states for the tests of methods."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from minisparse.data.dataset import Dataset
from minisparse.nn.activation import Activation
from minisparse.nn.conv import Conv2d
from minisparse.nn.layer import Layer
from minisparse.nn.linear import Linear
from minisparse.nn.loss import LOSSES
from minisparse.nn.lr import Constant
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm2d
from minisparse.nn.optim import SGD, Optimizer
from minisparse.nn.pool import Flatten, MaxPool2d
from minisparse.nn.residual import Residual, Sequence
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.training.state import TrainState

Array = np.ndarray
IMAGE = (2, 6, 6)


def chain(*matrices: object, activation: str = "relu", biases: bool = False) -> Network:
    """Linear layers fc1, fc2, ... with these matrices (out, in), an activation between them; float64."""
    layers: dict[str, Layer] = {}
    for k, matrix in enumerate(matrices, 1):
        value = np.array(matrix, dtype=np.float64)
        layers[f"fc{k}"] = Linear(MaskedWeight(value), np.zeros(len(value)) if biases else None)
        if k < len(matrices):
            layers[f"act{k}"] = Activation(activation)
    return Network(layers, (np.shape(matrices[0])[1],))


def mlp(
    widths: tuple[int, ...],
    rng: Generator,
    activation: str = "relu",
    biases: bool = True,
    dtype: type = np.float64,
) -> Network:
    """`chain` with He-normal matrices; biases, if any, are normal and not 0."""
    shapes = zip(widths[1:], widths, strict=False)
    network = chain(
        *(rng.standard_normal(shape) * np.sqrt(2 / shape[1]) for shape in shapes),
        activation=activation,
        biases=biases,
    )
    for layer in network.prunable().values():
        if layer.bias is not None:
            layer.bias.set(0.3 * rng.standard_normal(len(layer.bias.value)))
    return network.astype(dtype)


def convolution(rng: Generator, channels: int, out: int, bias: bool = False) -> Conv2d:
    """3x3, padded, He-normal, float64."""
    value = rng.standard_normal((out, 9 * channels)) * np.sqrt(2 / (9 * channels))
    weight = MaskedWeight(value, (out, channels, 3, 3))
    return Conv2d(weight, Window.of(3, padding=1), 0.3 * rng.standard_normal(out) if bias else None)


def conv_net(rng: Generator, dtype: type = np.float64, width: int = 4) -> Network:
    """Convolution, BatchNorm, residual block, max pooling, linear layer; input (2, 6, 6), 3 outputs."""
    inputs = 9 * width
    branch: dict[str, Layer] = {
        "conv1": convolution(rng, width, width),
        "bn1": BatchNorm2d(width),
        "relu": Activation("relu"),
        "conv2": convolution(rng, width, width),
        "bn2": BatchNorm2d(width),
    }
    layers: dict[str, Layer] = {
        "conv": convolution(rng, 2, width),
        "bn": BatchNorm2d(width),
        "relu": Activation("relu"),
        "block": Residual(Sequence(branch)),
        "relu2": Activation("relu"),
        "pool": MaxPool2d(Window.of(2, 2)),
        "flatten": Flatten(),
        "fc": Linear(MaskedWeight(rng.standard_normal((3, inputs)) * np.sqrt(2 / inputs)), np.zeros(3)),
    }
    return Network(layers, IMAGE, "small conv").astype(dtype)


def clusters(
    rng: Generator, shape: tuple[int, ...], classes: int = 3, train: int = 48, test: int = 18
) -> Dataset:
    """One noisy pattern per class; float32."""
    centres = rng.standard_normal((classes, *shape))
    parts = []
    for n in (train, test):
        y = rng.permutation(np.arange(n) % classes)
        parts += [(centres[y] + 0.7 * rng.standard_normal((n, *shape))).astype(np.float32), y]
    return Dataset("clusters", *parts, classes)


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
