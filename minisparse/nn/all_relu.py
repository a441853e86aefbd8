"""All-ReLU: a leaky ReLU whose slope on the left changes its sign from layer to layer.

S. Curci, D. C. Mocanu, M. Pechenizkiy. Truly Sparse Neural Networks at Scale. 2021. arXiv:2102.01732

    f(z) = z for z > 0,   f(z) = (-1)^d alpha z for z <= 0                                 (1)

in hidden layer d = 1, 2, ... of a network (the paper counts the input as layer 1, so that its even layers
are those of odd d). A unit that ReLU would silence still passes its input on, with a sign that alternates.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np

from minisparse.errors import UsageError
from minisparse.nn.activation import Activation, Elementwise
from minisparse.nn.param import Array


def left_sloped(slope: float) -> Elementwise:
    """f of equation (1) with this slope for z <= 0, and its derivatives."""

    def f(z: Array) -> Array:
        return np.where(z.real <= 0, z.dtype.type(slope) * z, z)

    def df(z: Array) -> Array:
        return np.where(z.real <= 0, slope, 1.0).astype(z.dtype)

    return Elementwise(f, df, np.zeros_like, curved=False, homogeneous=True)


class AllReLU(Activation):
    """Equation (1); it depends on the layer it stands behind, so it is a layer of its own."""

    def __init__(self, depth: int, alpha: float = 0.6) -> None:
        """depth: d >= 1; alpha >= 0 finite. Raises UsageError for anything else."""
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise UsageError(f"all-relu depth: got {depth!r}, expected a whole number >= 1.")
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha < inf:
            raise UsageError(f"all-relu alpha: got {alpha!r}, expected a finite number >= 0.")
        self.depth, self.alpha = depth, alpha
        self.name = f"all-relu {depth}"
        self.function = left_sloped(-alpha if depth % 2 else alpha)
        self.homogeneous = self.function.homogeneous
        self.curved = self.function.curved


def by_depth(alpha: str = "") -> Callable[[int], AllReLU]:
    """What stands behind hidden layer d = 1, 2, ...; alpha: the text of a number, 0.6 if there is none.

    Raises UsageError for any other text, and as AllReLU for a number it cannot use.
    """
    try:
        slope = float(alpha or 0.6)
    except ValueError:
        raise UsageError(f"all-relu alpha: got {alpha!r}, expected a number, such as 0.6.") from None
    AllReLU(1, slope)  # says now, not at the first layer, what is wrong with the number
    return lambda depth: AllReLU(depth, slope)
