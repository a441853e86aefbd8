"""Random networks for tests that must hold for all of them: `random_network(rng)`, `random_problem(rng)`.

A `Space` says what may occur; `EVERYTHING` is every layer, activation and loss of the engine. Networks are
float64. Problems come with samples at which the loss is smooth: a sample is drawn anew while any ReLU
argument is nearer to its kink, or any two values at the top of a pooling window to each other, than MARGIN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.random import Generator

from minisparse.errors import ShapeError
from minisparse.nn.activation import TABLE, Activation
from minisparse.nn.conv import Conv2d
from minisparse.nn.layer import Layer, Shape
from minisparse.nn.linear import Linear
from minisparse.nn.loss import LOSSES, Loss
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm, BatchNorm1d, BatchNorm2d
from minisparse.nn.pool import AvgPool2d, Dropout, Flatten, GlobalAvgPool, MaxPool2d
from minisparse.nn.residual import Residual, Sequence, SubsamplePad
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window

Array = np.ndarray
MARGIN = 1e-3
KINKED = ("relu", "leaky-relu")
CANDIDATES = 96  # samples tried for one network before it is given up
NARROW = 6  # most convolutions are this narrow at most: each output pixel is a chance to sit at a kink


@dataclass(frozen=True)
class Space:
    """What a random network may contain; numbers that are not counts are probabilities."""

    activations: tuple[str, ...] = tuple(TABLE)
    losses: tuple[str, ...] = tuple(LOSSES)
    pools: tuple[str, ...] = ("max", "avg")
    images: float = 0.65
    norm: float = 0.3
    residual: float = 0.3
    masked: float = 0.45
    depth: int = 6
    width: int = 17
    kernel: int = 5
    stride: int = 3
    batch: int = 9
    outputs: int = 17


EVERYTHING = Space()
SMALL = Space(depth=3, width=4, batch=4, outputs=4, kernel=3, stride=2)
PIECEWISE_LINEAR = replace(SMALL, activations=("identity", "relu", "leaky-relu"))


def _chance(rng: Generator, p: float) -> bool:
    return bool(rng.random() < p)


def _upto(rng: Generator, most: int, least: int = 1) -> int:
    return int(rng.integers(least, most + 1))


def _pick(rng: Generator, names: tuple[str, ...]) -> str:
    return names[rng.integers(len(names))]


def random_mask(rng: Generator, shape: tuple[int, int]) -> Array:
    """Random density; half of the masks have an empty row, a third an empty column."""
    mask = rng.random(shape) < rng.uniform(0.2, 0.9)
    if _chance(rng, 0.5):
        mask[rng.integers(shape[0])] = False
    if _chance(rng, 0.33):
        mask[:, rng.integers(shape[1])] = False
    return mask


def random_weight(rng: Generator, geometry: tuple[int, int, int, int], space: Space) -> MaskedWeight:
    """Gaussian entries of outputs' size one or two, masked or not."""
    shape = (geometry[0], prod(geometry[1:]))
    value = rng.uniform(1, 2) / np.sqrt(shape[1]) * rng.standard_normal(shape)
    return MaskedWeight(value, geometry, random_mask(rng, shape) if _chance(rng, space.masked) else None)


def _offsets(rng: Generator, width: int) -> Array:
    """Values at least 0.1 from 0, so that a unit without weights does not sit at a kink."""
    return rng.choice([-1.0, 1.0], width) * (0.1 + np.abs(0.5 * rng.standard_normal(width)))


def random_linear(rng: Generator, inputs: int, width: int, space: Space) -> Linear:
    """Biased four times in five."""
    bias = _offsets(rng, width) if _chance(rng, 0.8) else None
    return Linear(random_weight(rng, (width, inputs, 1, 1), space), bias)


def random_conv(rng: Generator, channels: int, width: int, window: Window, space: Space) -> Conv2d:
    """Biased four times in five."""
    bias = _offsets(rng, width) if _chance(rng, 0.8) else None
    return Conv2d(random_weight(rng, (width, channels, *window.kernel), space), window, bias)


def random_window(rng: Generator, size: tuple[int, int], space: Space, padding: int = 2) -> Window:
    """Rectangular kernel, stride, padding and dilation, drawn until the kernel fits into `size`."""
    while True:
        kernel, stride = ((_upto(rng, m), _upto(rng, m)) for m in (space.kernel, space.stride))
        pad, dilation = (_upto(rng, padding, 0), _upto(rng, padding, 0)), (_upto(rng, 2), _upto(rng, 2))
        window = Window.of(kernel, stride, pad, dilation)
        try:
            window.output_size(size)
        except ShapeError:
            continue
        return window


def random_pool(rng: Generator, size: tuple[int, int], space: Space) -> Layer:
    """Max or average pooling that fits."""
    average = _pick(rng, space.pools) == "avg"
    while True:
        try:
            window = random_window(rng, size, replace(space, kernel=min(space.kernel, 3)), padding=1)
            layer = AvgPool2d(window) if average else MaxPool2d(window)
            layer.output_shape((1, *size))
        except ShapeError:
            continue
        return layer


