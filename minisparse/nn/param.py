"""Param: one trainable array with the arrays that travel beside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray


class Param:
    """A trainable array.

    value      the parameter
    grad       dL/dvalue, written (not added to) by each backward pass: no parameter is used twice
    direction  v, the direction of an R-pass, or None where v is zero
    rgrad      this parameter's part of H v, written by rbackward
    decay      whether weight decay applies (weights: yes; biases and normalisation: no)
    rate       multiple of the learning rate this array moves by

    The arrays are C-contiguous: an update kernel sees them flat, and flattening any other layout copies.
    """

    __slots__ = ("decay", "direction", "grad", "rate", "rgrad", "value")

    def __init__(self, value: Array, decay: bool = True, rate: float = 1.0) -> None:
        self.decay = decay
        self.rate = rate
        self.set(value)

    def set(self, value: Array) -> None:
        """Replace the array (another shape or dtype is allowed) and drop what belonged to the old one."""
        self.value: Array = np.asarray(value, order="C")
        self.grad: Array = np.zeros_like(self.value)
        self.direction: Array | None = None
        self.rgrad: Array = np.zeros_like(self.value[:0])

    def v(self) -> Array:
        """The direction as an array; zeros where none was set."""
        return np.zeros_like(self.value) if self.direction is None else self.direction
