"""Gram matrices of layer inputs: the Hessian of every layer's reconstruction error.

    |Y - X W^T|^2 / (2 r)  has, for each row of W, the Hessian  A = X^T X / r                  (1)

with X (r, in) the inputs of the layer, r = samples x positions (a convolution's patches are its rows).
Layer-wise OBS, OBC, SparseGPT and Wanda need nothing else of the data. Sums run in float64 over any
number of batches; a batch size changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minisparse.curvature.kfac import homogeneous
from minisparse.errors import NonFiniteError, ShapeError, UsageError
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array


class Gram:
    """Running X^T X and number of rows."""

    def __init__(self, size: int) -> None:
        """size: the layer's number of inputs, a bias coordinate included."""
        self.total = np.zeros((size, size))
        self.rows = 0

    def add(self, rows: Array) -> None:
        """Add rows (..., size). Raises ShapeError for another width, NonFiniteError for NaN or inf."""
        if rows.shape[-1] != len(self.total):
            raise ShapeError(f"Gram rows: got width {rows.shape[-1]}, expected {len(self.total)}.")
        flat = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
        product = flat.T @ flat
        if not np.isfinite(product).all():
            raise NonFiniteError("Gram rows: got a product that is NaN or infinite, expected finite inputs.")
        self.total += product
        self.rows += len(flat)

    @property
    def mean(self) -> Array:
        """Equation (1), (size, size) float64; UsageError before any rows were added."""
        if self.rows == 0:
            raise UsageError("Gram matrix: got 0 rows, expected at least 1.")
        return self.total / self.rows


def input_grams(network: Network, batches: Iterable[Array], bias: bool = False) -> dict[str, Array]:
    """Equation (1) for every prunable layer by name, over batches of network inputs, evaluation mode.

    bias: append the constant input 1 of layers that have a bias, as the last coordinate.
    """
    grams: dict[str, Gram] = {}
    for x in batches:
        network.forward(x, EVAL)
        for name, layer in network.prunable().items():
            rows = homogeneous(layer.rows, bias and layer.bias is not None)
            grams.setdefault(name, Gram(rows.shape[-1])).add(rows)
    return {name: gram.mean for name, gram in grams.items()}