def random_norm(rng: Generator, shape: Shape) -> BatchNorm:
    """Running statistics, gamma and beta far from their initial values."""
    c = shape[0]
    layer = BatchNorm1d(c) if len(shape) == 1 else BatchNorm2d(c)
    layer.gamma.set(rng.choice([-1.0, 1.0], c) * rng.uniform(0.5, 1.5, c))
    layer.beta.set(_offsets(rng, c))
    layer.running_mean, layer.running_var = 0.5 * rng.standard_normal(c), rng.uniform(0.3, 3, c)
    return layer


def _same(rng: Generator, stride: tuple[int, int], space: Space) -> Window:
    """An odd kernel, padded so that only the stride changes the image's size."""
    kernel = [2 * _upto(rng, (space.kernel + 1) // 2) - 1 for _ in range(2)]
    dilation = [_upto(rng, 2), _upto(rng, 2)]
    padding = [d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)]
    return Window.of(tuple(kernel), stride, tuple(padding), tuple(dilation))


def _even(rng: Generator, shape: Shape, width: int, stride: tuple[int, int], space: Space) -> Layer:
    """A convolution that divides the image's size by the stride, or a Linear layer."""
    if len(shape) == 1:
        return random_linear(rng, shape[0], width, space)
    return random_conv(rng, shape[0], width, _same(rng, stride, space), space)


def random_block(rng: Generator, shape: Shape, space: Space) -> Residual:
    """Residual block with the identity, weights, or (images) subsampling and padding as its shortcut."""
    kind = _pick(rng, ("identity", "weights", "pad") if len(shape) == 3 else ("identity", "weights"))
    same = kind == "identity" or len(shape) == 1
    step = 1 if same else _upto(rng, space.stride)
    width = shape[0] if kind == "identity" else _upto(rng, min(space.width, NARROW))
    width = max(width, shape[0]) if kind == "pad" else width
    branch = _Draft(rng, space, shape)
    branch.add(_even(rng, shape, width, (step, step), space))
    if _chance(rng, space.norm):
        branch.add(random_norm(rng, branch.shape))
    branch.add(Activation(_pick(rng, space.activations)))
    if _chance(rng, 0.15):
        branch.add(random_block(rng, branch.shape, replace(space, residual=0)))
        branch.add(Activation(_pick(rng, space.activations)))
    branch.add(_even(rng, branch.shape, width, (1, 1), space))
    # a nested block may have changed the size: then the way round must have weights and measure up
    return Residual(Sequence(branch.layers), _shortcut(rng, kind, shape, branch.shape, step, space))


def _shortcut(
    rng: Generator, kind: str, shape: Shape, out: Shape, step: int, space: Space
) -> Sequence | None:
    if kind == "identity" and shape == out:
        return None
    if len(shape) == 1:
        return Sequence({"linear": random_linear(rng, shape[0], out[0], space)})
    if kind == "pad" and SubsamplePad(step, out[0]).output_shape(shape) == out:
        return Sequence({"pad": SubsamplePad(step, out[0])})
    sizes = zip(shape[1:], out[1:], strict=True)
    strides = [next(s for s in range(1, n + 1) if -(-n // s) <= m) for n, m in sizes]
    way = _Draft(rng, space, shape)
    way.add(random_conv(rng, shape[0], out[0], Window.of(1, (strides[0], strides[1])), space))
    if _chance(rng, space.norm):
        way.add(random_norm(rng, way.shape))
    return Sequence(way.layers)


class _Draft:
    """Layers so far, and the shape that comes out of them."""

    def __init__(self, rng: Generator, space: Space, shape: Shape) -> None:
        self.rng, self.space, self.shape = rng, space, shape
        self.layers: dict[str, Layer] = {}

    def add(self, layer: Layer) -> None:
        self.shape = layer.output_shape(self.shape)
        self.layers[f"{type(layer).__name__.lower()}{len(self.layers)}"] = layer

    def stage(self, width: int | None = None) -> None:
        """Weights of this width (random if None) with, perhaps, a norm, an activation and a pool."""
        rng, space = self.rng, self.space
        image = len(self.shape) == 3
        most = min(NARROW, space.width) if image and _chance(rng, 0.85) else space.width
        out = width or _upto(rng, most)
        if image:
            window = random_window(rng, (self.shape[1], self.shape[2]), space)
            self.add(random_conv(rng, self.shape[0], out, window, space))
        else:
            self.add(random_linear(rng, self.shape[0], out, space))
        if _chance(rng, space.norm):
            self.add(random_norm(rng, self.shape))

    def after(self) -> None:
        """Perhaps an activation, pooling, dropout (idle in evaluation) and the step from image to row."""
        rng, space = self.rng, self.space
        if _chance(rng, 0.85):
            self.add(Activation(_pick(rng, space.activations)))
        if len(self.shape) == 3 and space.pools and _chance(rng, 0.35):
            self.add(random_pool(rng, (self.shape[1], self.shape[2]), space))
        if _chance(rng, 0.1):
            self.add(Dropout(0.5))
        if len(self.shape) == 3 and _chance(rng, 0.2):
            self.flatten()

    def flatten(self) -> None:
        self.add(GlobalAvgPool() if _chance(self.rng, 0.4) else Flatten())


def random_network(rng: Generator, space: Space = EVERYTHING) -> Network:
    """1 to space.depth layers of weights from the input to the outputs, blocks counting as two."""
    image = _chance(rng, space.images)
    shape = (_upto(rng, 3), _upto(rng, 8, 2), _upto(rng, 8, 2)) if image else (_upto(rng, space.width),)
    draft = _Draft(rng, space, shape)
    left = _upto(rng, space.depth) - 1
    while left > 0:
        if left > 1 and _chance(rng, space.residual):
            draft.add(random_block(rng, draft.shape, space))
            left -= 1
        else:
            draft.stage()
        draft.after()
        left -= 1
    if len(draft.shape) == 3 and _chance(rng, 0.6):
        draft.flatten()
    draft.stage(_upto(rng, space.outputs))
    if len(draft.shape) == 3:
        draft.flatten()
    return Network(draft.layers, shape, "random")


@dataclass
class Problem:
    """A network, a loss, and samples at which the loss is smooth, with what was rejected on the way."""

    network: Network
    loss: Loss
    x: Array
    target: Array
    rejected_samples: int = 0
    rejected_networks: int = 0


def inputs_of(layer: Layer, x: Array) -> Iterator[tuple[Layer, Array]]:
    """Each innermost layer with the array it reads when `layer` reads x."""
    if isinstance(layer, Sequence):
        for child in layer.layers.values():
            yield from inputs_of(child, x)
            x = child.forward(x)
    elif isinstance(layer, Residual):
        yield from inputs_of(layer.branch, x)
        yield from inputs_of(layer.shortcut, x)
    else:
        yield layer, x


def _pool_gap(x: Array, window: Window) -> Array:
    """Smallest distance of the two largest values of a window, per sample, exact ties not counted.

    Exact ties of random numbers have a structural cause (zeros made by ReLU, units without weights): the
    equal values are then the same function nearby, and their largest is smooth.
    """
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = window.kernel, window.stride, window.padding, window.dilation
    oh, ow = window.output_size((x.shape[2], x.shape[3]))
    padded = np.pad(x, [(0, 0), (0, 0), (ph, ph), (pw, pw)], constant_values=-np.inf)
    seen = np.stack([
        padded[:, :, a * dh : a * dh + sh * (oh - 1) + 1 : sh, b * dw : b * dw + sw * (ow - 1) + 1 : sw]
        for a in range(kh)
        for b in range(kw)
    ])  # fmt: skip
    if len(seen) == 1:
        return np.full(len(x), np.inf)
    second, first = np.partition(seen, len(seen) - 2, axis=0)[-2:]
    gap = np.where(first == second, np.inf, first - second)
    return gap.min(axis=(1, 2, 3))


def smooth(network: Network, x: Array) -> Array:
    """(n,) bool: samples at least MARGIN away from every kink and every tie."""
    good = np.ones(len(x), dtype=bool)
    for layer, z in inputs_of(network, x):
        if isinstance(layer, Activation) and layer.name in KINKED:
            good &= np.abs(z).reshape(len(z), -1).min(axis=1) >= MARGIN
        if isinstance(layer, MaxPool2d):
            good &= _pool_gap(z, layer.window) >= MARGIN
    return good


def random_target(rng: Generator, loss: Loss, n: int, outputs: int) -> Array:
    """Targets of the kind this loss takes."""
    if loss.name == "mse":
        return rng.standard_normal((n, outputs))
    if loss.name == "bce":
        return rng.random((n, outputs)) if _chance(rng, 0.5) else rng.integers(0, 2, (n, outputs))
    return rng.integers(0, outputs, n)


def random_problem(rng: Generator, space: Space = EVERYTHING) -> Problem:
    """A random network with 1 to space.batch smooth samples; networks without enough are drawn anew."""
    samples = 0
    for networks in range(100):
        network = random_network(rng, space)
        loss = LOSSES[_pick(rng, space.losses)]()
        n = _upto(rng, space.batch)
        x = rng.uniform(1, 2) * rng.standard_normal((CANDIDATES, *network.input_shape))
        good = smooth(network, x)
        network.release()
        outputs = network.outputs
        if good.sum() >= n:
            last = int(np.flatnonzero(good)[n - 1]) + 1
            samples += last - n
            target = random_target(rng, loss, n, outputs)
            return Problem(network, loss, x[good][:n], target, samples, networks)
        samples += int((~good).sum())
    raise RuntimeError("no smooth problem among 100 networks of this space")
