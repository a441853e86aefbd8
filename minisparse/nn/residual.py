"""Sequence of layers, residual block y = branch(x) + shortcut(x), and the parameter-free shortcut.

K. He, X. Zhang, S. Ren, J. Sun. Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minisparse.errors import UsageError
from minisparse.nn.layer import Flow, Layer, Shape, Step, require
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array
from minisparse.nn.pool import PointwiseLinear


def descend(layers: list[Layer], s: Array, step: Step, need: bool = True) -> Array | None:
    """`Layer.descend` through layers from the last to the first, no further down than parameters lie."""
    down: Array | None = s
    for k, layer in reversed(list(enumerate(layers))):
        if down is None:
            return None
        down = layer.descend(down, step, need or any(other.trained for other in layers[:k]))
    return down


class Sequence(Layer):
    """Named layers one after another."""

    def __init__(self, layers: dict[str, Layer]) -> None:
        self.layers = dict(layers)

    def children(self) -> Iterator[tuple[str, Layer]]:
        return iter(self.layers.items())

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        for layer in self.layers.values():
            x = layer.forward(x, mode)
        return x

    def pull(self, dy: Array) -> Array:
        for layer in reversed(self.layers.values()):
            dy = layer.pull(dy)
        return dy

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        down: Array | None = dy
        layers = list(self.layers.values())
        wanted = [need_dx]
        for layer in layers[:-1]:
            wanted.append(wanted[-1] or layer.trained)
        for layer, wants in zip(reversed(layers), reversed(wanted), strict=False):
            if down is not None:
                down = layer.backward(down, wants)
        return down

    def rforward(self, rx: Array) -> Array:
        for layer in self.layers.values():
            rx = layer.rforward(rx)
        return rx

    def rbackward(self, dy: Array, rdy: Array) -> tuple[Array, Array]:
        for layer in reversed(self.layers.values()):
            dy, rdy = layer.rbackward(dy, rdy)
        return dy, rdy

    def descend(self, s: Array, step: Step, need: bool = True) -> Array | None:
        return descend(list(self.layers.values()), s, step, need)

    def paths(self, below: tuple[Layer, ...] = ()) -> Iterator[tuple[Layer, tuple[Layer, ...]]]:
        layers = tuple(self.layers.values())
        for k, layer in enumerate(layers):
            yield from layer.paths(below + layers[:k])

    def route(self, units: Array, shape: Shape, flow: Flow) -> Array:
        for layer in self.layers.values():
            units, shape = layer.route(units, shape, flow), layer.output_shape(shape)
        return units

    def shapes(self, shape: Shape) -> Iterator[tuple[Layer, Shape]]:
        for layer in self.layers.values():
            yield from layer.shapes(shape)
            shape = layer.output_shape(shape)

    def reach(self, signal: Array) -> Array:
        for layer in self.layers.values():
            signal = layer.reach(signal)
        return signal

    def output_shape(self, shape: Shape) -> Shape:
        for layer in self.layers.values():
            shape = layer.output_shape(shape)
        return shape


class Residual(Layer):
    """y = branch(x) + shortcut(x); an empty shortcut is the identity."""

    def __init__(self, branch: Sequence, shortcut: Sequence | None = None) -> None:
        self.branch = branch
        self.shortcut = Sequence({}) if shortcut is None else shortcut

    def children(self) -> Iterator[tuple[str, Layer]]:
        return iter([("branch", self.branch), ("shortcut", self.shortcut)])

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        return self.branch.forward(x, mode) + self.shortcut.forward(x, mode)

    def pull(self, dy: Array) -> Array:
        return self.branch.pull(dy) + self.shortcut.pull(dy)

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        a = self.branch.backward(dy, need_dx)
        b = self.shortcut.backward(dy, need_dx)
        return None if a is None or b is None else a + b

    def rforward(self, rx: Array) -> Array:
        return self.branch.rforward(rx) + self.shortcut.rforward(rx)

    def rbackward(self, dy: Array, rdy: Array) -> tuple[Array, Array]:
        a, ra = self.branch.rbackward(dy, rdy)
        b, rb = self.shortcut.rbackward(dy, rdy)
        return a + b, ra + rb

    def descend(self, s: Array, step: Step, need: bool = True) -> Array | None:
        a = self.branch.descend(s, step, need)
        b = self.shortcut.descend(s, step, need)
        return None if a is None or b is None else a + b

    def paths(self, below: tuple[Layer, ...] = ()) -> Iterator[tuple[Layer, tuple[Layer, ...]]]:
        yield from self.branch.paths(below)
        yield from self.shortcut.paths(below)

    def route(self, units: Array, shape: Shape, flow: Flow) -> Array:
        return flow.join(self.branch.route(units, shape, flow), self.shortcut.route(units, shape, flow))

    def shapes(self, shape: Shape) -> Iterator[tuple[Layer, Shape]]:
        yield from self.branch.shapes(shape)
        yield from self.shortcut.shapes(shape)

    def reach(self, signal: Array) -> Array:
        return self.branch.reach(signal) + self.shortcut.reach(signal)

    def output_shape(self, shape: Shape) -> Shape:
        a, b = self.branch.output_shape(shape), self.shortcut.output_shape(shape)
        require(a == b, f"residual block: got branch shape {a} and shortcut shape {b}, expected equal.")
        return a


class SubsamplePad(PointwiseLinear):
    """The paper's option A: every stride-th pixel, new channels filled with zeros."""

    def __init__(self, stride: int, channels: int) -> None:
        """channels: number of output channels, at least the input's."""
        if stride < 1 or channels < 1:
            raise UsageError(f"shortcut: got stride {stride}, channels {channels}, expected both >= 1.")
        self.stride, self.channels = stride, channels

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        self.shape = x.shape[1:]
        return self.push(x)

    def push(self, rx: Array) -> Array:
        kept = rx[:, :, :: self.stride, :: self.stride]
        more = self.channels - kept.shape[1]
        return np.pad(kept, [(0, 0), (0, more), (0, 0), (0, 0)])

    def pull(self, dy: Array) -> Array:
        dx = np.zeros((*dy.shape[:-3], *self.shape), dtype=dy.dtype)
        dx[..., :: self.stride, :: self.stride] = dy[..., : self.shape[0], :, :]
        return dx

    def route(self, units: Array, shape: Shape, flow: Flow) -> Array:
        wider = np.concatenate([units, flow.new(self.channels - len(units))])
        flow.note("paddings", self, wider)
        return wider

    def cut(self, inputs: Array, outputs: Array) -> None:
        self.channels -= len(outputs)

    def output_shape(self, shape: Shape) -> Shape:
        require(
            len(shape) == 3 and shape[0] <= self.channels,
            f"shortcut input: got sample shape {shape}, expected at most {self.channels} channels.",
        )
        return (self.channels, -(-shape[1] // self.stride), -(-shape[2] // self.stride))
