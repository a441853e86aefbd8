"""Small networks and batches for the curvature tests; random ones come from tests/architectures.py."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from minisparse.nn import (
    MSE,
    Activation,
    BatchNorm2d,
    BinaryCrossEntropy,
    Conv2d,
    CrossEntropy,
    Flatten,
    Layer,
    Linear,
    Loss,
    MaskedWeight,
    MaxPool2d,
    Network,
    Residual,
    Sequence,
    Window,
)  # fmt: skip
from minisparse.nn.activation import TABLE
from tests.architectures import SMALL, Space, random_problem, random_target

CURVED = [name for name, f in TABLE.items() if f.curved]
STRAIGHT = [name for name, f in TABLE.items() if not f.curved]
LOSSES = [MSE, CrossEntropy, BinaryCrossEntropy]


@dataclass
class Case:
    network: Network
    loss: Loss
    x: np.ndarray
    target: np.ndarray

    def __iter__(self):
        return iter((self.network, self.loss, self.x, self.target))


def linear(i: int, o: int, rng: Generator, bias: bool = True, density: float = 1.0) -> Linear:
    mask = None if density == 1 else rng.random((o, i)) < density
    weight = MaskedWeight(rng.standard_normal((o, i)) / np.sqrt(i), mask=mask)
    return Linear(weight, rng.standard_normal(o) / 2 if bias else None)


def batch_norm(kind: type, c: int, rng: Generator) -> Layer:
    layer = kind(c)
    layer.gamma.set(rng.uniform(0.5, 1.5, c) * rng.choice([-1, 1], c))
    layer.beta.set(rng.standard_normal(c) / 2)
    layer.running_mean = rng.standard_normal(c) / 2
    layer.running_var = rng.uniform(0.5, 2, c)
    return layer


def mlp(widths: list[int], activation: str, rng: Generator, bias: bool = True) -> Network:
    layers: dict[str, Layer] = {}
    for k, (i, o) in enumerate(zip(widths, widths[1:], strict=False), 1):
        layers[f"fc{k}"] = linear(i, o, rng, bias)
        if k < len(widths) - 1:
            layers[f"act{k}"] = Activation(activation)
    return Network(layers, (widths[0],))


def case(network: Network, loss: Loss, n: int, rng: Generator) -> Case:
    x = rng.standard_normal((n, *network.input_shape))
    return Case(network, loss, x, random_target(rng, loss, n, network.outputs))


def conv(c: int, o: int, window: Window, rng: Generator) -> Conv2d:
    kh, kw = window.kernel
    value = rng.standard_normal((o, c * kh * kw)) / np.sqrt(c * kh * kw)
    return Conv2d(MaskedWeight(value, (o, c, kh, kw)), window, rng.standard_normal(o) / 2)


def small_cnn(activation: str, rng: Generator) -> Network:
    """Convolution, max-pool, BatchNorm, residual block of convolutions, two linear layers."""
    branch = {"conv": conv(3, 3, Window.of(3, 1, 1), rng), "act": Activation(activation)}
    layers: dict[str, Layer] = {
        "conv1": conv(2, 3, Window.of(3, 1, 1), rng),
        "bn": batch_norm(BatchNorm2d, 3, rng),
        "act1": Activation(activation),
        "pool": MaxPool2d(Window.of(2, 2)),
        "block": Residual(Sequence(branch)),
        "flatten": Flatten(),
        "fc1": linear(12, 4, rng),
        "act2": Activation(activation),
        "fc2": linear(4, 3, rng),
    }
    return Network(layers, (2, 4, 4))


def random_case(rng: Generator, space: Space = SMALL, most: int = 120) -> Case:
    """A random network of at most `most` parameters and a batch at which its loss is smooth."""
    while True:
        problem = random_problem(rng, space)
        if sum(p.value.size for p in problem.network.params().values()) <= most:
            return Case(problem.network, problem.loss, problem.x, problem.target)
