"""One or more examples of every layer, each in a network of its own so that types are easily changed."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from minisparse.nn import (
    Activation,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Linear,
    MaskedWeight,
    MaxPool2d,
    Network,
    Residual,
    Sequence,
    SubsamplePad,
    Window,
)
from minisparse.nn.activation import TABLE
from tests.architectures import random_norm

Array = np.ndarray
Shape = tuple[int, ...]
Make = Callable[[Generator], tuple[Layer, Shape]]

ROW, IMAGE = (5,), (3, 6, 5)
BATCH = 7  # no size of a layer is 7: an array with an axis of 7 belongs to a batch


def linear(rng: Generator, inputs: int, out: int, masked: bool = False, bias: bool = True) -> Linear:
    mask = rng.random((out, inputs)) < 0.5 if masked else None
    weight = MaskedWeight(rng.standard_normal((out, inputs)), mask=mask)
    return Linear(weight, rng.standard_normal(out) if bias else None)


def conv(
    rng: Generator, channels: int, out: int, window: Window, masked: bool = False, bias: bool = True
) -> Conv2d:
    geometry = (out, channels, *window.kernel)
    shape = (out, channels * window.kernel[0] * window.kernel[1])
    mask = rng.random(shape) < 0.5 if masked else None
    weight = MaskedWeight(rng.standard_normal(shape), geometry, mask)
    return Conv2d(weight, window, rng.standard_normal(out) if bias else None)


SKEWED = Window.of((3, 2), (2, 1), (1, 2), (1, 2))
SAME = Window.of(3, padding=1)


def _branch(rng: Generator, out: int, stride: int = 1) -> Sequence:
    first = conv(rng, 3, out, Window.of(3, stride, 1), masked=True)
    return Sequence({"a": first, "act": Activation("tanh"), "b": conv(rng, out, out, SAME)})


def _strided(rng: Generator) -> Residual:
    shortcut = Sequence({"c": conv(rng, 3, 4, Window.of(1, 2)), "bn": random_norm(rng, (4, 3, 3))})
    return Residual(_branch(rng, 4, 2), shortcut)


def _deep(rng: Generator) -> Sequence:
    inner = Residual(Sequence({"a": linear(rng, 5, 5), "act": Activation("gelu")}))
    return Sequence({"a": inner, "act": Activation("softplus"), "b": linear(rng, 5, 2, masked=True)})


ZOO: dict[str, Make] = {
    "linear": lambda g: (linear(g, 5, 4), ROW),
    "linear masked, no bias": lambda g: (linear(g, 5, 4, masked=True, bias=False), ROW),
    "conv": lambda g: (conv(g, 3, 4, SKEWED), IMAGE),
    "conv masked, no bias": lambda g: (conv(g, 3, 4, SKEWED, masked=True, bias=False), IMAGE),
    "norm of rows": lambda g: (random_norm(g, ROW), ROW),
    "norm of images": lambda g: (random_norm(g, IMAGE), IMAGE),
    "max pool": lambda g: (MaxPool2d(Window.of((3, 2), (2, 1), 1)), IMAGE),
    "average pool": lambda g: (AvgPool2d(SKEWED), IMAGE),
    "global pool": lambda g: (GlobalAvgPool(), IMAGE),
    "flatten": lambda g: (Flatten(), IMAGE),
    "dropout": lambda g: (Dropout(0.4), IMAGE),
    "subsample and pad": lambda g: (SubsamplePad(2, 5), IMAGE),
    "residual, identity": lambda g: (Residual(_branch(g, 3)), IMAGE),
    "residual, conv": lambda g: (_strided(g), IMAGE),
    "residual, pad": lambda g: (Residual(_branch(g, 4, 2), Sequence({"p": SubsamplePad(2, 4)})), IMAGE),
    "sequence": lambda g: (_deep(g), ROW),
    "nothing": lambda g: (Sequence({}), ROW),
} | {name: (lambda g, name=name: (Activation(name), IMAGE)) for name in TABLE}  # type: ignore[misc]


def example(name: str, rng: Generator, dtype: type = np.float64) -> tuple[Layer, Array, Network]:
    """The layer, an input (BATCH, *in) of this type, and the network that holds the layer."""
    layer, shape = ZOO[name](rng)
    network = Network({"layer": layer}, shape).astype(dtype)
    x = rng.standard_normal((BATCH, *shape)).astype(dtype)
    return network.layers["layer"], x, network
