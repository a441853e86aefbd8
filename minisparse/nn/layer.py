"""Layer: explicit forward, backward and R-passes, and the row view of layers with a Weight.

Shape letters: n samples, c channels, h w image, p positions, r = n * p rows, i in, o out, v directions.
Images are (n, c, h, w) by index; convolutional layers keep them channels-last in memory.

R{.} is Pearlmutter's operator, the derivative along a direction of the parameters (B. A. Pearlmutter,
Fast exact multiplication by the Hessian, Neural Computation 6(1), 1994). A layer is called in the order
forward, [rforward], backward or rbackward, and remembers what the later calls need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import numpy as np
from numpy.random import Generator

from minisparse.errors import ShapeError
from minisparse.nn import rows as contract
from minisparse.nn.init import Initializer
from minisparse.nn.largest import block_rows
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight

Shape = tuple[int, ...]
Step = Callable[["Layer", Array, bool], Array | None]
Role = Literal["producers", "norms", "consumers", "paddings"]


class Flow(Protocol):
    """Follows the units (channels, neurons) of a network from layer to layer; asked by `Layer.route`."""

    def new(self, count: int) -> Array:
        """Numbers for this many units that begin here."""

    def join(self, a: Array, b: Array) -> Array:
        """Units whose values are added one by one: from here on they are one each."""

    def note(self, role: Role, layer: Layer, units: Array) -> None:
        """Entry k (row, column, channel) of the layer belongs to units[k], in this role."""


class Layer(ABC):
    """One differentiable map. Shapes given to and returned by methods include the sample axis n."""

    @abstractmethod
    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        """y = f(x)."""

    @abstractmethod
    def pull(self, dy: Array) -> Array:
        """Transposed Jacobian at the last forward point times dy, no parameter touched.

        dy (..., n, *out) -> (..., n, *in): leading axes are directions, pulled side by side.
        """

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        """Write this layer's parameter gradients; return dL/dx, or None if it is not needed."""
        return self.pull(dy) if need_dx else None

    @abstractmethod
    def rforward(self, rx: Array) -> Array:
        """R{y} from R{x} and the parameters' directions."""

    @abstractmethod
    def rbackward(self, dy: Array, rdy: Array) -> tuple[Array, Array]:
        """(dL/dx, R{dL/dx}); writes each Param's rgrad."""

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Shape of one sample's output from one sample's input; ShapeError if it does not fit."""

    def shapes(self, shape: Shape) -> Iterator[tuple[Layer, Shape]]:
        """Each innermost layer with the shape of a sample it is given, from that given to this one."""
        yield self, shape

    def reach(self, signal: Array) -> Array:
        """Which outputs depend on inputs: non-negative signal (1, *in), 0 = constant -> (1, *out)."""
        return self.forward(signal)

    def route(self, units: Array, shape: Shape, flow: Flow) -> Array:
        """Numbers of the units put out, one per output channel, from those read and a sample's shape."""
        return units

    def cut(self, inputs: Array, outputs: Array) -> None:
        """Take these inputs and outputs (indices as `route` notes them) out of all arrays, in place."""
        raise NotImplementedError(f"{type(self).__name__} has no units of its own")

    def params(self) -> dict[str, Param]:
        """Own parameters by name, those of children not included."""
        return {}

    def reset(self, init: Initializer, rng: Generator) -> None:  # noqa: B027 - most have none
        """Own parameters and buffers as when a layer is made; weights drawn by `init`."""

    def buffers(self) -> dict[str, Array]:
        """Arrays that belong to the state but are not trained (running statistics)."""
        return {}

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Named sub-layers, in the order data flows."""
        return iter(())

    # What curvature asks of a layer, all at the last forward point and without touching a Param.

    keeps_diagonal = False  # each output depends on one input, and each input reaches one output
    fixed_jacobian = False  # the Jacobian is the same for every sample
    curved = False  # the output is not piecewise linear in the input

    @property
    def trained(self) -> bool:
        """Whether this layer or one inside it has parameters."""
        return bool(self.params()) or any(child.trained for _, child in self.children())

    def descend(self, s: Array, step: Step, need: bool = True) -> Array | None:
        """Carry s from the output to the input through step(layer, s, need) of each innermost layer.

        Where paths part, what comes back along them is added. A step may return None if not needed.
        """
        return step(self, s, need)

    def paths(self, below: tuple[Layer, ...] = ()) -> Iterator[tuple[Layer, tuple[Layer, ...]]]:
        """Each innermost layer with all that lies between the network's input and its own, in order."""
        yield self, below

    def curve(self, dy: Array) -> Array:
        """Diagonal of sum_o dL/dy_o d2y_o/dx2, shape of x; only where `curved`."""
        raise NotImplementedError(f"{type(self).__name__} has no curvature of its own")

    def pull_squares(self, h: Array) -> Array:
        """Squared entries of the Jacobian, transposed, times h (n, *out) -> (n, *in)."""
        raise NotImplementedError(f"{type(self).__name__} has no Jacobian of its own")

    def param_pull(self, dy: Array) -> dict[str, Array]:
        """Per-sample gradients (..., n, *shape) of the own parameters from dy (..., n, *out)."""
        return {}

    def param_squares(self, s: Array, sign: Array | None = None) -> dict[str, Array]:
        """Sum over v, n of sign[v, n] param_pull(s)^2 for s (v, n, *out); sign None means all +1."""
        return {}

    def param_diagonal(self, h: Array) -> dict[str, Array]:
        """Diagonal of J^T diag(h) J for the own parameters, h (n, *out), summed over n."""
        return {}

    def release(self) -> None:
        """Forget the activations kept for a backward pass."""
        for name in ("x", "rx", "y", "dy", "rdy", "where"):
            self.__dict__.pop(name, None)


