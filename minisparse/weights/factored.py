"""A weight between two fixed orthonormal bases: W = L C R^T at every tap of the kernel.

    W[:, tap] = L C[:, tap] R^T,     L (out, r), R (channels, c) with orthonormal columns       (1)
    y = L C (R^T x),     dC = (dY L)^T (X R),     dX = (dY L) C R^T                             (2)

The core C (r, taps c) is trained, the bases are not. A layer is thus a bottleneck: a 1x1 map R^T, a kernel
of r x c channels, a 1x1 map L. What is absent is absent in the bases' coordinates, where it is whole rows
and columns; no entry of W itself need be zero, so that `mask` is all True and `kept` counts the core.
"""

from __future__ import annotations

import numpy as np

from minisparse.errors import MethodError, ShapeError
from minisparse.nn.mode import Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight


class FactoredWeight(Weight):
    """Equation (1)."""

    def __init__(self, left: Array, core: Array, right: Array, geometry: tuple[int, int, int, int]) -> None:
        """left L (out, r), core C (r, kh*kw*c), right R (channels, c). ShapeError if they do not fit."""
        out, channels, kh, kw = geometry
        expected = ((out, core.shape[0]), (channels, core.shape[1] // (kh * kw)))
        if (left.shape, right.shape) != expected or core.shape[1] % (kh * kw):
            raise ShapeError(
                f"factored weight: got bases {left.shape} and {right.shape} for a core {core.shape}, "
                f"expected {expected[0]} and {expected[1]}."
            )
        self.geometry = geometry
        self.left, self.right = left, right
        self.core = Param(core)

    @property
    def mask(self) -> Array:
        return np.ones(self.shape, dtype=bool)

    @property
    def kept(self) -> int:
        return self.core.value.size

    def params(self) -> dict[str, Param]:
        return {"core": self.core}

    def _expand(self, core: Array) -> Array:
        """L C R^T (out, in) of a core."""
        taps = core.reshape(len(core), -1, self.right.shape[1])
        return self.left @ (taps @ self.right.T).reshape(len(core), -1)

    def _reduce(self, dense: Array) -> Array:
        """L^T W R (r, taps c) of a matrix (out, in)."""
        rows = self.left.T @ dense
        return (rows.reshape(len(rows), -1, len(self.right)) @ self.right).reshape(len(rows), -1)

    def _inside(self, x: Array) -> Array:
        """X R (rows, taps c)."""
        return (x.reshape(len(x), -1, len(self.right)) @ self.right).reshape(len(x), -1)

    def dense(self) -> Array:
        return self._expand(self.core.value)

    def apply(self, x: Array, mode: Mode) -> Array:
        return self._inside(x) @ self.core.value.T @ self.left.T

    def pull(self, dy: Array) -> Array:
        inner = (dy @ self.left) @ self.core.value
        taps = inner.reshape(len(dy), -1, self.right.shape[1]) @ self.right.T
        return taps.reshape(len(dy), -1)

    def pullback(self, x: Array, dy: Array) -> None:
        np.matmul((dy @ self.left).T, self._inside(x), out=self.core.grad)

    def rdense(self) -> Array:
        return self._expand(self.core.v())

    def rpullback(self, x: Array, rx: Array, dy: Array, rdy: Array) -> None:
        self.core.rgrad = self._reduce(rdy.T @ x + dy.T @ rx)

    def assign(self, dense: Array) -> None:
        """The core nearest to `dense` in the least-squares sense, L^T W R."""
        self.core.value[...] = self._reduce(dense)

    def rewire(self, mask: Array) -> dict[str, Array]:
        """Only the full mask: this weight has no entries to remove. Raises MethodError."""
        if mask.shape != self.shape or not mask.all():
            raise MethodError(
                "factored weight: got a mask with absent entries, expected the full one. "
                "Choose a method for masked weights, or prune rows and columns of the core."
            )
        return {"core": np.arange(self.core.value.size)}
