"""What a network of two or three layers is, in plain matrices: the model of test_state_machine.py.

Layer l is a matrix W (out, in), a mask of its shape, a bias b and the momentum of both. Every layer acts on
rows (n, p, in): p = 1 for linear layers, and for the convolution, which is always the first, p windows of
the images, cut out here one by one. float64 throughout.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray
MOMENTUM, DECAY = 0.9, 0.01
KERNEL = 2


def windows(x: Array) -> Array:
    """Images (n, c, h, w) -> (n, p, kh kw c): windows row by row, within them taps, then channels."""
    n, _, high, wide = x.shape
    cut = [
        x[:, :, r : r + KERNEL, s : s + KERNEL].transpose(0, 2, 3, 1).reshape(n, -1)
        for r in range(high - KERNEL + 1)
        for s in range(wide - KERNEL + 1)
    ]
    return np.stack(cut, axis=1)


@dataclass
class Layer:
    """One matrix and what belongs to it; u and v are the momenta of w and b."""

    w: Array
    mask: Array
    b: Array
    u: Array
    v: Array

    @classmethod
    def of(cls, w: Array, b: Array) -> Layer:
        return cls(
            w.astype(float), np.ones(w.shape, bool), b.astype(float), np.zeros(w.shape), np.zeros(len(b))
        )

    def rewire(self, mask: Array) -> None:
        """Entries that appear start at 0; of those that leave nothing is remembered."""
        stay = mask & self.mask
        self.w, self.u, self.mask = np.where(stay, self.w, 0), np.where(stay, self.u, 0), mask.copy()


@dataclass
class Model:
    """Layers by name with tanh between them, and the numbers that a training counts."""

    layers: dict[str, Layer]
    step: int = 0
    topology: int = 0
    inputs: list[Array] = field(default_factory=list, repr=False)

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def forward(self, x: Array) -> Array:
        """Outputs (n, o); the rows that each layer sees are kept."""
        a = windows(x) if x.ndim == 4 else x[:, None]
        self.inputs = []
        for k, layer in enumerate(self.layers.values()):
            a = np.tanh(a) if k else a
            if k and a.shape[1] > 1:  # flattened channel by channel
                a = a.transpose(0, 2, 1).reshape(len(a), 1, -1)
            self.inputs.append(a)
            a = a @ layer.w.T + layer.b
        return a[:, 0]

    def train(self, x: Array, target: Array, lr: float) -> None:
        """One step of momentum on |y - t|^2 / (2 n), with weight decay on matrices."""
        dz = ((self.forward(x) - target) / len(x))[:, None]
        slopes = {}
        for name, layer in reversed(self.layers.items()):
            a = self.inputs[list(self.layers).index(name)]
            slopes[name] = np.einsum("npo,npi->oi", dz, a), dz.sum(axis=(0, 1))
            before = 1 - a**2  # of tanh, at what it gave
            dz = (dz @ layer.w) * before
            if name == "fc" and "conv" in self.layers:
                dz = dz.reshape(len(x), len(self.layers["conv"].b), -1).transpose(0, 2, 1)
        for name, layer in self.layers.items():
            dw, db = slopes[name]
            layer.u = MOMENTUM * layer.u + np.where(layer.mask, dw, 0) + DECAY * layer.w
            layer.v = MOMENTUM * layer.v + db
            layer.w, layer.b = layer.w - lr * layer.u, layer.b - lr * layer.v
        self.step += 1
