"""Every compiled kernel at work on small inputs, for comparisons between processes: see kernel_runs.py.

A case is a function without arguments that returns arrays; its inputs are the same in every process. float64
and complex128 take the plain loops, float32 the vectors where the compiler is on.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from minisparse.kernels import (
    columns,
    conv,
    gate,
    jit,
    lanes,
    lasso,
    merge,
    norm,
    packing,
    rank,
    shift,
    sliced,
    sparse_conv,
    update,
    walsh,
)  # fmt: skip
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.norm import BatchNorm1d
from minisparse.nn.pool import MaxPool2d
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.weights.formats import FORMATS
from tests.structures import MASKS

Array = np.ndarray
Case = Callable[[], tuple[Array, ...]]
KERNELS = Path(jit.__file__).parent
GENERAL = ("csr", "panels", "sliced", "bitmask")  # formats of any mask; others only where they are at home
PLACES = {
    "nm": ("1:2", "2:4", "1:4", "4:8", "2:8", "2:16", "3:4"),
    "block": ("blocks 16x1", "blocks 8x3", "blocks 4x4", "blocks 2x5"),
    "condensed": ("fan-in 33", "ablated"),
} | dict.fromkeys(GENERAL, ("prime", "power law"))


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Normal numbers, with imaginary parts where the type has them."""
    real = rng.standard_normal(shape)
    return (real + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else real).astype(dtype)


def products(weight: Any, rng: np.random.Generator, dtype: Any, batches: tuple[int, ...]) -> Case:
    """Y, dX and dW of a stored weight for these batches."""
    pairs = [tuple(drawn(rng, (n, size), dtype) for size in weight.shape[::-1]) for n in batches]

    def run() -> tuple[Array, ...]:
        found = []
        for x, dy in pairs:
            weight.pullback(x, dy)
            found += [weight.apply(x, EVAL), weight.pull(dy), weight.param.grad.copy()]
        return tuple(found)

    return run


def formats(dtype: Any) -> Iterator[tuple[str, Case]]:
    """The three products of every format and setting, one sample and many."""
    for name, places in PLACES.items():
        for place in places:
            rng = np.random.default_rng(len(name + place))
            mask = MASKS[place](rng)
            for settings in FORMATS[name].settings:
                weight = FORMATS[name].from_dense(drawn(rng, mask.shape, dtype), mask, **settings)
                batches = (1, 2, 19) if np.dtype(dtype) != np.float32 else (1, 2, 19, 150)
                yield f"{name} {place} {settings}", products(weight, rng, dtype, batches)


def convolutions(dtype: Any) -> Iterator[tuple[str, Case]]:
    """Forward, transposed and gradient of a dense and of a sparse convolution; pooling."""
    rng = np.random.default_rng(0)
    window = Window.of((3, 2), (2, 1), 1, (1, 2))
    n = 10 if np.dtype(dtype) != np.float32 else 37
    x = drawn(rng, (n, 6, 5, 3), dtype)
    mask = rng.random((5, 18)) < 0.4
    value = drawn(rng, (5, 18), dtype)
    weights = MaskedWeight(value, (5, 3, 3, 2), mask), FORMATS["csr"].from_dense(value, mask, (5, 3, 3, 2))
    for name, weight in zip(("dense", "sparse"), weights, strict=True):

        def run(weight: Any = weight) -> tuple[Array, ...]:
            y = weight.correlate(x, window, EVAL)
            weight.correlate_pullback(x, y, window)
            return y, weight.correlate_pull(y, window, (6, 5)), weight.param.grad.copy()

        yield f"{name} convolution", run

    def pool() -> tuple[Array, ...]:
        layer = MaxPool2d(window)
        y = layer.forward(x.transpose(0, 3, 1, 2))
        return y, layer.pull(y)

    yield "max pooling", pool

    def frames() -> tuple[Array, ...]:
        cut, whole = np.empty((2, n, 7, 9, 3), dtype=dtype)
        conv.place(x, cut, 1, -1, 2, 1)
        conv.place(x, whole, 1, 2, 2, 1)
        return cut, whole

    yield "frames", frames
    rows = window.unfold(x)
    yield "unfold and fold", lambda: (window.unfold(x), window.fold(rows, (6, 5)))


