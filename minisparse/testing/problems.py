"""Small networks and data sets on which methods are checked: usual ones, degenerate ones, unsuitable ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from minisparse.data.dataset import Dataset
from minisparse.nn.activation import Activation
from minisparse.nn.conv import Conv2d
from minisparse.nn.layer import Layer
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm1d, BatchNorm2d
from minisparse.nn.param import Array
from minisparse.nn.pool import Flatten, MaxPool2d
from minisparse.nn.residual import Residual, Sequence
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.rng import generator

IMAGE = (2, 6, 6)


def chain(*matrices: ArrayLike, activation: str = "relu", biases: bool = False) -> Network:
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
    parts: list[Array] = []
    for n in (train, test):
        y = rng.permutation(np.arange(n) % classes)
        parts += [(centres[y] + 0.7 * rng.standard_normal((n, *shape))).astype(np.float32), y]
    return Dataset("clusters", parts[0], parts[1], parts[2], parts[3], classes)


def _rng(seed: int = 1) -> Generator:
    return generator(seed, "testing")


NETWORKS: Mapping[str, Callable[[], Network]] = {
    "mlp": lambda: mlp((8, 12, 9, 3), _rng(), dtype=np.float32),
    "conv": lambda: conv_net(_rng(), np.float32),
}
NARROW: Mapping[str, Callable[[], Network]] = {
    "mlp": lambda: mlp((8, 1, 3), _rng(), dtype=np.float32),
    "conv": lambda: conv_net(_rng(), np.float32, width=1),
}
# a network that lacks what each need asks for
VIOLATIONS: Mapping[str, Callable[[], Network]] = {
    "prunable layers": lambda: Network({"norm": BatchNorm1d(8)}, (8,)),
    "hidden units": lambda: mlp((8, 3), _rng(0)),
    "normalised hidden units": lambda: mlp((8, 5, 3), _rng(0)),
    "homogeneous activations": lambda: mlp((8, 5, 3), _rng(0), activation="tanh"),
}


def data_for(network: Network) -> Dataset:
    """Clusters of the network's input shape and number of outputs."""
    return clusters(_rng(2), network.input_shape, classes=network.outputs)


def uniform_weights(network: Network) -> Network:
    """All weights of a layer equal."""
    for layer in network.prunable().values():
        layer.weight.assign(np.full(layer.weight.shape, 0.25, dtype=np.float32))
    return network


def silent_data(network: Network) -> Dataset:
    """Regression of zeros on zeros: with biases 0 every output and every gradient is 0."""
    x, y = np.zeros((48, *network.input_shape), np.float32), np.zeros((48, network.outputs), np.float32)
    return Dataset("silent", x, y, x, y, None)


def without_biases(network: Network) -> Network:
    """All biases 0."""
    for layer in network.prunable().values():
        if layer.bias is not None:
            layer.bias.set(np.zeros_like(layer.bias.value))
    return network


def _usual(network: Network) -> tuple[Network, Dataset]:
    return network, data_for(network)


def _silent(network: Network) -> tuple[Network, Dataset]:
    return without_biases(network), silent_data(network)


# problem -> network and data from the kind of network
DEGENERATE: Mapping[str, Callable[[str], tuple[Network, Dataset]]] = {
    "one row": lambda kind: _usual(NARROW[kind]()),
    "equal weights": lambda kind: _usual(uniform_weights(NETWORKS[kind]())),
    "no gradient": lambda kind: _silent(NETWORKS[kind]()),
}
