"""Whether something of the size of a layer's matrix is ever formed: by name, and by memory.

By name: what gives a matrix of a stored weight, or the gradient of one, raises. By memory: NumPy reports its
arrays to tracemalloc; on a layer large enough a Boolean matrix would stand out from all that is O(entries).
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from minisparse.nn.activation import Activation
from minisparse.nn.conv import Conv2d
from minisparse.nn.layer import Layer, LinearLayer
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.pool import Flatten
from minisparse.nn.window import Window
from minisparse.sparsity import ERK, LayerShape
from minisparse.sparsity.sample import sample_layers
from minisparse.weights.condensed import CondensedWeight
from minisparse.weights.csr import CSRWeight
from minisparse.weights.pattern import CSRPattern
from minisparse.weights.stored import StoredWeight


class DenseFormed(AssertionError):
    """A matrix was asked of a weight that stores its present entries only."""


@contextmanager
def no_matrices() -> Iterator[None]:
    """Whatever forms a matrix of a stored weight, of its pattern or of a gradient raises DenseFormed."""

    def refuse(self: object, *_: object) -> None:
        raise DenseFormed(type(self).__name__)

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((StoredWeight, "dense"), (StoredWeight, "rdense"), (LinearLayer, "dense_grad")):
            patch.setattr(owner, name, refuse)
        for name in ("rewire", "assign", "entries"):  # these take a matrix
            patch.setattr(StoredWeight, name, refuse)
        for owner in (StoredWeight, CSRPattern):
            patch.setattr(owner, "mask", property(refuse))
        yield


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that work() holds at a time, what existed before not counted."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _values(flat: np.ndarray, rng: np.random.Generator, fan_in: float) -> np.ndarray:
    return (rng.standard_normal(flat.size) * np.sqrt(2 / fan_in)).astype(np.float32)


def born_sparse(width: int, sparsity: float, seed: int = 0) -> Network:
    """width -> width -> 3, float32, CSR from birth with ERK counts; biases are 0."""
    rng = np.random.default_rng(seed)
    shapes = {"fc1": LayerShape(width, width), "fc2": LayerShape(3, width)}
    layers: dict[str, Layer] = {}
    for name, flat in sample_layers(shapes, sparsity, ERK(), rng).items():
        shape = shapes[name].matrix
        values = _values(flat, rng, max(1, flat.size / shape[0]))
        weight = CSRWeight(CSRPattern.from_flat(flat, shape), values)
        layers[name] = Linear(weight, np.zeros(shape[0], np.float32))
        layers[f"act {name}"] = Activation("relu")
    layers.popitem()
    return Network(layers, (width,))


def born_condensed(width: int, fan_in: int, seed: int = 0) -> Network:
    """width -> width -> 3, float32, `fan_in` inputs at every unit, condensed from birth."""
    rng = np.random.default_rng(seed)
    layers: dict[str, Layer] = {}
    for name, out in (("fc1", width), ("fc2", 3)):
        columns = np.argsort(rng.random((out, 4 * fan_in)), axis=1)[:, :fan_in] * (width // (4 * fan_in))
        flat = np.sort((np.arange(out)[:, None] * width + columns).reshape(-1))
        weight = CondensedWeight(CSRPattern.from_flat(flat, (out, width)), _values(flat, rng, fan_in))
        layers[name] = Linear(weight, np.zeros(out, np.float32))
        layers[f"act {name}"] = Activation("relu")
    layers.popitem()
    return Network(layers, (width,))


def born_sparse_convolution(channels: int, sparsity: float, seed: int = 0) -> Network:
    """3x3 convolution of a 4x3 image with as many channels out as in, then a linear layer; float32 CSR."""
    rng = np.random.default_rng(seed)
    shapes = {"conv": LayerShape(channels, channels, 3, 3), "fc": LayerShape(3, 2 * channels)}
    weights = {}
    for name, flat in sample_layers(shapes, sparsity, ERK(), rng).items():
        shape = shapes[name]
        values = _values(flat, rng, max(1, flat.size / shape.out))
        geometry = (shape.out, shape.channels, shape.kh, shape.kw)
        weights[name] = CSRWeight(CSRPattern.from_flat(flat, shape.matrix), values, geometry)
    layers = {
        "conv": Conv2d(weights["conv"], Window.of(3), np.zeros(channels, np.float32)),
        "relu": Activation("relu"),
        "flatten": Flatten(),
        "fc": Linear(weights["fc"], np.zeros(3, np.float32)),
    }
    return Network(layers, (channels, 4, 3))
