"""Sparse products on this machine: median time, beside the same product dense (BLAS) and by SciPy's CSR.

A record is one (kernel, format, shape, batch, sparsity, threads). Ours is timed through `Weight.apply`,
packing, index decoding and Python included; dense is `W @ X` of the unpruned float32 matrix; SciPy's product
runs on one thread whatever is asked. Inputs of a batch lie feature by feature for all three; "rows" is the
product as a network's first layer sees it, sample by sample. The kernels:

    matvec fan-in        constant fan-in, one sample                             target P1 of the design
    matvec unstructured  one sample                                              P2
    matmat unstructured  256 samples; "matmat rows" with samples as rows         P3
    matvec N:M, matmat N:M                                                       P4
    dX, dW               transposed product, and the gradient on the pattern, 128 samples
    conv 3x3             128 images with as many filters as channels, against our own dense direct
                         convolution, and SciPy's product with the unfolded images
    ViT-B/16             the second linear layer of an encoder block's MLP, 3072 -> 768, half of the neurons
                         ablated and constant fan-in in the others: the layout of figure 4 of M. Lasby et al.,
                         ICLR 2024, arXiv:2305.02299; formats dense (reduced), csr, condensed and others
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import numba
import numpy as np
import scipy.linalg  # noqa: F401 - brings its own BLAS, which must be loaded to be limited
from threadpoolctl import threadpool_limits

from minisparse.nn.mode import EVAL
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window
from minisparse.rng import generator
from minisparse.weights.exchange import to_csr
from minisparse.weights.formats import FORMATS, convert
from minisparse.weights.stored import StoredWeight

SHAPES = ((768, 3072), (3072, 768))
ROUNDS = 5  # blocks of calls of one library; the three take turns, so that a disturbance meets all
BUDGET = 0.03  # seconds of a block
FIGURE = (0.8, 0.9, 0.95, 0.99)
ACTIVE = 0.5  # share of neurons that are not ablated in the ViT layer

Draw = Callable[[tuple[int, int], float, np.random.Generator], Array]
Work = Callable[[], object]


def unstructured(shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Array:
    """Mask with exactly round(density size) entries anywhere."""
    kept = round((1 - sparsity) * shape[0] * shape[1])
    mask = np.zeros(shape[0] * shape[1], dtype=bool)
    mask[rng.permutation(mask.size)[:kept]] = True
    return mask.reshape(shape)


def fan_in(shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Array:
    """Mask with round(density in) entries in every row."""
    rank = rng.random(shape).argsort(axis=1).argsort(axis=1)
    return rank < round((1 - sparsity) * shape[1])


def ablated(shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Array:
    """The same number of entries as `fan_in`, in a share ACTIVE of the rows."""
    dense_rows = 1 - (1 - sparsity) / ACTIVE
    active = rng.permutation(shape[0]) < round(ACTIVE * shape[0])
    return fan_in(shape, dense_rows, rng) & active[:, None]


def groups(keep: int, of: int) -> Draw:
    """Masks of `keep` entries in every `of` columns."""

    def draw(shape: tuple[int, int], sparsity: float, rng: np.random.Generator) -> Array:
        rank = rng.random((shape[0], shape[1] // of, of)).argsort(axis=2).argsort(axis=2)
        return (rank < keep).reshape(shape)

    return draw


@dataclass(frozen=True)
class Case:
    """Rows of the table that share a kernel: masks, formats, batch and how a batch lies in memory."""

    kernel: str
    draw: Draw
    sparsities: tuple[float, ...]
    formats: tuple[str, ...]
    batch: int
    shapes: tuple[tuple[int, int], ...] = SHAPES
    by_rows: bool = False
    product: str = "apply"
    image: int = 0  # height and width; 0 for a matrix product


CASES = (
    Case("matvec fan-in", fan_in, FIGURE, ("condensed", "sliced", "csr"), 1),
    Case("matvec unstructured", unstructured, (0.3, 0.5, 0.7, 0.8, 0.9), ("bitmask", "sliced", "csr"), 1),
    Case("matmat unstructured", unstructured, (0.5, 0.6, 0.8, 0.9, 0.95, 0.99), ("panels", "csr"), 256),
    Case("matmat rows", unstructured, (0.9,), ("panels", "csr"), 256, by_rows=True),
    Case("matvec 2:4", groups(2, 4), (0.5,), ("nm", "bitmask"), 1),
    Case("matvec 4:8", groups(4, 8), (0.5,), ("nm", "bitmask"), 1),
    Case("matmat 2:4", groups(2, 4), (0.5,), ("panels", "nm"), 256),
    Case("matmat 4:8", groups(4, 8), (0.5,), ("panels", "nm"), 256),
    Case("dX", unstructured, (0.9, 0.95), ("csr",), 128, product="pull"),
    Case("dW", unstructured, (0.9, 0.95), ("csr",), 128, product="pullback"),
    Case("conv 3x3", unstructured, (0.5, 0.8, 0.9, 0.95), ("csr",), 128, ((16, 144),), image=32),
    Case("conv 3x3", unstructured, (0.5, 0.8, 0.9, 0.95), ("csr",), 128, ((64, 576),), image=8),
    Case("ViT-B/16", ablated, FIGURE, ("reduced", "csr", "condensed", "sliced"), 1, SHAPES[:1]),
    Case("ViT-B/16", ablated, FIGURE, ("reduced", "csr", "condensed", "panels"), 256, SHAPES[:1]),
)


def records(threads: tuple[int, ...], quick: bool = False) -> list[dict[str, Any]]:
    """One dict per measured product; times in seconds, `bytes` of the weight in this format."""
    return [row for count in threads for case in CASES for row in measured(case, count, quick)]


def measured(case: Case, threads: int, quick: bool = False) -> Iterator[dict[str, Any]]:
    """The records of one case, this number of threads given to Numba and BLAS alike."""
    before = numba.get_num_threads()
    with threadpool_limits(threads):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        try:
            for shape in case.shapes:
                for sparsity in case.sparsities:
                    yield from _rows(case, shape, sparsity, threads, quick)
        finally:
            numba.set_num_threads(before)


def _rows(
    case: Case, shape: tuple[int, int], sparsity: float, threads: int, quick: bool
) -> Iterator[dict[str, Any]]:
    rng = generator(0, f"bench {case.kernel} {shape} {sparsity}")
    mask = case.draw(shape, sparsity, rng)
    dense = rng.standard_normal(shape).astype(np.float32)
    works, sizes = (_images if case.image else _works)(case, dense, mask, rng)
    times = timed(works, 2 if quick else ROUNDS)
    for name in case.formats:
        low, mid, high = quantiles(times[name], n=4, method="inclusive")
        dense_s, scipy_s = (quantiles(times[other], n=2)[0] for other in ("dense", "scipy"))
        yield {
            "kernel": case.kernel, "format": name, "shape": f"{shape[0]}x{shape[1]}", "batch": case.batch,
            "sparsity": sparsity, "threads": threads, "median_s": mid, "q25_s": low, "q75_s": high,
            "dense_s": dense_s, "scipy_s": scipy_s, "speedup_dense": dense_s / mid,
            "speedup_scipy": scipy_s / mid, "bytes": sizes[name],
        }  # fmt: skip


def _works(
    case: Case, dense: Array, mask: Array, rng: np.random.Generator
) -> tuple[dict[str, Work], dict[str, int]]:
    """What is timed by name, and bytes of each format."""
    out, columns = dense.shape
    masked = FORMATS["csr"].from_dense(dense, mask)
    csr = to_csr(masked)
    x, dy = (rng.standard_normal((size, case.batch)).astype(np.float32) for size in (columns, out))
    if case.by_rows:
        x = np.asfortranarray(x)
    dense_product, scipy_product = {
        "apply": (lambda: dense @ x, lambda: csr @ x),
        "pull": (lambda: dense.T @ dy, lambda: csr.T @ dy),
        "pullback": (lambda: dy @ x.T, lambda: dy @ x.T),  # SciPy has no product on a pattern
    }[case.product]
    if case.batch == 1:
        vector, whole = x[:, 0].copy(), dense
        dense_product, scipy_product = lambda: whole @ vector, lambda: csr @ vector
    works: dict[str, Work] = {"dense": dense_product, "scipy": scipy_product}
    sizes = {}
    for name in case.formats:
        weight = convert(masked, name)
        if isinstance(weight, StoredWeight):
            sizes[name] = weight.bytes
        works[name] = {
            "apply": lambda w=weight: w.apply(x.T, EVAL),
            "pull": lambda w=weight: w.pull(dy.T),
            "pullback": lambda w=weight: w.pullback(x.T, dy.T),
        }[case.product]
    return works, sizes


def _images(
    case: Case, dense: Array, mask: Array, rng: np.random.Generator
) -> tuple[dict[str, Work], dict[str, int]]:
    """The same for convolutions."""
    window = Window.of(3, padding=1)
    out, taps = dense.shape
    geometry = (out, taps // 9, *window.kernel)
    x = rng.standard_normal((case.batch, case.image, case.image, taps // 9)).astype(np.float32)
    whole, masked = MaskedWeight(dense, geometry), FORMATS["csr"].from_dense(dense, mask, geometry)
    csr = to_csr(masked)
    works: dict[str, Work] = {
        "dense": lambda: whole.correlate(x, window, EVAL),
        "scipy": lambda: csr @ window.unfold(x).reshape(-1, taps).T,
    }
    stored = {name: convert(masked, name) for name in case.formats}
    works |= {name: _convolved(weight, x, window) for name, weight in stored.items()}
    return works, {name: w.bytes for name, w in stored.items() if isinstance(w, StoredWeight)}


def _convolved(weight: Weight, x: Array, window: Window) -> Work:
    return lambda: weight.correlate(x, window, EVAL)


def timed(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of single calls. One library works at a time: threads of another that still spin disturb it."""
    times: dict[str, list[float]] = {name: [] for name in works}
    counts = {}
    for name, work in works.items():
        work()
        counts[name] = int(min(max(BUDGET / _seconds(work), 2), 200))
    for _ in range(rounds):
        for name, work in works.items():
            work()
            times[name] += [_seconds(work) for _ in range(counts[name])]
    return times


def _seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
