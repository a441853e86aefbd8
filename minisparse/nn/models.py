"""The models of the field by name, and any MLP from a string.

    mlp:64-128-10         fully connected, ReLU between layers; 'mlp:64-128-10:tanh' for another activation,
                          'mlp:64-128-10:all-relu=0.6' for slopes that alternate (S. Curci et al.,
                          arXiv:2102.01732)
    lenet-300-100         Y. LeCun et al., Proc. IEEE 86(11), 1998
    lenet-5               6 and 16 filters of 5x5, 120 and 84 hidden units, with ReLU and max pooling
    lenet-5-caffe         the form many pruning papers call LeNet-5: 20 and 50 filters, 500 hidden units
    set-mlp               3072-4000-1000-4000-10, D. C. Mocanu et al., arXiv:1707.04780
    conv-2, conv-4, conv-6  small VGG forms of J. Frankle, M. Carbin, arXiv:1803.03635
    vgg-small             conv 64-64-M-128-128-M-256-256-M with BatchNorm, one linear layer
    resnet-20             K. He et al., arXiv:1512.03385, section 4.2, shortcuts of option A;
                          'resnet-20:0.5' multiplies all widths

Layers take their input size from the data, so every model works on every image size it fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
from numpy.random import Generator

from minisparse.errors import ShapeError, UsageError, check_name, unknown_name
from minisparse.nn.activation import TABLE, Activation
from minisparse.nn.all_relu import by_depth
from minisparse.nn.conv import Conv2d
from minisparse.nn.init import INITIALIZERS, Geometry, Initializer
from minisparse.nn.layer import Layer, Shape
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm2d
from minisparse.nn.pool import Flatten, GlobalAvgPool, MaxPool2d
from minisparse.nn.residual import Residual, Sequence, SubsamplePad
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window
from minisparse.rng import generator

Weights = Callable[[Geometry], Weight]


def initialised(init: Initializer, rng: Generator) -> Weights:
    """Dense float32 weights whose values `init` draws from `rng`, in the order they are asked for."""
    return lambda geometry: MaskedWeight(init(geometry, rng).astype(np.float32), geometry)


@dataclass
class Builder:
    """Makes layers whose weights `make` gives, asked for in the order data flows."""

    make: Weights

    def weight(self, geometry: Geometry) -> Weight:
        if min(geometry) < 1:
            raise ShapeError(f"layer (out, channels, kh, kw): got {geometry}, expected sizes >= 1.")
        return self.make(geometry)

    def linear(self, inputs: int, outputs: int) -> Linear:
        weight = self.weight((outputs, inputs, 1, 1))
        return Linear(weight, np.zeros(outputs, dtype=np.float32))

    def conv(self, channels: int, out: int, window: Window, bias: bool = True) -> Conv2d:
        weight = self.weight((out, channels, *window.kernel))
        return Conv2d(weight, window, np.zeros(out, dtype=np.float32) if bias else None)


def _image(shape: Shape, model: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ShapeError(f"model '{model}' input: got sample shape {shape}, expected (c, h, w).")
    return shape[0], shape[1], shape[2]


def _head(b: Builder, layers: dict[str, Layer], shape: Shape, widths: list[int]) -> None:
    """Append Flatten and fully connected layers of these widths, ReLU between them."""
    layers["flatten"] = Flatten()
    inputs = prod(Sequence(layers).output_shape(shape))
    for k, width in enumerate(widths, 1):
        layers[f"fc{k}"] = b.linear(inputs, width)
        if k < len(widths):
            layers[f"relu_fc{k}"] = Activation("relu")
        inputs = width


# activations that depend on the hidden layer they stand behind: text after '=' -> depth -> layer
DEEP: dict[str, Callable[[str], Callable[[int], Activation]]] = {"all-relu": by_depth}


def activations(text: str) -> Callable[[int], Activation]:
    """What stands behind hidden layer 1, 2, ... by a name, or a name of DEEP as in 'all-relu=0.6'.

    UnknownNameError for another name, UsageError for a value that cannot be used.
    """
    name, _, value = text.partition("=")
    if name in DEEP:
        return DEEP[name](value)
    if text not in TABLE:
        raise unknown_name("activation", text, [*TABLE, *DEEP])
    return lambda depth: Activation(text)


def mlp(b: Builder, shape: Shape, widths: list[int], activation: str = "relu") -> dict[str, Layer]:
    """Layers fc1, fc2, ... of these widths; the input is flattened. Errors as of `activations`."""
    layers: dict[str, Layer] = {"flatten": Flatten()}
    inputs, behind = prod(shape), activations(activation)
    for k, width in enumerate(widths, 1):
        layers[f"fc{k}"] = b.linear(inputs, width)
        if k < len(widths):
            layers[f"act{k}"] = behind(k)
        inputs = width
    return layers


def lenet5(b: Builder, shape: Shape, outputs: int) -> dict[str, Layer]:
    """Images of 28 pixels are padded to the 32 of the paper; on smaller ones kernels are 3x3, padded."""
    channels, h, w = _image(shape, "lenet-5")
    large = min(h, w) >= 16
    first, second = (Window.of(5, padding=2), Window.of(5)) if large else (Window.of(3, padding=1),) * 2
    layers: dict[str, Layer] = {
        "conv1": b.conv(channels, 6, first),
        "relu1": Activation("relu"),
        "pool1": MaxPool2d(Window.of(2, 2)),
        "conv2": b.conv(6, 16, second),
        "relu2": Activation("relu"),
        "pool2": MaxPool2d(Window.of(2, 2)),
    }
    _head(b, layers, shape, [120, 84, outputs])
    return layers


def lenet5_caffe(b: Builder, shape: Shape, outputs: int) -> dict[str, Layer]:
    """No activation between convolution and pooling; 3x3 padded kernels on images under 16 pixels."""
    channels, h, w = _image(shape, "lenet-5-caffe")
    window = Window.of(5) if min(h, w) >= 16 else Window.of(3, padding=1)
    layers: dict[str, Layer] = {
        "conv1": b.conv(channels, 20, window),
        "pool1": MaxPool2d(Window.of(2, 2)),
        "conv2": b.conv(20, 50, window),
        "pool2": MaxPool2d(Window.of(2, 2)),
    }
    _head(b, layers, shape, [500, outputs])
    return layers


def conv_n(b: Builder, shape: Shape, outputs: int, blocks: list[int], name: str) -> dict[str, Layer]:
    """Blocks of two 3x3 convolutions and a 2x2 pool, then 256-256-outputs."""
    channels, _, _ = _image(shape, name)
    layers: dict[str, Layer] = {}
    for k, width in enumerate(blocks, 1):
        for j, inputs in enumerate((channels, width), 1):
            layers[f"conv{2 * k - 2 + j}"] = b.conv(inputs, width, Window.of(3, padding=1))
            layers[f"relu{2 * k - 2 + j}"] = Activation("relu")
        layers[f"pool{k}"] = MaxPool2d(Window.of(2, 2))
        channels = width
    _head(b, layers, shape, [256, 256, outputs])
    return layers


def _conv_bn(b: Builder, channels: int, width: int, stride: int = 1) -> dict[str, Layer]:
    window = Window.of(3, stride=stride, padding=1)
    return {"conv": b.conv(channels, width, window, bias=False), "bn": BatchNorm2d(width)}


def vgg_small(b: Builder, shape: Shape, outputs: int) -> dict[str, Layer]:
    """Six BatchNorm convolutions in three stages."""
    channels, _, _ = _image(shape, "vgg-small")
    layers: dict[str, Layer] = {}
    for k, width in enumerate((64, 128, 256), 1):
        for j in (1, 2):
            pieces = _conv_bn(b, channels, width)
            layers |= {f"{part}{k}_{j}": layer for part, layer in pieces.items()}
            layers[f"relu{k}_{j}"] = Activation("relu")
            channels = width
        layers[f"pool{k}"] = MaxPool2d(Window.of(2, 2))
    _head(b, layers, shape, [outputs])
    return layers


def resnet20(b: Builder, shape: Shape, outputs: int, width: float = 1.0) -> dict[str, Layer]:
    """Three stages of three basic blocks, 16, 32 and 64 channels times `width`."""
    channels, _, _ = _image(shape, "resnet-20")
    if not 1 / 16 <= width < np.inf:
        raise ShapeError(f"model 'resnet-20' width: got {width}, expected a finite number >= 1/16.")
    widths = [round(16 * width), round(32 * width), round(64 * width)]
    first = _conv_bn(b, channels, widths[0])
    layers: dict[str, Layer] = {f"{part}1": layer for part, layer in first.items()}
    layers["relu1"] = Activation("relu")
    channels = widths[0]
    for stage, out in enumerate(widths, 1):
        for block in range(1, 4):
            stride = 2 if stage > 1 and block == 1 else 1
            a, c = _conv_bn(b, channels, out, stride), _conv_bn(b, out, out)
            branch: dict[str, Layer] = {
                "conv1": a["conv"],
                "bn1": a["bn"],
                "relu1": Activation("relu"),
            }
            branch |= {"conv2": c["conv"], "bn2": c["bn"]}
            same = stride == 1 and channels == out
            shortcut = None if same else Sequence({"pad": SubsamplePad(stride, out)})
            layers[f"block{stage}_{block}"] = Residual(Sequence(branch), shortcut)
            layers[f"relu{stage}_{block}"] = Activation("relu")
            channels = out
    layers["pool"] = GlobalAvgPool()
    layers["fc"] = b.linear(channels, outputs)
    return layers


Plan = Callable[[Builder, Shape, int, str], dict[str, Layer]]


def _mlp_plan(b: Builder, shape: Shape, outputs: int, text: str) -> dict[str, Layer]:
    widths, _, activation = text.partition(":")
    parts = widths.split("-")
    if len(parts) < 2 or not all(p.isdecimal() and int(p) >= 1 for p in parts):
        raise UsageError(
            f"model 'mlp:{text}': got widths {widths!r}, expected two or more positive integers "
            "joined by '-', such as mlp:64-128-10."
        )
    numbers = [int(p) for p in parts]
    if numbers[-1] != outputs or numbers[0] != prod(shape):
        raise ShapeError(
            f"model 'mlp:{text}': got {numbers[0]} inputs and {numbers[-1]} outputs, expected "
            f"{prod(shape)} and {outputs} for this data."
        )
    return mlp(b, shape, numbers[1:], activation or "relu")


def _resnet_plan(b: Builder, shape: Shape, outputs: int, text: str) -> dict[str, Layer]:
    try:
        width = float(text or 1)
    except ValueError:
        raise UsageError(f"model 'resnet-20:{text}': got width {text!r}, expected a number.") from None
    return resnet20(b, shape, outputs, width)


def _conv_plan(blocks: list[int]) -> Plan:
    name = f"conv-{2 * len(blocks)}"
    return lambda b, shape, outputs, text: conv_n(b, shape, outputs, blocks, name)


PLANS: dict[str, tuple[str, Plan]] = {
    "mlp": (
        "any fully connected network, e.g. mlp:64-128-10, mlp:64-128-10:tanh or mlp:64-128-10:all-relu=0.6",
        _mlp_plan,
    ),
    "lenet-300-100": (
        "MLP with 300 and 100 hidden units",
        lambda b, s, o, t: mlp(b, s, [300, 100, o]),
    ),
    "lenet-5": ("2 convolutions (6, 16), 3 linear layers", lambda b, s, o, t: lenet5(b, s, o)),
    "lenet-5-caffe": (
        "2 convolutions (20, 50), 2 linear layers",
        lambda b, s, o, t: lenet5_caffe(b, s, o),
    ),
    "set-mlp": ("MLP 4000-1000-4000", lambda b, s, o, t: mlp(b, s, [4000, 1000, 4000, o])),
    "conv-2": ("2 convolutions, 3 linear layers", _conv_plan([64])),
    "conv-4": ("4 convolutions, 3 linear layers", _conv_plan([64, 128])),
    "conv-6": ("6 convolutions, 3 linear layers", _conv_plan([64, 128, 256])),
    "vgg-small": ("6 BatchNorm convolutions", lambda b, s, o, t: vgg_small(b, s, o)),
    "resnet-20": ("residual network, width e.g. resnet-20:0.5", _resnet_plan),
}


def assemble(name: str, input_shape: Shape, outputs: int, weights: Weights) -> Network:
    """The network of this name, with the weights that `weights(geometry)` gives its layers.

    Raises UnknownNameError, UsageError or ShapeError when name or shapes do not fit.
    """
    kind, _, text = name.partition(":") if isinstance(name, str) else (name, "", "")
    if not isinstance(kind, str) or kind not in PLANS:
        raise unknown_name("model", name, PLANS)
    for what, n in (("outputs", outputs), *(("input size", n) for n in input_shape)):
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ShapeError(f"model '{name}' {what}: got {n!r}, expected a whole number >= 1.")
    if text and kind not in ("mlp", "resnet-20"):
        raise UsageError(f"model '{name}': got an option {text!r}, expected just '{kind}'.")
    return Network(PLANS[kind][1](Builder(weights), input_shape, outputs, text), input_shape, name)


def make(name: str, input_shape: Shape, outputs: int, seed: int = 0, init: str = "kaiming-normal") -> Network:
    """A network for samples of `input_shape` with `outputs` outputs, float32, initialised from `seed`.

    Raises UnknownNameError, UsageError or ShapeError when name, initialiser or shapes do not fit.
    """
    rule = INITIALIZERS[check_name("initializer", init, INITIALIZERS)]
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"model '{name}' seed: got {seed!r}, expected a whole number >= 0.")
    drawn = initialised(rule, generator(int(seed), "init"))
    network = assemble(name, input_shape, outputs, drawn)
    network.init = rule
    return network


class Task(Protocol):
    """What a model must know of a data set."""

    @property
    def sample_shape(self) -> Shape: ...

    @property
    def outputs(self) -> int: ...


def build(name: str, data: Task, seed: int = 0, init: str = "kaiming-normal") -> Network:
    """`make` with the shapes of a data set."""
    return make(name, data.sample_shape, data.outputs, seed, init)
