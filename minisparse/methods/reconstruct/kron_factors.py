"""Kronecker-factored curvature of each layer's weights, and the ranking of whole rows by it.

For a layer with weights W (out, in), inputs x and per-sample derivatives g of the loss at its outputs,

    F ~ S (x) A,     A = E x x^T (in, in),     S = E g g^T (out, out)                       (1)
    rise of the loss for the change D of W:     tr(D^T S D A) / 2                           (2)

(`curvature/kfac.py`; positions of a convolution are summed in A and averaged in S). Biases take no part: the
bias of a removed row stays, a constant.

Rows are ranked over the whole network by what they cost. The output layer's rows are the classes, and the
`floor` best of every other layer's are what keeps it alive: both rank above all other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np
from numpy.random import Generator

from minisparse.curvature.kfac import KroneckerFactors, kfac, kfac_sampled
from minisparse.curvature.point import pieces
from minisparse.methods.base import layer_shapes
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Global
from minisparse.sparsity.pattern import Row
from minisparse.sparsity.select import select
from minisparse.training.state import TrainState

BATCH = 64

Factors = dict[str, tuple[Array, Array]]


def _exact(network: Network, loss: Loss, x: Array, t: Array, rng: Generator) -> dict[str, KroneckerFactors]:
    return kfac(network, loss, x, t)


# Expectation over targets in S: over all of them by their probabilities, or over one drawn for each sample.
EXPECTATIONS: dict[str, Callable[..., dict[str, KroneckerFactors]]] = {
    "exact": _exact,
    "sampled": kfac_sampled,
}


def kron_factors(state: TrainState, samples: int, expectation: str) -> Factors:
    """(A, S) of every prunable layer by name, float64, from calibration samples; the key of EXPECTATIONS."""
    x, target = state.calibration(samples)
    rng = state.rng("fisher targets")
    factors: Factors = {}
    for part, t, share in pieces(x, target, BATCH):
        for name, layer in EXPECTATIONS[expectation](state.network, state.loss, part, t, rng).items():
            inputs = state.network.prunable()[name].weight.shape[1]
            a, s = factors.get(name, (0, 0))
            factors[name] = a + share * layer.a[:inputs, :inputs], s + share * layer.s
    return factors


def ranked(importance: dict[str, Array], floor: float) -> dict[str, Array]:
    """Importances (out,) of rows by layer, with those that come last to leave raised above all others."""
    names = list(importance)
    top = max(float(rows.max()) for rows in importance.values()) or 1.0
    raised = {}
    for name, rows in importance.items():
        count = len(rows) if name == names[-1] else ceil(floor * len(rows))
        best = np.argsort(-rows, kind="stable")[:count]
        raised[name] = rows.astype(np.float64)
        raised[name][best] += 2 * top
    return raised


def spread_rows(importance: dict[str, Array], network: Network) -> dict[str, Array]:
    """Scores (out, in) with the importance of its row at each entry."""
    shapes = layer_shapes(network)
    return {n: np.broadcast_to(rows[:, None], shapes[n].matrix).copy() for n, rows in importance.items()}


def select_rows(
    importance: dict[str, Array], network: Network, sparsity: float, floor: float
) -> dict[str, Array]:
    """Masks (out, in) of whole rows, ranked over all layers; present rows only."""
    scores = spread_rows(ranked(importance, floor), network)
    return select(scores, layer_shapes(network), sparsity, Global(), Row(), network.masks())
