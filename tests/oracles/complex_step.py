"""Complex step: Im f(x + i h v) / h is the derivative along v to rounding error, since nothing is subtracted.

W. Squire, G. Trapp. Using Complex Variables to Estimate Derivatives of Real Functions. SIAM Review 40(1),
1998. With h = 1e-20 the terms of second order, h^2, lie below every rounding error.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minisparse.nn import EVAL, Loss, Mode, Network

Array = np.ndarray
H = 1e-20


def derivative(f: Callable[[Array], Array], x: Array, v: Array) -> Array:
    """d/dt f(x + t v) at t = 0."""
    return np.imag(f(x + 1j * H * v)) / H


def jacobian(f: Callable[[Array], Array], x: Array) -> Array:
    """All derivatives of f at x: shape f(x).shape + x.shape."""
    columns = []
    for k in range(x.size):
        v = np.zeros(x.size)
        v[k] = 1
        columns.append(derivative(f, x, v.reshape(x.shape)))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *x.shape)


@dataclass
class Along:
    """What one complex pass gives: derivatives along the direction, and the values it was taken at."""

    slope: float
    grads: dict[str, Array]
    dx: Array
    rgrads: dict[str, Array]
    rdx: Array


class Twin:
    """A complex copy of a network, to be stepped along directions of its parameters and its input.

    Absent entries of a weight are no parameters: a direction is not followed there.
    """

    def __init__(self, network: Network, loss: Loss, x: Array, target: Array, mode: Mode = EVAL) -> None:
        self.network, self.loss, self.mode = network.astype(np.complex128), loss, mode
        self.x, self.target = x, target
        self.values = {k: p.value.copy() for k, p in self.network.params().items()}
        self.masks = {f"{name}.weight": mask for name, mask in network.masks().items()}

    def _value(self, v: dict[str, Array], u: Array | None) -> complex:
        for k, p in self.network.params().items():
            p.value[...] = self.values[k]
            if k in v:
                p.value += 1j * H * v[k] * self.masks.get(k, True)
        x = self.x.astype(np.complex128) if u is None else self.x + 1j * H * u
        return complex(self.loss.value(self.network.forward(x, self.mode), self.target))

    def slope(self, v: dict[str, Array], u: Array | None = None) -> float:
        """Derivative of the loss along parameter directions v and input direction u."""
        return self._value(v, u).imag / H

    def along(self, v: dict[str, Array], u: Array | None = None) -> Along:
        """Derivatives of the loss and of every gradient along v and u."""
        slope = self.slope(v, u)
        dx = self.network.backward(self.loss.grad())
        grads = {k: p.grad.copy() for k, p in self.network.params().items()}
        return Along(
            slope,
            {k: g.real for k, g in grads.items()},
            dx.real,
            {k: g.imag / H for k, g in grads.items()},
            dx.imag / H,
        )
