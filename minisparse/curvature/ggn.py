"""Generalised Gauss-Newton matrix: its diagonal, its product with a vector, and explicit Jacobians.

N. N. Schraudolph. Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent. Neural
Computation 14(7), 2002. F. Dangel, F. Kunstner, P. Hennig. BackPACK. ICLR 2020. arXiv:1912.10985

    G = sum_n J_n^T H_n J_n,     J_n = dy_n/dw,   H_n = d2L/dy_n2 = sum_v S[v,n] S[v,n]^T      (1)
    diag G = sum_{v,n} (J_n^T S[v,n])^2                                                         (2)
    G v = J^T H (J v),     J v = R{y}                                                           (3)

G is the Hessian without the curvature of the network itself; it is positive semidefinite, and equal to
the Hessian's diagonal for networks whose activations are piecewise linear. Derivation of the factors:
docs/derivations/ggn-factors.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minisparse.curvature.gradient import pull_per_sample, pull_to_params
from minisparse.curvature.hvp import direction, rforward
from minisparse.curvature.point import CHUNK_BYTES, evaluate, squared_columns
from minisparse.curvature.tree import Tree
from minisparse.nn.loss import Loss
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array


def ggn_diagonal(
    network: Network, loss: Loss, x: Array, target: Array, chunk_bytes: int = CHUNK_BYTES
) -> Tree:
    """Equation (2), exactly, in float64; costs about as much as one backward pass per output.

    chunk_bytes bounds the memory of the factors by cutting the batch.
    """
    width = network.outputs
    return squared_columns(network, loss, x, target, lambda at: at.sqrt_hessian(), width, chunk_bytes)


def ggn_vector_product(network: Network, loss: Loss, x: Array, target: Array, v: Mapping[str, Array]) -> Tree:
    """Equation (3), exactly (docs/derivations/r-operator.md); names missing in v count as zero."""
    evaluate(network, loss, x, target)
    with direction(network, v):
        ry = rforward(network, x)
    return pull_to_params(network, loss.rgrad(ry))


def jacobian(network: Network, x: Array) -> Tree:
    """dy/dw (o, n, *shape) in evaluation mode, every entry; for small networks."""
    y = network.forward(x, EVAL)
    n, o = y.shape
    eye = np.broadcast_to(np.eye(o, dtype=y.dtype)[:, None, :], (o, n, o))
    return pull_per_sample(network, eye)


def ggn_matrix(network: Network, loss: Loss, x: Array, target: Array) -> Array:
    """G of equation (1) over flattened parameters (P, P), from J and S; for small networks."""
    evaluate(network, loss, x, target)
    columns = pull_per_sample(network, loss.sqrt_hessian())
    v, n = loss.sqrt_hessian().shape[:2]
    q = np.concatenate([a.reshape(v * n, -1) for a in columns.values()], axis=1)
    return q.T @ q