class LinearLayer(Layer):
    """A layer y = W x + b over rows: Linear and Conv2d. Gives the row view all curvature is built on."""

    weight: Weight
    bias: Param | None
    fixed_jacobian = True

    def params(self) -> dict[str, Param]:
        own = dict(self.weight.params())
        if self.bias is not None:
            own["bias"] = self.bias
        return own

    @property
    @abstractmethod
    def rows(self) -> Array:
        """Inputs of the last forward pass as (n, p, in)."""

    @property
    @abstractmethod
    def corows(self) -> Array:
        """Cotangents dL/dy of the last backward pass as (n, p, out)."""

    @abstractmethod
    def as_rows(self, dy: Array) -> Array:
        """An array of the output's shape (..., n, *out) as (..., n, p, out)."""

    @property
    def by_blas(self) -> bool:
        """Whether its products are left to BLAS, and not made by kernels of this project."""
        return self.weight.by_blas

    @abstractmethod
    def positions(self, shape: Shape) -> int:
        """p, the number of times each weight is used per sample, for one sample's input shape."""

    @abstractmethod
    def reach(self, signal: Array) -> Array:
        """Outputs with a present weight from an input that is not constant, as 0 or 1."""

    def route(self, units: Array, shape: Shape, flow: Flow) -> Array:
        out, inputs = self.weight.shape
        flow.note("consumers", self, np.tile(units, inputs // len(units)))
        made = flow.new(out)
        flow.note("producers", self, made)
        return made

    def cut(self, inputs: Array, outputs: Array) -> None:
        self.weight = self.weight.without(outputs, inputs)
        if self.bias is not None:
            self.bias.set(np.delete(self.bias.value, outputs))
        self.release()

    def reset(self, init: Initializer, rng: Generator) -> None:
        dtype = next(iter(self.weight.params().values())).value.dtype
        self.weight.assign(init(self.weight.geometry, rng).astype(dtype))
        if self.bias is not None:
            self.bias.value[...] = 0

    def _entries(self, weight: Array, bias: Array) -> dict[str, Array]:
        own = self.weight.entries(weight)
        if self.bias is not None:
            own["bias"] = bias
        return own

    def param_pull(self, dy: Array) -> dict[str, Array]:
        return self._entries(*contract.outer(self.rows, self.as_rows(dy)))

    def param_squares(self, s: Array, sign: Array | None = None) -> dict[str, Array]:
        return self._entries(*contract.squared(self.rows, self.as_rows(s), sign))

    def param_diagonal(self, h: Array) -> dict[str, Array]:
        return self._entries(*contract.diagonal(self.rows, self.as_rows(h)))

    def dense_grad(self) -> Array:
        """dL/dW (out, in) at every entry, absent ones too, of the last backward pass."""
        rows, corows = self.rows, self.corows
        return corows.reshape(-1, corows.shape[-1]).T @ rows.reshape(-1, rows.shape[-1])

    def gradient_blocks(self) -> Iterator[Array]:
        """`dense_grad` a few rows (b, in) at a time, in order: all of it passes by, a block of it exists."""
        rows, corows = (a.reshape(-1, a.shape[-1]) for a in (self.rows, self.corows))
        step = block_rows(rows.shape[1], rows.itemsize)
        for row in range(0, corows.shape[1], step):
            yield corows[:, row : row + step].T @ rows


def require(condition: bool, message: str) -> None:
    """Raise ShapeError(message) unless the condition holds."""
    if not condition:
        raise ShapeError(message)
