"""A fixed discrete cosine transform plus a trainable sparse matrix: W = alpha M + S.

I. Price, J. Tanner. Dense for the Price of Sparse: Improved Performance of Sparsely Initialized Networks via
a Subspace Offset. ICML 2021. arXiv:2102.07655

    M_ik = c_i cos(pi (2k + 1) i / 2N),   c_0 = sqrt(1/N), c_i = sqrt(2/N),   N = max(out, in)    (1)
    y  = alpha (T [x, 0])_1..out + S x,       T the whole N x N transform, T^T T = I               (2)
    dx = alpha (T^T [dy, 0])_1..in + S^T dy                                                        (3)
    dalpha = <dy, M x>,   dS = dy^T x where S is present                                           (4)

M, the first `out` rows and `in` columns of T, is never stored: (2) and (3) are fast transforms, N log N for
each row of x. The order of a convolution's columns is that of all weights here, (ky, kx, channel), which is
that of the authors' code too. alpha is one trainable number, starts at 1 and does not decay.

No entry of W need be 0, so `mask` is all True, while `kept` counts S. `rewire` moves the support of S, all
of whose entries are zero where it is absent; the full mask, which `mask` gives, leaves it as it is.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dct, idct

from minisparse.nn.mode import Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.weight import Weight


def cosine_rows(x: Array, out: int) -> Array:
    """M x for each row of x (r, in) -> (r, out), the transform of (2)."""
    return dct(x, n=max(out, x.shape[-1]), norm="ortho", axis=-1)[..., :out]


def cosine_columns(dy: Array, inputs: int) -> Array:
    """M^T dy for each row of dy (r, out) -> (r, in), that of (3)."""
    return idct(dy, n=max(inputs, dy.shape[-1]), norm="ortho", axis=-1)[..., :inputs]


class DCTWeight(Weight):
    """Equation (2); S is any weight of its own, masked or in a storage format."""

    def __init__(self, sparse: Weight, scale: float = 1.0, rate: float = 1.0) -> None:
        """sparse: S, of the layer's geometry; scale, rate: alpha at first, its share of the learning rate."""
        self.geometry = sparse.geometry
        self.sparse = sparse
        kind = next(iter(sparse.params().values())).value.dtype
        self.scale = Param(np.full(1, scale, dtype=kind), decay=False, rate=rate)

    @property
    def mask(self) -> Array:
        return np.ones(self.shape, dtype=bool)

    @property
    def kept(self) -> int:
        return self.sparse.kept

    @property
    def by_blas(self) -> bool:
        return self.sparse.by_blas

    def params(self) -> dict[str, Param]:
        return self.sparse.params() | {"scale": self.scale}

    def offset(self) -> Array:
        """M (out, in), made when asked for."""
        out, inputs = self.shape
        return cosine_rows(np.eye(inputs, dtype=self.scale.value.real.dtype), out).T

    def dense(self) -> Array:
        return self.scale.value * self.offset() + self.sparse.dense()

    def apply(self, x: Array, mode: Mode) -> Array:
        return self.scale.value * cosine_rows(x, self.shape[0]) + self.sparse.apply(x, mode)

    def pull(self, dy: Array) -> Array:
        return self.scale.value * cosine_columns(dy, self.shape[1]) + self.sparse.pull(dy)

    def pullback(self, x: Array, dy: Array) -> None:
        self.sparse.pullback(x, dy)
        self.scale.grad[0] = (dy * cosine_rows(x, self.shape[0])).sum()

    def rdense(self) -> Array:
        return self.scale.v() * self.offset() + self.sparse.rdense()

    def rpullback(self, x: Array, rx: Array, dy: Array, rdy: Array) -> None:
        self.sparse.rpullback(x, rx, dy, rdy)
        out = self.shape[0]
        along = (rdy * cosine_rows(x, out)).sum() + (dy * cosine_rows(rx, out)).sum()
        self.scale.rgrad = np.full(1, along, dtype=self.scale.value.dtype)

    def trained(self) -> Array:
        return self.sparse.dense()

    def assign(self, dense: Array) -> None:
        """S at its present entries such that W is `dense` there; alpha stays."""
        self.sparse.assign(dense - self.scale.value * self.offset())

    def rewire(self, mask: Array) -> dict[str, Array]:
        return self.sparse.rewire(self.sparse.mask if mask.all() else mask)

    def rewire_flat(self, flat: Array) -> dict[str, Array]:
        return self.sparse.rewire_flat(flat)
