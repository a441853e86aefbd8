"""Fisher information: of the model's own predictions, and its empirical stand-in.

S. Amari. Natural Gradient Works Efficiently in Learning. Neural Computation 10(2), 1998.
F. Kunstner, P. Hennig, L. Balles. Limitations of the Empirical Fisher Approximation. NeurIPS 2019.
arXiv:1905.12558

    F  = 1/n sum_n E_{t ~ model(y_n)} [g_n(t) g_n(t)^T]      (true)                             (1)
    F' = 1/n sum_n g_n g_n^T at the given targets            (empirical)                        (2)

g_n is the gradient of one sample's own loss: (mean of g)^2 is neither. The squared error belongs to a
Gaussian of unit variance, the cross-entropies to categorical and Bernoulli targets. For these three
losses the expectation in (1) equals the loss Hessian, E[dl dl^T] = H_n n, so the true Fisher is exactly
the generalised Gauss-Newton matrix and the columns S of the loss do the enumeration of classes:
S[v,n] = -sqrt(p_v) (p - e_v) / sqrt(n) is the gradient for class v, weighed by its probability. The
empirical Fisher vanishes where the network fits its targets perfectly; the true one does not.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from minisparse.curvature import tree as trees
from minisparse.curvature.arguments import positive_integer
from minisparse.curvature.ggn import ggn_diagonal
from minisparse.curvature.gradient import per_sample_gradients
from minisparse.curvature.point import CHUNK_BYTES, squared_columns
from minisparse.curvature.tree import Tree
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array


def fisher_diagonal(
    network: Network, loss: Loss, x: Array, target: Array, chunk_bytes: int = CHUNK_BYTES
) -> Tree:
    """Diagonal of (1), the expectation taken exactly; float64. Targets only fix the shapes."""
    return ggn_diagonal(network, loss, x, target, chunk_bytes)


def fisher_diagonal_sampled(
    network: Network,
    loss: Loss,
    x: Array,
    target: Array,
    rng: Generator,
    draws: int = 1,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tree:
    """Diagonal of (1) with `draws` targets per sample drawn from the model; unbiased, float64."""
    draws = positive_integer("draws", draws)

    def columns(at: Loss) -> Array:
        g = np.stack([at.sample(rng) for _ in range(draws)])
        return g / np.sqrt(draws * g.shape[1]).astype(g.dtype)

    return squared_columns(network, loss, x, target, columns, draws, chunk_bytes)


def empirical_fisher_diagonal(
    network: Network, loss: Loss, x: Array, target: Array, chunk_bytes: int = CHUNK_BYTES
) -> Tree:
    """Diagonal of (2): the mean over samples of the squared per-sample gradient, float64."""

    def columns(at: Loss) -> Array:
        g = at.grad()
        return g[None] * np.sqrt(len(g)).astype(g.dtype)

    return squared_columns(network, loss, x, target, columns, 1, chunk_bytes)


def empirical_fisher_blocks(
    network: Network, loss: Loss, x: Array, target: Array, block: int | None = None
) -> dict[str, list[Array]]:
    """Diagonal blocks of (2) over `block` consecutive entries of each parameter (None: the whole).

    Returns {name: [(b, b) float64, ...]}, the last block of a parameter possibly smaller. Blocks never
    cross parameters.
    """
    width = None if block is None else positive_integer("block", block)
    blocks = {}
    for name, g in per_sample_gradients(network, loss, x, target).items():
        flat = g.reshape(len(g), -1).astype(np.float64)
        step = width or flat.shape[1]
        parts = [flat[:, k : k + step] for k in range(0, flat.shape[1], step)]
        blocks[name] = [part.T @ part / len(flat) for part in parts]
    return blocks


def empirical_fisher_matrix(network: Network, loss: Loss, x: Array, target: Array) -> Array:
    """All of (2) over flattened parameters (P, P), float64; for small networks."""
    g = per_sample_gradients(network, loss, x, target)
    n = len(x)
    flat = trees.flatten({k: a.reshape(n, -1).T for k, a in g.items()}).reshape(-1, n).astype(np.float64)
    return flat @ flat.T / n
