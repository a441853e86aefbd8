"""Window: the geometry of a sliding kernel (size, stride, padding, dilation) and its unfolding."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from minisparse.errors import ShapeError
from minisparse.kernels.unfold import fold, unfold
from minisparse.nn.param import Array

Pair = tuple[int, int]


def pair(value: int | Pair, name: str, least: int) -> Pair:
    """An int or a pair of ints as (height, width), each >= least; ShapeError otherwise."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2 or not all(_is_integer(v) and v >= least for v in both):
        raise ShapeError(f"{name}: got {value!r}, expected an integer or a pair of integers >= {least}.")
    return int(both[0]), int(both[1])


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass(frozen=True)
class Window:
    """All in (height, width) order; use `Window.of` to give single integers."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @classmethod
    def of(
        cls,
        kernel: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
    ) -> Window:
        """Build from integers or pairs; kernel, stride and dilation >= 1, padding >= 0."""
        return cls(
            pair(kernel, "kernel", 1),
            pair(stride, "stride", 1),
            pair(padding, "padding", 0),
            pair(dilation, "dilation", 1),
        )

    @property
    def array(self) -> Array:
        """The eight numbers as the kernels take them."""
        return np.array([*self.kernel, *self.stride, *self.padding, *self.dilation], dtype=np.int64)

    def output_size(self, size: Pair) -> Pair:
        """(oh, ow) for an image of (h, w); ShapeError if the kernel does not fit."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        room = [s + 2 * p - r for s, p, r in zip(size, self.padding, reach, strict=True)]
        if min(room) < 0:
            raise ShapeError(
                f"kernel {self.kernel} with dilation {self.dilation} and padding {self.padding}: "
                f"got an image of {tuple(size)}, expected at least "
                f"{tuple(r - 2 * p for r, p in zip(reach, self.padding, strict=True))}."
            )
        return room[0] // self.stride[0] + 1, room[1] // self.stride[1] + 1

    def always_inside(self, size: Pair) -> bool:
        """Whether every placement of the window reads at least one pixel of an (h, w) image."""
        axes = zip(
            self.kernel, self.stride, self.padding, self.dilation, size, self.output_size(size), strict=True
        )
        for k, s, p, d, length, out in axes:
            at = np.arange(out)[:, None] * s - p + np.arange(k) * d
            if not ((at >= 0) & (at < length)).any(axis=1).all():
                return False
        return True

    def unfold(self, x: Array) -> Array:
        """Patches of x (n, h, w, c) as (n, oh * ow, kh * kw * c)."""
        n, _, _, c = x.shape
        oh, ow = self.output_size(x.shape[1:3])
        width = self.kernel[0] * self.kernel[1] * c
        out = np.empty((n, oh, ow, width), dtype=x.dtype)
        unfold(x, self.array, out)
        return out.reshape(n, oh * ow, width)

    def fold(self, rows: Array, size: Pair) -> Array:
        """Transpose of unfold: rows (n, oh * ow, kh * kw * c) -> (n, h, w, c)."""
        n, _, width = rows.shape
        oh, ow = self.output_size(size)
        out = np.empty((n, *size, width // (self.kernel[0] * self.kernel[1])), dtype=rows.dtype)
        fold(rows.reshape(n, oh, ow, width), self.array, out)
        return out
