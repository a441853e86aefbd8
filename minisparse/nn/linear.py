"""Linear: y = W x + b.

forward    y  = x W^T + b                                                             (1)
backward   dW = dy^T x,   db = sum_n dy,   dx = dy W                                  (2)
R-forward  Ry = Rx W^T + x RW^T + Rb                                                  (3)
R-back     R{dW} = Rdy^T x + dy^T Rx,  R{db} = sum_n Rdy,  R{dx} = Rdy W + dy RW      (4)
"""

from __future__ import annotations

import numpy as np

from minisparse.kernels.jit import COMPILED
from minisparse.kernels.shift import shift
from minisparse.nn.layer import LinearLayer, Shape, require
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight, feature_major


class Linear(LinearLayer):
    """x (n, in) -> (n, out)."""

    def __init__(self, weight: Weight, bias: Array | None = None) -> None:
        """weight maps (in) to (out); bias (out,) or None."""
        self.weight = weight
        self.bias = None if bias is None else Param(bias, decay=False)

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        self.x = x
        y = self.weight.apply(x, mode)
        if self.bias is not None:
            _add(y, self.bias.value)
        return y

    def pull(self, dy: Array) -> Array:
        dx = self.weight.pull(dy.reshape(-1, dy.shape[-1]))
        return dx.reshape(*dy.shape[:-1], dx.shape[-1])

    def backward(self, dy: Array, need_dx: bool = True) -> Array | None:
        if feature_major(self.x):  # dx, which meets x again, should lie as x does
            dy = np.asfortranarray(dy)
        self.dy = dy
        self.weight.pullback(self.x, dy)
        if self.bias is not None:
            dy.sum(axis=0, out=self.bias.grad)
        return self.weight.pull(dy) if need_dx else None

    def rforward(self, rx: Array) -> Array:
        self.rx = rx
        ry = rx @ self.weight.dense().T + self.x @ self.weight.rdense().T
        if self.bias is not None:
            ry += self.bias.v()
        return ry

    def rbackward(self, dy: Array, rdy: Array) -> tuple[Array, Array]:
        self.dy = dy
        self.weight.rpullback(self.x, self.rx, dy, rdy)
        if self.bias is not None:
            self.bias.rgrad = rdy.sum(axis=0)
        dense = self.weight.dense()
        return dy @ dense, rdy @ dense + dy @ self.weight.rdense()

    def pull_squares(self, h: Array) -> Array:
        return h @ self.weight.dense() ** 2

    def output_shape(self, shape: Shape) -> Shape:
        out, inputs = self.weight.shape
        require(shape == (inputs,), f"Linear input: got sample shape {shape}, expected ({inputs},).")
        return (out,)

    def reach(self, signal: Array) -> Array:
        return np.sign(self.weight.connect(np.sign(signal)))

    def positions(self, shape: Shape) -> int:
        return 1

    def as_rows(self, dy: Array) -> Array:
        return dy[..., None, :]

    @property
    def rows(self) -> Array:
        return self.as_rows(self.x)

    @property
    def corows(self) -> Array:
        return self.as_rows(self.dy)


def _add(y: Array, bias: Array) -> None:
    """y (..., out) += bias (out,)."""
    if COMPILED and y.ndim == 2 and y.T.flags.c_contiguous and y.dtype == bias.dtype:
        shift(y.T, bias)
    else:
        y += bias
