"""What the layers of a network read that does not depend on the network's input.

What unit u adds to a layer that reads it, at output o, position p and network input x, is

    a_u[o, p](x) = sum over the columns j of u   W[o, j] rows(x)[p, j]                     (1)

A column is constant if no path of weights other than 0, and of normalisation scales other than 0, leads to it
from the input; then rows[p, j] can be read off the network's response to any input. An output of ReLU that is
0 for all inputs in practice is not constant in this sense.

Everything is about evaluation mode, and computed in float64 whatever the network's precision. Which entries
are 0 decides, not which are masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minisparse.nn.layer import Layer
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight
from minisparse.sparsity.shape import Mask

ROUNDING = 1e-12  # relative: how far equal sums may be apart when their terms come in another order


@dataclass(frozen=True)
class Reading:
    """How one layer with weights reads its input.

    rows    (p, in) what it reads when the network reads zeros; of constant columns, what it always reads
    varies  (in,) columns that depend on the network's input
    read    (in,) columns with an entry other than 0
    weight  (out, in) the matrix, zeros for absent entries
    """

    rows: Array
    varies: Mask
    read: Mask
    weight: Array

    def constant(self, columns: Array) -> bool:
        """Whether what the unit with these columns (k,) adds is the same for every input."""
        return not (self.varies[columns] & self.read[columns]).any()

    def addition(self, columns: Array) -> Array | None:
        """a_u (out,) of (1) for the unit with columns (k,); None if it depends on input or position."""
        if not self.constant(columns):
            return None
        at = columns[self.read[columns]]
        if at.size == 0:
            return np.zeros(len(self.weight), dtype=self.weight.dtype)
        rows, weight = self.rows[:, at], self.weight[:, at]
        adds: Array = rows @ weight.T
        size = np.abs(rows).max() * np.abs(weight).max()
        return None if (np.abs(adds - adds[0]) > ROUNDING * size).any() else adds[0]

    def ratio(self, columns: Array, others: Array) -> complex | None:
        """r with rows[:, columns] = r rows[:, others], all of them constant; None if there is none."""
        if self.varies[columns].any() or self.varies[others].any() or columns.shape != others.shape:
            return None
        a, b = self.rows[:, columns], self.rows[:, others]
        at = np.unravel_index(np.abs(b).argmax(), b.shape)
        if b[at] == 0:
            return None
        r = (a[at] / b[at]).item()
        return r if (np.abs(a - r * b) <= ROUNDING * np.abs(a).max()).all() else None


def readings(network: Network) -> dict[str, Reading]:
    """The reading of every layer with weights, by layer name."""
    work = network.astype(np.result_type(network.dtype, np.float64))
    for layer in work.prunable().values():
        old = layer.weight
        layer.weight = MaskedWeight(old.dense().copy(), old.geometry, old.mask & (old.dense() != 0))
    zeros = np.zeros((1, *work.input_shape), dtype=work.dtype)
    values = _inputs(work, zeros, lambda layer, x: layer.forward(x))
    signals = _inputs(work, np.ones_like(zeros), lambda layer, x: layer.reach(x))
    found = {}
    for name, layer in work.prunable().items():
        layer.forward((signals[layer] != 0).astype(work.dtype))
        varies = layer.rows[0].any(axis=0)
        layer.forward(values[layer])
        weight = layer.weight.dense()
        found[name] = Reading(layer.rows[0], varies, np.count_nonzero(weight, axis=0) > 0, weight)
    return found


def _inputs(network: Network, x: Array, step: Callable[[Layer, Array], Array]) -> dict[Layer, Array]:
    """What each innermost layer reads when x is carried through the network by `step`."""
    known: dict[tuple[Layer, ...], Array] = {(): x}
    found = {}
    for layer, below in network.paths():
        for k in range(len(below)):
            if below[: k + 1] not in known:
                known[below[: k + 1]] = step(below[k], known[below[:k]])
        found[layer] = known[below]
    return found
