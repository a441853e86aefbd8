"""Layer: explicit forward, backward and R-passes, and the row view of layers with a Weight.

Shape letters: n samples, c channels, h w image, p positions, r = n * p rows, i in, o out, v directions.
Images are (n, c, h, w) by index; convolutional layers keep them channels-last in memory.

R{.} is Pearlmutter's operator, the derivative along a direction of the parameters (B. A. Pearlmutter,
Fast exact multiplication by the Hessian, Neural Computation 6(1), 1994). A layer is called in the order
forward, [rforward], backward or rbackward, and remembers what the later calls need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from minisparse.errors import ShapeError
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight

Shape = tuple[int, ...]


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

    def reach(self, signal: Array) -> Array:
        """Which outputs depend on inputs: non-negative signal (1, *in), 0 = constant -> (1, *out)."""
        return self.forward(signal)

    def params(self) -> dict[str, Param]:
        """Own parameters by name, those of children not included."""
        return {}

    def buffers(self) -> dict[str, Array]:
        """Arrays that belong to the state but are not trained (running statistics)."""
        return {}

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Named sub-layers, in the order data flows."""
        return iter(())

    def release(self) -> None:
        """Forget the activations kept for a backward pass."""
        for name in ("x", "rx", "y", "dy", "rdy"):
            self.__dict__.pop(name, None)


class LinearLayer(Layer):
    """A layer y = W x + b over rows: Linear and Conv2d. Gives the row view all curvature is built on."""

    weight: Weight
    bias: Param | None

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

    @abstractmethod
    def positions(self, shape: Shape) -> int:
        """p, the number of times each weight is used per sample, for one sample's input shape."""

    @abstractmethod
    def reach(self, signal: Array) -> Array:
        """Outputs with a present weight from an input that is not constant, as 0 or 1."""

    def dense_grad(self) -> Array:
        """dL/dW (out, in) at every entry, absent ones too, of the last backward pass."""
        rows, corows = self.rows, self.corows
        return corows.reshape(-1, corows.shape[-1]).T @ rows.reshape(-1, rows.shape[-1])


def require(condition: bool, message: str) -> None:
    """Raise ShapeError(message) unless the condition holds."""
    if not condition:
        raise ShapeError(message)
