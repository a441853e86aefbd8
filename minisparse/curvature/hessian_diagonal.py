"""The exact diagonal of the Hessian.

F. Dangel, F. Kunstner, P. Hennig. BackPACK: Packing more into Backprop. ICLR 2020. arXiv:1912.10985

A parameter enters its own layer linearly, so its second derivative is that of all layers above. The
Hessian with respect to a layer's output is a signed sum of rank-one terms which start in two places:

    at the loss                 S[v,n] with sum_v S S^T = d2L/dy_n2, sign +1                   (1)
    at a curved activation      unit j: sqrt|r[n,j]| e_j with sign sgn r[n,j],
    y = f(z)                    r = f''(z) dL/dy                                               (2)

Both are carried down by transposed Jacobians, sign unchanged, and at a parameter

    diag H = sum_{v,n} sign[v,n] (J_n^T S[v,n])^2                                              (3)

Departure from BackPACK: no separate positive and negative factors, and no growing matrix of factors.
The terms (2) of an activation stay the diagonal matrix diag(r) as long as layers map units to units one
to one; the layer that first mixes them, if it is linear, receives their exact diagonal at the cost of
one backward pass, and only below it do they become columns. Columns descend in chunks of bounded size.
Equations and a proof for residual blocks: docs/derivations/hessian-diagonal.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minisparse.curvature.point import CHUNK_BYTES, Sum, chunk_samples, cotangents, evaluate, pieces
from minisparse.curvature.tree import Tree
from minisparse.nn.layer import Layer
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.residual import descend


def exact_diagonal(
    network: Network, loss: Loss, x: Array, target: Array, chunk_bytes: int = CHUNK_BYTES
) -> Tree:
    """Equation (3): diag of d2L/dw2 in evaluation mode, float64; entries may be negative.

    Costs one backward pass per output, plus one per unit of every curved activation that has a
    parameter below the first linear layer under it. chunk_bytes bounds the memory of the factors.
    """
    total = Sum(network)
    samples = chunk_samples(network, x, network.outputs, chunk_bytes)
    for part, t, share in pieces(x, target, samples):
        evaluate(network, loss, part, t)
        total.share = share
        network.descend(loss.sqrt_hessian(), total.squares(), need=False)
        sources = [(layer, list(below)) for layer, below in network.paths() if layer.curved]
        dy = cotangents(network, loss.grad()) if sources else {}
        for layer, below in sources:
            _descend_diagonal(below, layer.curve(dy[id(layer)]), total, samples * network.outputs)
    return total.tree


def _descend_diagonal(below: list[Layer], r: Array, total: Sum, columns: int) -> None:
    """Carry diag(r), signed, to all parameters below; `columns` samples-times-columns at a time."""
    while below and below[-1].keeps_diagonal:
        layer = below.pop()
        total.add(layer, layer.param_diagonal(r))
        r = layer.pull_squares(r)
    if not below:
        return
    if below[-1].fixed_jacobian:
        total.add(below[-1], below[-1].param_diagonal(r))
    if not any(layer.trained for layer in _still_to_visit(below)):
        return
    for s, sign, layers in _as_columns(below, r, max(1, columns // len(r))):
        descend(layers, s, total.squares(sign), need=False)


def _still_to_visit(below: list[Layer]) -> list[Layer]:
    return below[:-1] if below[-1].fixed_jacobian else below


def _as_columns(below: list[Layer], r: Array, chunk: int) -> Iterator[tuple[Array, Array, list[Layer]]]:
    """Equation (2): (S, sign, layers still to visit) for `chunk` units of r (n, *shape) at a time.

    Where the Jacobian of the next layer is the same for all samples its rows are pulled once and
    scaled for each sample.
    """
    n, shape = len(r), r.shape[1:]
    flat = r.reshape(n, -1)
    used = np.flatnonzero(flat.any(axis=0))
    for k in range(0, len(used), chunk):
        units = used[k : k + chunk]
        part = flat[:, units].T
        root = np.sqrt(np.abs(part)).reshape(len(units), n, *[1] * len(shape))
        eye = np.zeros((len(units), 1, flat.shape[1]), dtype=r.dtype)
        eye[np.arange(len(units)), 0, units] = 1
        eye = eye.reshape(len(units), 1, *shape)
        if below[-1].fixed_jacobian:
            rows = below[-1].pull(eye)
            s = root.reshape(*root.shape[:2], *[1] * (rows.ndim - 2)) * rows
        else:
            s = root * eye
        yield s, np.sign(part), _still_to_visit(below)
