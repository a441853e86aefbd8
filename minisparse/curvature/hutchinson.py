"""Hutchinson's stochastic estimate of the Hessian's diagonal.

M. F. Hutchinson. Communications in Statistics 18(3), 1989 (trace). C. Bekas, E. Kokiopoulou, Y. Saad. An
estimator for the diagonal of a matrix. Applied Numerical Mathematics 57, 2007.

    E[v o H v] = diag H,     v[i] = +1 or -1 with equal probability                             (1)
    Var[(v o H v)_i] = sum_{j != i} H_ij^2                                                      (2)

The mean over probes is returned with its standard error. By (2) a diagonal Hessian is exact after one
probe; Gaussian probes would add 2 H_ii^2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from minisparse.curvature import tree as trees
from minisparse.curvature.arguments import positive_integer
from minisparse.curvature.hvp import hvps
from minisparse.curvature.tree import Tree
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array


def rademacher(network: Network, rng: Generator) -> Tree:
    """A tree of independent signs, of the network's type."""
    like = trees.values(network)
    return {name: (2 * rng.integers(0, 2, a.shape) - 1).astype(a.dtype) for name, a in like.items()}


def hutchinson(
    network: Network, loss: Loss, x: Array, target: Array, rng: Generator, probes: int = 100
) -> tuple[Tree, Tree]:
    """(estimate, standard error) of diag H from (1), float64; one probe has standard error NaN."""
    probes = positive_integer("probes", probes)
    mean, spread = trees.zeros(network), trees.zeros(network)
    drawn: list[Tree] = []

    def draw() -> Iterator[Tree]:
        for _ in range(probes):
            drawn.append(rademacher(network, rng))
            yield drawn[-1]

    for k, hv in enumerate(hvps(network, loss, x, target, draw()), 1):
        v = drawn.pop()
        for name in mean:  # Welford's update: no cancellation between large sums
            sample = v[name] * hv[name].astype(np.float64)
            delta = sample - mean[name]
            mean[name] += delta / k
            spread[name] += delta * (sample - mean[name])
    freedom = probes - 1 if probes > 1 else np.nan
    return mean, {name: np.sqrt(a / freedom / probes) for name, a in spread.items()}
