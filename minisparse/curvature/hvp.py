"""Exact Hessian-vector products by Pearlmutter's R-operator.

B. A. Pearlmutter. Fast Exact Multiplication by the Hessian. Neural Computation 6(1), 1994.

    R{f} = d/de f(w + e v) at e = 0,     H v = R{dL/dw}                                     (1)

One R-forward pass carries R{y} up, one R-backward pass carries (dL/dy, R{dL/dy}) down; both cost about
as much as the passes they accompany, and nothing is approximated (docs/derivations/r-operator.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from scipy.sparse.linalg import LinearOperator

from minisparse.curvature import tree as trees
from minisparse.curvature.point import evaluate
from minisparse.curvature.tree import Tree
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array


@contextmanager
def direction(network: Network, v: Mapping[str, Array]) -> Iterator[None]:
    """Set every Param's direction from a tree (0 for names it lacks); None again afterwards."""
    trees.check(network, v, "direction")
    params = network.params()
    try:
        for name, p in params.items():
            p.direction = np.asarray(v[name], dtype=p.value.dtype) if name in v else None
        yield
    finally:
        for p in params.values():
            p.direction = None
            p.rgrad = np.zeros_like(p.value[:0])


def rforward(network: Network, x: Array) -> Array:
    """R{y} (n, o) along the parameters' directions; the input does not move."""
    return network.rforward(np.zeros((len(x), *network.input_shape), dtype=network.dtype))


def _product(network: Network, loss: Loss, x: Array, v: Mapping[str, Array]) -> Tree:
    """H v by equation (1) at the last forward point."""
    with direction(network, v):
        ry = rforward(network, x)
        network.rbackward(loss.grad(), loss.rgrad(ry))
        return {name: p.rgrad.copy() for name, p in network.params().items()}


def hvp(network: Network, loss: Loss, x: Array, target: Array, v: Mapping[str, Array]) -> Tree:
    """H v for the mean loss on (x, target), evaluation mode; names missing in v count as zero.

    Raises UnknownNameError or ShapeError when v does not fit the network.
    """
    evaluate(network, loss, x, target)
    return _product(network, loss, x, v)


def hvps(
    network: Network, loss: Loss, x: Array, target: Array, vs: Iterable[Mapping[str, Array]]
) -> Iterator[Tree]:
    """H v for each v in turn, with one forward pass for all; do not use the network in between."""
    evaluate(network, loss, x, target)
    for v in vs:
        yield _product(network, loss, x, v)


def hessian_operator(network: Network, loss: Loss, x: Array, target: Array) -> LinearOperator:
    """The Hessian as a SciPy LinearOperator over flattened parameters (`tree.flatten` order)."""
    like = trees.values(network)
    size = sum(a.size for a in like.values())

    def matvec(vector: Array) -> Array:
        v = trees.unflatten(np.ravel(vector), like)
        return trees.flatten(hvp(network, loss, x, target, v))

    return LinearOperator((size, size), matvec=matvec, rmatvec=matvec, dtype=network.dtype)