def passes(dtype: Any) -> Iterator[tuple[str, Case]]:
    """One pass over memory: BatchNorm over several blocks of rows, optimisers, Walsh-Hadamard."""
    rng = np.random.default_rng(1)
    x, dy = (drawn(rng, (2 * norm.BLOCK + 77, 3), dtype) for _ in range(2))
    for training in (False, True):

        def batch_norm(training: bool = training) -> tuple[Array, ...]:
            layer = BatchNorm1d(3)
            for p in layer.params().values():
                p.set(p.value.astype(dtype))
            y = layer.forward(x, Mode(training, np.random.default_rng(0)))
            dx = layer.backward(dy)
            return y, dx, layer.gamma.grad.copy(), layer.beta.grad.copy()

        yield f"batch norm, training {training}", batch_norm
    w, g = (drawn(rng, (40,), dtype) for _ in range(2))
    squares = np.abs(drawn(rng, (40,), dtype)).astype(dtype)
    constants = np.array([0.01, 0.9, 0.99, 1e-8, 0.1, 0.5, 0.2], dtype=dtype)

    def optimisers() -> tuple[Array, ...]:
        found = []
        for flag in (False, True):
            a, u = w.copy(), g.copy()
            update.sgd_update(a, g, u, *constants[[0, 1, 4]], flag)
            b, m, v = w.copy(), g.copy(), squares.copy()
            update.adam_update(b, g, m, v, constants, flag)
            found += [a, u, b, m, v]
        return tuple(found)

    if np.dtype(dtype).kind == "f":
        yield "optimisers", optimisers

    def transform() -> tuple[Array, ...]:
        y = np.resize(w, 32).copy()
        walsh.walsh_hadamard(y)
        return (y,)

    yield "walsh-hadamard", transform


def lists() -> Iterator[tuple[str, Case]]:
    """Kernels on integers and in float64 only."""
    rng = np.random.default_rng(2)
    new, old = (np.flatnonzero(rng.random(90) < 0.4) for _ in range(2))
    at = merge.places(new, old)
    values = rng.standard_normal(old.size)

    def taken() -> tuple[Array, ...]:
        found = []
        for kind in (np.float32, np.float64, np.int64, np.complex128):
            room = np.empty(at.size, kind)
            merge.gather(values.astype(kind), at, 0, room)
            found.append(room)
        return (merge.places(new, old), merge.skip(np.arange(30), old), merge.union(new, old), *found)

    yield "merged lists", taken

    def by_digits() -> tuple[Array, ...]:
        found, sorted_ = [], np.empty(90, np.int64)
        for kind in (np.uint32, np.uint64):
            keys = whole.astype(kind)
            ranks = [rank._select(keys.copy(), k, 8 * keys.itemsize) for k in (0, 7, 89)]
            found.append(np.array(ranks, dtype=np.uint64))
        rank._by_digit(whole, 3, 5, sorted_)
        indptr, indices = np.empty(10, np.int64), np.empty(new.size, np.uint16)
        merge.rows(new, 10, indptr, indices)
        return (*found, sorted_, indptr, indices)

    whole = rng.integers(1 << 31, size=90)
    yield "lists by digits", by_digits

    def shifted() -> tuple[Array, ...]:
        y = whole.reshape(9, 10).astype(np.float64)
        shift.shift(y, values[:9].copy())
        return (y,)

    yield "biases", shifted
    x = rng.standard_normal((60, 12))
    gram = x.T @ x / 60
    inverse = np.linalg.inv(gram)
    factor = np.linalg.cholesky(inverse).T.copy()
    start, keep, live = rng.standard_normal((9, 12)), rng.random((9, 4)) < 0.5, rng.random((9, 12)) < 0.8

    def swept() -> tuple[Array, ...]:
        w, error = start.copy(), np.zeros((9, 12))
        for first in (0, 4, 8):
            columns.sweep(w, factor, keep, error, first, 12)
        steps, rise = np.full((9, 12), -1), np.zeros((9, 12))
        columns.greedy_rows(start, inverse, live, 4, np.array([3, 3, 3]), steps, rise)
        return w, error, steps, rise

    yield "columns", swept

    def coordinates() -> tuple[Array, ...]:
        beta = np.zeros(12)
        sweeps = lasso.descend(gram, gram @ start[0], 0.2, beta, 1e-9, 500)
        return beta, np.array(sweeps)

    yield "lasso", coordinates

    def helpers() -> tuple[Array, ...]:
        x32 = np.arange(20, dtype=np.float32)
        buffer, skip = lanes.scratch(20)
        widths = [packing.lanes_of(k, 300, 128) for k in range(3)] + [
            sparse_conv._pixels(k) for k in range(1, 9)
        ]
        gated = np.empty_like(x32)
        gate.gate(x32 - 3, x32, gated)
        facts = np.array([*widths, buffer.size, skip < 16, sliced._finite(x32)])
        parts = lanes.evenly(np.array([0, 5, 5, 6, 20, 20]), 3)
        return lanes.padded(x32, 32), lanes.at_least(x32, 20), gated, facts, parts

    yield "helpers", helpers


