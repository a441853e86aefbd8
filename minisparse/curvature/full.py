"""The whole Hessian of a small network, column by column.

    H[:, j] = H e_j                                                                             (1)

by Hessian-vector products, all of them from one forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minisparse.curvature import tree as trees
from minisparse.curvature.hvp import hvps
from minisparse.curvature.tree import Tree
from minisparse.errors import NonFiniteError, UsageError
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array

LIMIT = 5000


def hessian(network: Network, loss: Loss, x: Array, target: Array, limit: int = LIMIT) -> Array:
    """Equation (1): (P, P) float64 over flattened parameters, symmetrised, evaluation mode.

    Raises UsageError above `limit` parameters, and NonFiniteError where entries are not finite.
    """
    like = trees.values(network)
    size = sum(a.size for a in like.values())
    if size > limit:
        raise UsageError(
            f"full Hessian: got {size} parameters, expected at most {limit}. "
            "Use Hessian-vector products or the diagonal."
        )
    columns = np.empty((size, size))
    for j, hv in enumerate(hvps(network, loss, x, target, _units(size, like))):
        columns[j] = trees.flatten(hv)
    if not np.isfinite(columns).all():
        raise NonFiniteError("full Hessian: got NaN or infinite entries, expected finite ones.")
    return (columns + columns.T) / 2


def _units(size: int, like: Tree) -> Iterator[Tree]:
    for j in range(size):
        e = np.zeros(size)
        e[j] = 1
        yield trees.unflatten(e, like)


def asymmetry(matrix: Array) -> float:
    """Largest |M_ij - M_ji| relative to the largest |M_ij|; 0 for the zero matrix."""
    largest = np.abs(matrix).max(initial=0.0)
    return float(np.abs(matrix - matrix.T).max(initial=0.0) / largest) if largest else 0.0
