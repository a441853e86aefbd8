"""A weight whose matrix is a function of other parameters: W = W(theta).

    Y = X W^T,   dL/dW = dY^T X,   dL/dtheta = (dW/dtheta)^T dL/dW                          (1)

A subclass gives W (`effective`) and the last product of (1) (`chain`); matrix products, convolution and the
imposed mask are those of a MaskedWeight that carries W from each forward pass to its backward pass.

Two masks meet here: the one imposed by `rewire`, outside which parameters are 0, and `present`, which
the parameters themselves decide. `mask` is their intersection. Second-order passes are not defined: a
method that trains such weights leaves masked weights behind, which have them.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from minisparse.errors import MethodError
from minisparse.nn.mode import Mode
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow, for complex x too; exactly 0 below -38."""
    return (1 + np.tanh(x / 2)) / 2


class Reparametrised(Weight):
    """Equation (1)."""

    def __init__(self, weight: Weight) -> None:
        """Stands in for `weight`: its geometry and its mask. The matrix is the subclass's to set."""
        self.geometry = weight.geometry
        self.carrier = MaskedWeight(weight.dense().copy(), weight.geometry, weight.mask)

    @abstractmethod
    def effective(self) -> Array:
        """W (out, in) in evaluation, a new array; the imposed mask need not be applied."""

    @abstractmethod
    def chain(self, dw: Array) -> None:
        """Write each Param's grad from dL/dW (out, in) of the last forward pass."""

    def present(self) -> Array:
        """Entries the parameters let be, (out, in) bool."""
        return np.ones(self.shape, dtype=bool)

    def draw(self, mode: Mode) -> Array:
        """W of one forward pass; a stochastic weight draws it anew in training."""
        return self.effective()

    @property
    def mask(self) -> Array:
        return self.carrier.mask & self.present()

    @property
    def kept(self) -> int:
        return int(np.count_nonzero(self.mask))

    def dense(self) -> Array:
        return np.where(self.carrier.mask, self.effective(), 0)

    def trained(self) -> Array:
        own = self.params().get("weight")
        return self.dense() if own is None else own.value

    def _load(self, mode: Mode) -> None:
        matrix, held = self.draw(mode), self.carrier.param
        if held.value.dtype != matrix.dtype:
            held.set(matrix.copy())
        self.carrier.assign(matrix)

    @property
    def convolves_by_blas(self) -> bool:
        return self.carrier.convolves_by_blas

    def apply(self, x: Array, mode: Mode) -> Array:
        self._load(mode)
        return self.carrier.apply(x, mode)

    def pull(self, dy: Array) -> Array:
        return self.carrier.pull(dy)

    def pullback(self, x: Array, dy: Array) -> None:
        self.carrier.pullback(x, dy)
        self.chain(self.carrier.param.grad)

    def correlate(self, x: Array, window: Window, mode: Mode) -> Array:
        self._load(mode)
        return self.carrier.correlate(x, window, mode)

    def correlate_pull(self, dy: Array, window: Window, size: tuple[int, int]) -> Array:
        return self.carrier.correlate_pull(dy, window, size)

    def correlate_pullback(self, x: Array, dy: Array, window: Window) -> None:
        self.carrier.correlate_pullback(x, dy, window)
        self.chain(self.carrier.param.grad)

    def rdense(self) -> Array:
        raise self._no_second_order()

    def rpullback(self, x: Array, rx: Array, dy: Array, rdy: Array) -> None:
        raise self._no_second_order()

    def _no_second_order(self) -> MethodError:
        return MethodError(
            f"second-order pass of {type(self).__name__}: got a reparametrised weight, expected a masked "
            "one. Finish the method first."
        )

    def rewire(self, mask: Array) -> dict[str, Array]:
        """Impose a mask on the parameters that are matrices; one that appears starts at 0."""
        source = self.carrier.rewire(mask)["weight"]
        gone = (source < 0).reshape(self.shape)
        moved = {}
        for key, p in self.params().items():
            if p.value.shape == self.shape:
                p.value[gone] = 0
                p.grad[gone] = 0
                moved[key] = source
        return moved
