"""Geometry of a prunable layer: how a weight matrix (out, in) is made of channels and kernel taps.

A convolution with kernel kh x kw over c input channels is the matrix (out, kh*kw*c) whose columns
are ordered tap by tap, the channel fastest:

    column(ky, kx, ch) = (ky kw + kx) c + ch                                               (1)

so that M consecutive columns are M input channels of one tap, which is the axis N:M groups need.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisparse.errors import ShapeError
from minisparse.sparsity.count import is_whole

Array: TypeAlias = NDArray[Any]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class LayerShape:
    """Outputs, input channels and kernel of one prunable layer; a linear layer has kh = kw = 1.

    ShapeError unless all four are whole numbers >= 1.
    """

    out: int
    channels: int
    kh: int = 1
    kw: int = 1

    def __post_init__(self) -> None:
        for name in ("out", "channels", "kh", "kw"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise ShapeError(
                    f"layer shape has a bad {name}: got {value!r}, expected a whole number >= 1."
                )
            object.__setattr__(self, name, int(value))

    @property
    def taps(self) -> int:
        """Kernel positions kh*kw; more than one means the layer is a spatial convolution."""
        return self.kh * self.kw

    @property
    def matrix(self) -> tuple[int, int]:
        """(out, in) with in = kh*kw*channels: the shape of weight, score and mask."""
        return self.out, self.taps * self.channels

    @property
    def size(self) -> int:
        """Number of entries of the matrix."""
        return self.out * self.taps * self.channels

    @property
    def dims(self) -> tuple[int, int, int, int]:
        """(n_in, n_out, kh, kw), the numbers in the Erdos-Renyi-Kernel formula."""
        return self.channels, self.out, self.kh, self.kw