def cases(single: bool) -> dict[str, Case]:
    """All of them; `single`: the float32 ones, for which processors have vectors, too."""
    found = dict(lists())
    for dtype in (np.float64, np.complex128, np.float32) if single else (np.float64, np.complex128):
        for make in (formats, convolutions, passes):
            found |= {f"{np.dtype(dtype)}: {name}": case for name, case in make(dtype)}
    return found


# In float32 compiled code keeps more digits than NumPy where a scalar of another type takes part: a number of
# rows, a learning rate. These cases have none.
EXACT = ("max pooling", "frames", "unfold and fold", "walsh-hadamard", "batch norm, training False")


def exact_cases() -> dict[str, Case]:
    """Those that have the same bits with and without the compiler."""
    single = {name: case for make in (convolutions, passes) for name, case in make(np.float32)}
    return cases(False) | {f"float32: {name}": single[name] for name in EXACT}


def digest(arrays: tuple[Array, ...]) -> str:
    """SHA-256 of types, shapes and bits."""
    total = hashlib.sha256()
    for a in arrays:
        total.update(f"{a.dtype} {a.shape}".encode() + np.ascontiguousarray(a).tobytes())
    return total.hexdigest()


# Which kernels there are, read off the source.


def defined() -> dict[str, ast.FunctionDef]:
    """'module.name' -> source of every function in `kernels` that is decorated by `kernel`."""
    found = {}
    for path in sorted(KERNELS.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(
                "kernel" in ast.dump(d) for d in node.decorator_list
            ):
                found[f"{path.stem}.{node.name}"] = node
    return found


def with_vectors(kernels: dict[str, ast.FunctionDef]) -> set[str]:
    """Those that need the compiler: they call something that is neither a kernel nor plain Python."""
    plain = {"len", "min", "max", "range", "prange", "abs", "int", "float"}
    names = {name.partition(".")[2]: name for name in kernels}
    found: set[str] = set()
    while True:
        more = set()
        for name, node in kernels.items():
            inside = ast.walk(ast.Module(node.body, []))
            called = {n.func.id for n in inside if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            if any(c not in plain and (c not in names or names[c] in found) for c in called):
                more.add(name)
        if more == found:
            return found
        found = more


def executed(run: Callable[[], object]) -> set[str]:
    """'module.name' of the functions in `kernels` that were entered; sees nothing of compiled code."""
    found: set[str] = set()

    def watch(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent == KERNELS:
            found.add(f"{path.stem}.{frame.f_code.co_name}")

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found
