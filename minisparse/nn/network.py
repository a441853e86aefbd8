"""Network: a named sequence of layers with its parameters, prunable layers and state by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from minisparse.errors import ShapeError
from minisparse.nn.init import Initializer, kaiming_normal
from minisparse.nn.layer import Layer, LinearLayer, Shape
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.param import Array, Param
from minisparse.nn.residual import Sequence
from minisparse.nn.threads import Threads


class Network(Sequence):
    """A Sequence that knows its input's shape and checks at once that all layers fit together.

    init: what `reinitialise` draws new weights by; a model made by name has the one it was made with.
    """

    def __init__(self, layers: dict[str, Layer], input_shape: Shape, name: str = "network") -> None:
        """input_shape: one sample's. Raises ShapeError naming the first layer that does not fit."""
        super().__init__(layers)
        self.name = name
        self.init: Initializer = kaiming_normal
        self.input_shape = tuple(input_shape)
        self.outputs = self._check()[0]

    def _check(self) -> Shape:
        shape = self.input_shape
        if not shape or min(shape) < 1:
            raise ShapeError(f"network input: got sample shape {shape}, expected sizes >= 1.")
        for index, (name, layer) in enumerate(self.layers.items()):
            try:
                shape = layer.output_shape(shape)
            except ShapeError as error:
                raise ShapeError(f"layer {index} '{name}': {error}") from None
        return shape

    def walk(self) -> Iterator[tuple[str, Layer]]:
        """Every layer and sub-layer with its dotted name, in the order data flows."""
        yield from _walk("", self)

    def params(self) -> dict[str, Param]:
        """All parameters, 'layer.param' -> Param."""
        return {f"{n}.{k}": p for n, layer in self.walk() for k, p in layer.params().items()}

    def buffers(self) -> dict[str, Array]:
        """All buffers, 'layer.buffer' -> array."""
        return {f"{n}.{k}": b for n, layer in self.walk() for k, b in layer.buffers().items()}

    def prunable(self) -> dict[str, LinearLayer]:
        """Layers with a Weight, in the order data flows."""
        return {n: layer for n, layer in self.walk() if isinstance(layer, LinearLayer)}

    def masks(self) -> dict[str, Array]:
        """Copies of the masks of all prunable layers."""
        return {n: layer.weight.mask for n, layer in self.prunable().items()}

    def positions(self) -> dict[str, int]:
        """How many times per sample each prunable layer's weights are used (1 for Linear)."""
        given = {id(layer): shape for layer, shape in self.shapes(self.input_shape)}
        return {n: layer.positions(given[id(layer)]) for n, layer in self.prunable().items()}

    def work(self, batch: int) -> list[tuple[bool, int]]:
        """Of each prunable layer: by BLAS or not, and multiply-adds of a batch, absent weights' included."""
        positions = self.positions()
        layers = self.prunable().items()
        return [(layer.by_blas, batch * positions[n] * layer.weight.size) for n, layer in layers]

    @property
    def dtype(self) -> np.dtype:
        """Type of the parameters."""
        return next(iter(self.params().values())).value.dtype

    def forward(self, x: Array, mode: Mode = EVAL) -> Array:
        if x.shape[1:] != self.input_shape:
            x = x.reshape(len(x), *self.input_shape)
        return super().forward(x, mode)

    def predict(self, x: Array, batch: int = 1024) -> Array:
        """Outputs (n, o) in evaluation mode, computed in pieces of `batch` samples."""
        if len(x) == 0:
            return np.zeros((0, self.outputs), dtype=self.dtype)
        if len(x) == 1:  # dividing the threads takes longer than most networks take for a sample
            return self.forward(x, EVAL)
        with Threads(self, min(batch, len(x))):
            parts = [self.forward(x[i : i + batch], EVAL) for i in range(0, len(x), batch)]
        return np.concatenate(parts)

    def copy(self) -> Network:
        """Independent deep copy without activations; this network keeps its own."""
        other = copy.deepcopy(self)
        other.release()
        return other

    def astype(self, dtype: np.dtype | type) -> Network:
        """Copy with parameters and buffers of another type (float32, float64, complex128).

        Buffers of a complex network stay real unless they are made complex by hand.
        """
        other = self.copy()
        for p in other.params().values():
            p.set(p.value.astype(dtype))
        real = np.zeros(0, dtype=dtype).real.dtype
        for _, layer in other.walk():
            for key, value in layer.buffers().items():
                setattr(layer, key, value.astype(real))
        return other

    def state(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by name."""
        values = {k: p.value.copy() for k, p in self.params().items()}
        return values | {k: b.copy() for k, b in self.buffers().items()}

    def restore(self, state: dict[str, Array]) -> None:
        """Put back what `state` returned, in place; absent entries stay 0."""
        for k, p in self.params().items():
            p.value[...] = state[k]
        for k, b in self.buffers().items():
            b[...] = state[k]
        for layer in self.prunable().values():
            layer.weight.rewire_flat(layer.weight.flat)

    def reinitialise(self, rng: Generator) -> None:
        """Draw all weights anew, in place and in the order data flows; all else as when it was made.

        Masks stay. An absent entry takes its draw and is 0, so that draws do not depend on masks.
        """
        for _, layer in self.walk():
            layer.reset(self.init, rng)

    def release(self) -> None:
        for _, layer in self.walk():
            layer.release()


def _walk(prefix: str, layer: Layer) -> Iterator[tuple[str, Layer]]:
    for name, child in layer.children():
        full = f"{prefix}{name}"
        yield full, child
        yield from _walk(f"{full}.", child)
