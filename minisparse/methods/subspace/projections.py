"""Maps P from few coordinates z (d) to all parameters (D), and their transposes.

C. Li, H. Farkhoor, R. Liu, J. Yosinski. Measuring the Intrinsic Dimension of Objective Landscapes. ICLR 2018.
arXiv:1804.08838
P. Li, T. J. Hastie, K. W. Church. Very Sparse Random Projections. KDD 2006
Q. Le, T. Sarlos, A. Smola. Fastfood: Computing Hilbert Space Expansions in loglinear time. ICML 2013.
arXiv:1408.3060

    dense        columns of independent Gaussians, scaled to norm 1                          (1)
    orthonormal  Q of a QR decomposition of such a matrix: P^T P = I                         (2)
    sparse       each entry is +-1 with probability 1/sqrt(D), else 0; columns scaled to norm 1      (3)
    fastfood     the first D rows and d columns of c H G Pi H B                              (4)
    axes         d columns of the identity: d parameters move, the others stay               (5)

In (4) H is the Walsh-Hadamard matrix of the next power of two L >= D, G a diagonal of Gaussians, Pi a
permutation, B a diagonal of signs. Entries of H are +-1 and H H = L I, so every row and every column of
H G Pi H B has the norm sqrt(L) ||G||; with c = 1 / (sqrt(D) ||G||) columns of the first D rows have norm 1
in the mean over B, G and Pi, and exactly if D = L.

Memory and time of P z: D d, D d, d sqrt(D), D log D and d; those of P^T g are the same.

Departures: an empty column of (3) gets one entry. Le et al. multiply (4) by one more diagonal, which Li et
al. leave out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.random import Generator
from scipy.sparse import csc_array

from minisparse.kernels.walsh import walsh_hadamard
from minisparse.nn.param import Array

Parts = dict[str, Array]


@dataclass(frozen=True)
class Projection:
    """P as three functions; `parts` holds its arrays.

    draw      (D, d, rng) -> parts, floats in float64
    expand    (parts, z (d), D) -> P z (D)
    restrict  (parts, g (D), d) -> P^T g (d)
    """

    draw: Callable[[int, int, Generator], Parts]
    expand: Callable[[Parts, Array, int], Array]
    restrict: Callable[[Parts, Array, int], Array]


def draw_dense(rows: int, columns: int, rng: Generator) -> Parts:
    """Equation (1)."""
    matrix = rng.standard_normal((rows, columns))
    return {"matrix": matrix / np.linalg.norm(matrix, axis=0)}


def draw_orthonormal(rows: int, columns: int, rng: Generator) -> Parts:
    """Equation (2); columns <= rows."""
    return {"matrix": np.linalg.qr(rng.standard_normal((rows, columns)))[0]}


def draw_sparse(rows: int, columns: int, rng: Generator) -> Parts:
    """Equation (3), column by column: row numbers, values, and where each column begins."""
    counts = np.maximum(rng.binomial(rows, 1 / sqrt(rows), columns), 1)
    where = [np.sort(rng.choice(rows, count, replace=False)) for count in counts]
    signs = rng.choice([-1.0, 1.0], counts.sum())
    return {
        "rows": np.concatenate(where).astype(np.int32),
        "values": signs / np.sqrt(np.repeat(counts, counts)),
        "starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
    }


def draw_fastfood(rows: int, columns: int, rng: Generator) -> Parts:
    """Equation (4): the diagonal of B, the order that Pi makes, the diagonal of c G."""
    length = 1 << (rows - 1).bit_length()
    gauss = rng.standard_normal(length)
    return {
        "signs": rng.choice([-1.0, 1.0], length),
        "order": rng.permutation(length),
        "gauss": gauss / (sqrt(rows) * np.linalg.norm(gauss)),
    }


def draw_axes(rows: int, columns: int, rng: Generator) -> Parts:
    """Equation (5): which parameters move, ascending; columns <= rows."""
    return {"rows": np.sort(rng.permutation(rows)[:columns])}


def expand_matrix(parts: Parts, z: Array, rows: int) -> Array:
    return parts["matrix"] @ z


def restrict_matrix(parts: Parts, g: Array, columns: int) -> Array:
    return g @ parts["matrix"]


def _columns(parts: Parts, rows: int, columns: int) -> csc_array:
    return csc_array((parts["values"], parts["rows"], parts["starts"]), shape=(rows, columns))


def expand_sparse(parts: Parts, z: Array, rows: int) -> Array:
    return _columns(parts, rows, z.size) @ z


def restrict_sparse(parts: Parts, g: Array, columns: int) -> Array:
    return _columns(parts, g.size, columns).T @ g


def expand_fastfood(parts: Parts, z: Array, rows: int) -> Array:
    """H (c G) Pi H B z, from right to left."""
    v = np.zeros_like(parts["signs"])
    v[: z.size] = parts["signs"][: z.size] * z
    walsh_hadamard(v)
    v = parts["gauss"] * v[parts["order"]]
    walsh_hadamard(v)
    return v[:rows]


def restrict_fastfood(parts: Parts, g: Array, columns: int) -> Array:
    """B H Pi^T (c G) H g: the factors are symmetric but for Pi."""
    v = np.zeros_like(parts["signs"])
    v[: g.size] = g
    walsh_hadamard(v)
    back = np.empty_like(v)
    back[parts["order"]] = parts["gauss"] * v
    walsh_hadamard(back)
    return (parts["signs"] * back)[:columns]


def expand_axes(parts: Parts, z: Array, rows: int) -> Array:
    y = np.zeros(rows, dtype=z.dtype)
    y[parts["rows"]] = z
    return y


def restrict_axes(parts: Parts, g: Array, columns: int) -> Array:
    return g[parts["rows"]]


PROJECTIONS: dict[str, Projection] = {
    "dense": Projection(draw_dense, expand_matrix, restrict_matrix),
    "orthonormal": Projection(draw_orthonormal, expand_matrix, restrict_matrix),
    "sparse": Projection(draw_sparse, expand_sparse, restrict_sparse),
    "fastfood": Projection(draw_fastfood, expand_fastfood, restrict_fastfood),
    "axes": Projection(draw_axes, expand_axes, restrict_axes),
}
