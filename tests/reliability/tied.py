"""Digests of masks chosen among tied scores: python -m tests.reliability.tied. Prints JSON.

NPY_DISABLE_CPU_FEATURES must change none of them: it takes instructions from NumPy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from minisparse.methods.dynamic.rules import drop_smallest, largest_together
from minisparse.nn.largest import first_largest, largest, largest_by_row
from minisparse.sparsity import ERK, NM, Block, Global, LayerShape, Row, Unstructured, select, top_k

try:
    from numpy._core import _multiarray_umath as core
except ImportError:  # before NumPy 2
    from numpy.core import _multiarray_umath as core

Array = np.ndarray


def features() -> list[str]:
    """What NumPy uses on this processor and can do without."""
    return [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]


def chosen() -> Iterator[tuple[str, Array]]:
    """Masks and positions of every way to choose, among a few different scores."""
    for kind in (np.float16, np.float32, np.float64, np.int32, np.int64):
        rng = np.random.default_rng(0)
        scores = rng.integers(0, 4, (300, 200)).astype(kind)
        name = np.dtype(kind).name
        nothing = np.empty(0, np.int64)
        for k in (1, 17_000, 30_001, 59_999):
            yield f"top_k {name} {k}", top_k(scores, k)
            yield f"among {name} {k}", top_k(scores, k // 2, among=rng.random((300, 200)) < 0.6)
            yield f"first {name} {k}", first_largest(scores.ravel(), k)
            yield f"drop {name} {k}", drop_smallest(scores.ravel(), k)
            if scores.dtype.kind == "f":
                yield f"stream {name} {k}", largest(np.array_split(scores, 7), k, nothing)
        if scores.dtype.kind == "f":
            rows = largest_by_row(np.array_split(scores, 7), np.arange(300) % 200, nothing)
            yield f"rows {name}", rows
        layers = {"a": scores[:100], "b": scores[100:]}
        yield f"together {name}", np.concatenate(list(largest_together(
            {n: s.ravel() for n, s in layers.items()}, 20_000).values()))  # fmt: skip
        shapes = {n: LayerShape(*s.shape) for n, s in layers.items()}
        for allocation in (Global(), ERK()):
            for pattern, sparsity in ((Unstructured(), 0.7), (Block(4, 4), 0.7), (Row(), 0.7)):
                masks = select(layers, shapes, sparsity, allocation, pattern)
                yield f"select {name} {allocation} {pattern}", np.concatenate(list(masks.values()))
        yield f"N:M {name}", select(layers, shapes, None, Global(), NM(2, 4))["a"]


def digests() -> dict[str, str]:
    """SHA-256 by name."""
    return {name: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for name, a in chosen()}


if __name__ == "__main__":
    print(json.dumps({"features": features(), "digests": digests()}))
