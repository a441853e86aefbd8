"""The point at which curvature is taken: one batch, evaluation mode, and the sums over it.

Samples are independent of each other in evaluation mode, so a batch may be cut into pieces. With the
loss a mean over n samples, a piece of m samples counts m / n of its own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from minisparse.curvature import tree as trees
from minisparse.curvature.tree import Tree
from minisparse.errors import NonFiniteError, UsageError
from minisparse.nn.layer import Layer, Step
from minisparse.nn.loss import Loss
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array

CHUNK_BYTES = 1 << 25  # of factor columns at the widest layer; more does not make it faster


def _require_samples(x: Array) -> None:
    if len(x) == 0:
        raise UsageError("curvature batch: got 0 samples, expected at least 1.")


def evaluate(network: Network, loss: Loss, x: Array, target: Array) -> Array:
    """Outputs (n, o) in evaluation mode, with the loss taken there. NonFiniteError, UsageError."""
    _require_samples(x)
    y = network.forward(x, EVAL)
    value = loss.value(y, target)
    if not np.isfinite(value):
        raise NonFiniteError(f"loss: got {value}, expected a finite number. Lower the learning rate.")
    return y


def pieces(x: Array, target: Array, samples: int) -> Iterator[tuple[Array, Array, float]]:
    """(x, target, share of the batch) of at most `samples` samples each."""
    for k in range(0, len(x), samples):
        part = x[k : k + samples]
        yield part, target[k : k + samples], len(part) / len(x)


def sample_bytes(network: Network, x: Array) -> int:
    """Bytes of one factor column for one sample where it is widest, patches of convolutions included."""
    network.forward(x[:1], EVAL)
    widest = 0

    def step(layer: Layer, dy: Array, need: bool) -> Array:
        nonlocal widest
        down = layer.pull(dy)
        widest = max(widest, dy.size, down.size)
        return down

    network.descend(np.zeros((1, network.outputs), dtype=network.dtype), step)
    patches = max((layer.rows.size for layer in network.prunable().values()), default=0)
    return max(widest, patches) * network.dtype.itemsize


def chunk_samples(network: Network, x: Array, columns: int, limit: int) -> int:
    """How many samples' factors with so many columns fit in `limit` bytes; at least 1."""
    _require_samples(x)
    return max(1, limit // (columns * sample_bytes(network, x)))


def cotangents(network: Network, dy: Array) -> dict[int, Array]:
    """dL/dy at the output of every innermost layer, by id(layer), from dy at the network's output."""
    seen: dict[int, Array] = {}

    def step(layer: Layer, g: Array, need: bool) -> Array:
        seen[id(layer)] = g
        return layer.pull(g)

    network.descend(dy, step)
    return seen


class Sum:
    """Adds up per-parameter arrays under the parameters' names, in float64."""

    def __init__(self, network: Network) -> None:
        self.names = {id(layer): name for name, layer in network.walk()}
        self.tree = trees.zeros(network)
        self.share = 1.0

    def add(self, layer: Layer, parts: Mapping[str, Array]) -> None:
        """Add share * parts of one layer."""
        name = self.names[id(layer)]
        for key, part in parts.items():
            self.tree[f"{name}.{key}"] += self.share * part

    def squares(self, sign: Array | None = None) -> Step:
        """The step that carries factor columns down and adds the squares at every parameter."""

        def step(layer: Layer, s: Array, need: bool) -> Array | None:
            self.add(layer, layer.param_squares(s, sign))
            return layer.pull(s) if need else None

        return step


Columns = Callable[[Loss], Array]


def squared_columns(
    network: Network, loss: Loss, x: Array, target: Array, columns: Columns, width: int, limit: int
) -> Tree:
    """sum_{v,n} (J_n^T S[v,n])^2 of the columns (v, n, o) that `columns` takes from the loss.

    width is v; columns must carry the 1/n of the mean as sqrt(1/n) of the piece they belong to.
    """
    total = Sum(network)
    for part, t, share in pieces(x, target, chunk_samples(network, x, width, limit)):
        evaluate(network, loss, part, t)
        total.share = share
        network.descend(columns(loss), total.squares(), need=False)
    return total.tree
