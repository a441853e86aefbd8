"""Kronecker factors of the Fisher matrix, one pair per linear layer.

J. Martens, R. Grosse. Optimizing Neural Networks with Kronecker-factored Approximate Curvature. ICML
2015. arXiv:1503.05671. R. Grosse, J. Martens. A Kronecker-factored Approximate Fisher Matrix for
Convolution Layers (KFC). ICML 2016. arXiv:1602.01407

Per sample the gradient of a linear layer is sum_p g[n,p] x[n,p]^T. With x in homogeneous coordinates (a
last 1 where the layer has a bias, so that the bias is the last column of W) and T positions,

    F ~ S (x) A,     A = 1/n sum_n sum_p x[n,p] x[n,p]^T                                        (1)
                     S = 1/(n T) sum_n sum_p E[g[n,p] g[n,p]^T]                                 (2)
    quadratic form   vec(D)^T F vec(D) = tr(D^T S D A),     D (out, in), row-major vec          (3)

(1) and (2) are KFC's convention: A sums over positions and S averages, so that A grows with the image
and S does not; for Linear T = 1. The steps between: x and g independent, positions homogeneous and
uncorrelated. Exact for one Linear layer and one sample. See docs/derivations/kfac.md.

Expectation in (2): over the model's own targets (`kfac`, exactly, through the loss's columns, or
`kfac_sampled`) or at the given ones (`kfac_empirical`). Normalisation layers have no factors here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from minisparse.curvature.arguments import positive_integer
from minisparse.curvature.point import CHUNK_BYTES, Columns, chunk_samples, evaluate, pieces
from minisparse.nn.layer import Layer, LinearLayer
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array


@dataclass(frozen=True)
class KroneckerFactors:
    """a (in [+ 1], in [+ 1]) and s (out, out) of equations (1) and (2), float64."""

    a: Array
    s: Array
    bias: bool

    def matrix(self) -> Array:
        """S (x) A over row-major vec of [W b]; for small layers."""
        return np.kron(self.s, self.a)

    def diagonal(self) -> Array:
        """Diagonal of S (x) A as (out, in [+ 1])."""
        return np.outer(np.diag(self.s), np.diag(self.a))

    def quadratic(self, d: Array) -> float:
        """Equation (3) for d (out, in [+ 1])."""
        return float(np.sum((self.s @ d @ self.a) * d))


def homogeneous(rows: Array, bias: bool) -> Array:
    """rows (..., in) in float64, with a last coordinate 1 if the layer has a bias."""
    rows = rows.astype(np.float64)
    return np.concatenate([rows, np.ones((*rows.shape[:-1], 1))], axis=-1) if bias else rows


def input_factor(layer: LinearLayer) -> Array:
    """Equation (1) from the layer's last inputs."""
    rows = homogeneous(layer.rows, layer.bias is not None)
    flat = rows.reshape(-1, rows.shape[-1])
    return flat.T @ flat / len(rows)


def output_factor(g: Array) -> Array:
    """Equation (2) from columns g (v, n, p, out) whose sum of squares over v is the expectation."""
    n, positions = g.shape[1:3]
    flat = g.reshape(-1, g.shape[-1]).astype(np.float64)
    return flat.T @ flat / (n * positions)


def _factors(
    network: Network, loss: Loss, x: Array, target: Array, columns: Columns, width: int, limit: int
) -> dict[str, KroneckerFactors]:
    """Both factors of every linear layer from columns (v, n, o) of each piece; width is v."""
    layers = {id(layer): (name, layer) for name, layer in network.prunable().items()}
    sums: dict[str, tuple[Array, Array]] = {}
    for part, t, share in pieces(x, target, chunk_samples(network, x, width, limit)):
        evaluate(network, loss, part, t)

        def step(layer: Layer, g: Array, need: bool, share: float = share) -> Array | None:
            if id(layer) in layers:
                name, linear = layers[id(layer)]
                a, s = share * input_factor(linear), share * output_factor(linear.as_rows(g))
                before = sums.get(name, (0, 0))
                sums[name] = (before[0] + a, before[1] + s)
            return layer.pull(g) if need else None

        network.descend(columns(loss), step, need=False)
    return {n: KroneckerFactors(*sums[n], layer.bias is not None) for n, layer in network.prunable().items()}


def kfac(
    network: Network, loss: Loss, x: Array, target: Array, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, KroneckerFactors]:
    """Factors of the true Fisher by layer name, the expectation exact; targets only fix the shapes.

    chunk_bytes bounds the memory of the columns by cutting the batch, here and below.
    """

    def columns(at: Loss) -> Array:
        s = at.sqrt_hessian()
        return s * np.sqrt(s.shape[1]).astype(s.dtype)

    return _factors(network, loss, x, target, columns, network.outputs, chunk_bytes)


def kfac_sampled(
    network: Network,
    loss: Loss,
    x: Array,
    target: Array,
    rng: Generator,
    draws: int = 1,
    chunk_bytes: int = CHUNK_BYTES,
) -> dict[str, KroneckerFactors]:
    """Factors of the true Fisher with `draws` targets per sample drawn from the model."""
    draws = positive_integer("draws", draws)

    def columns(at: Loss) -> Array:
        g = np.stack([at.sample(rng) for _ in range(draws)])
        return g / np.sqrt(draws).astype(g.dtype)

    return _factors(network, loss, x, target, columns, draws, chunk_bytes)


def kfac_empirical(
    network: Network, loss: Loss, x: Array, target: Array, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, KroneckerFactors]:
    """Factors of the empirical Fisher, gradients at the given targets."""

    def columns(at: Loss) -> Array:
        g = at.grad()
        return (g * len(g))[None]

    return _factors(network, loss, x, target, columns, 1, chunk_bytes)
