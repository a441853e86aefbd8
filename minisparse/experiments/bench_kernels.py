"""Sparse products on this machine: median time, beside the same product dense (BLAS) and by SciPy's CSR.

A record is one (kernel, format, shape, batch, sparsity, threads). Ours is timed through `Weight.apply`,
packing, index decoding and Python included; dense is `W @ X` of the unpruned float32 matrix; SciPy's product
runs on one thread whatever is asked. Inputs of a batch lie feature by feature for all of them; "rows" is the
product as a network's first layer sees it, sample by sample. The kernels:

    matvec fan-in        constant fan-in, one sample                             target P1 of the design
    matvec unstructured  one sample                                              P2
    matmat unstructured  256 samples; "matmat rows" with samples as rows         P3
    matvec N:M, matmat N:M                                                       P4
    dX, dW               transposed product, and the gradient on the pattern, 128 samples; SciPy has no dW
    conv 3x3             128 images with as many filters as channels, against our own dense direct
                         convolution, and SciPy's product with the unfolded images
    ViT-B/16             the second linear layer of an encoder block's MLP, 3072 -> 768, half of the neurons
                         ablated and constant fan-in in the others: the layout of figure 4 of M. Lasby et al.,
                         ICLR 2024, arXiv:2305.02299; formats dense (reduced), csr, condensed and others

What is derived from a median time t, for nnz entries and `places` columns of X (samples, times pixels):

    flops       = 2 nnz places                                                                       (1)
    bytes_moved = bytes of the format + 4 (numbers of the input + numbers of the output)             (2)
    gflops      = flops / t / 10^9,      gbytes_per_s = bytes_moved / t / 10^9                       (3)
    speedup     = time of the other / t                                                              (4)

(1) counts what the mask asks for: padding and zeros that a format multiplies nevertheless do not count. (2)
is the least traffic, each array once; no cache level is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisparse.experiments.bench_cases import CASES, Case, Problem, Shape, columns, problem, target_of
from minisparse.experiments.bench_others import COLUMNS, Found, others
from minisparse.experiments.bench_report import Tables, write
from minisparse.experiments.bench_timing import QUICK_ROUNDS, ROUNDS, Work, pinned, quartiles, timed
from minisparse.nn.mode import EVAL
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window
from minisparse.weights.exchange import to_csr
from minisparse.weights.formats import FORMATS, convert
from minisparse.weights.stored import StoredWeight

FLOAT = 4  # bytes


def records(threads: tuple[int, ...], quick: bool = False) -> list[dict[str, Any]]:
    """One dict per measured product; times in seconds, None where there is no figure."""
    found = others(CASES, threads, quick)
    return [
        row for case, more in zip(CASES, found, strict=True) for row in measured(case, threads, quick, more)
    ]


def report(rows: list[dict[str, Any]], folder: Path, quick: bool = False) -> tuple[Tables, list[Path]]:
    """Tables that sum the records up, and the files written into `folder`: page, plots, JSON."""
    return write(rows, folder, quick)


@dataclass(frozen=True)
class Setting:
    """One product of a case."""

    case: Case
    shape: Shape
    sparsity: float
    threads: int


def measured(
    case: Case, threads: Sequence[int], quick: bool = False, found: Found | None = None
) -> Iterator[dict[str, Any]]:
    """The records of one case, each number of threads given to Numba and BLAS alike.

    found: seconds of other libraries.
    """
    for shape in case.shapes:
        for sparsity in case.sparsities:
            works, sizes, nnz = prepared(case, shape, sparsity)
            for count in threads:
                with pinned(count):
                    times = timed(works, QUICK_ROUNDS if quick else ROUNDS)
                setting, more = (
                    Setting(case, shape, sparsity, count),
                    (found or {}).get((shape, sparsity, count)),
                )
                for name in case.formats:
                    yield record(setting, name, times, sizes[name], nnz, more)


def record(
    setting: Setting,
    name: str,
    times: Mapping[str, list[float]],
    size: int,
    nnz: int,
    more: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """One row: equations (1) to (4) for the format `name` of `size` bytes; `more`: other libraries."""
    case, shape, sparsity, threads = setting.case, setting.shape, setting.sparsity, setting.threads
    low, mid, high = quartiles(times[name])
    dense_s = quartiles(times["dense"])[1]
    scipy_s = quartiles(times["scipy"])[1] if "scipy" in times else None
    flops, moved = 2 * nnz * case.places, size + traffic(case, shape)
    target = target_of(case.kernel, case.batch, sparsity, threads)
    by_dense, by_scipy = dense_s / mid, None if scipy_s is None else scipy_s / mid
    return {
        "kernel": case.kernel, "format": name, "shape": f"{shape[0]}x{shape[1]}", "batch": case.batch,
        "sparsity": sparsity, "threads": threads, "median_s": mid, "q25_s": low, "q75_s": high,
        "dense_s": dense_s, "scipy_s": scipy_s, **{column: (more or {}).get(column) for column in COLUMNS},
        "speedup_dense": by_dense, "speedup_scipy": by_scipy, "bytes": size,
        "dense_bytes": FLOAT * shape[0] * shape[1], "flops": flops, "bytes_moved": moved,
        "gflops": flops / mid / 1e9, "gbytes_per_s": moved / mid / 1e9,
        "target": target.text if target else None, "met": target.met(by_dense, by_scipy) if target else None,
    }  # fmt: skip


def traffic(case: Case, shape: Shape) -> int:
    """Bytes of input and output of the product, equation (2); of a convolution, images without padding."""
    out, inputs = shape
    if case.image:
        inputs //= 9
    return FLOAT * (out + inputs) * case.places


def prepared(case: Case, shape: Shape, sparsity: float) -> tuple[dict[str, Work], dict[str, int], int]:
    """What is timed by name ("dense", "scipy" and the formats), bytes of each format, entries."""
    found = problem(case.masks, case.kernel, shape, sparsity)
    works, sizes = (_images if case.image else _works)(case, found)
    return works, sizes, int(np.count_nonzero(found.mask))


def _works(case: Case, found: Problem) -> tuple[dict[str, Work], dict[str, int]]:
    """Matrix products."""
    dense = found.dense
    masked = FORMATS["csr"].from_dense(dense, found.mask)
    csr, x = to_csr(masked), columns(found, case.batch, case.by_rows)
    dy = found.rng.standard_normal((dense.shape[0], case.batch)).astype(np.float32)
    works = _libraries(case, dense, csr, x, dy)
    stored = {name: convert(masked, name) for name in case.formats}
    works |= {name: _ours(case.product, weight, x, dy) for name, weight in stored.items()}
    return works, _sizes(stored)


def _libraries(case: Case, dense: Array, csr: Any, x: Array, dy: Array) -> dict[str, Work]:
    """BLAS on the whole matrix and SciPy on the entries."""
    if case.batch == 1:
        vector = x[:, 0].copy()
        return {"dense": lambda: dense @ vector, "scipy": lambda: csr @ vector}
    products: dict[str, dict[str, Work]] = {
        "apply": {"dense": lambda: dense @ x, "scipy": lambda: csr @ x},
        "pull": {"dense": lambda: dense.T @ dy, "scipy": lambda: csr.T @ dy},
        "pullback": {"dense": lambda: dy @ x.T},
    }
    return products[case.product]


def _ours(product: str, weight: Weight, x: Array, dy: Array) -> Work:
    works: dict[str, Work] = {
        "apply": lambda: weight.apply(x.T, EVAL),
        "pull": lambda: weight.pull(dy.T),
        "pullback": lambda: weight.pullback(x.T, dy.T),
    }
    return works[product]


def _images(case: Case, found: Problem) -> tuple[dict[str, Work], dict[str, int]]:
    """Convolutions."""
    window = Window.of(3, padding=1)
    out, taps = found.dense.shape
    geometry = (out, taps // 9, *window.kernel)
    x = found.rng.standard_normal((case.batch, case.image, case.image, taps // 9)).astype(np.float32)
    whole = MaskedWeight(found.dense, geometry)
    masked = FORMATS["csr"].from_dense(found.dense, found.mask, geometry)
    csr = to_csr(masked)
    stored = {name: convert(masked, name) for name in case.formats}
    works: dict[str, Work] = {
        "dense": _convolved(whole, x, window),
        "scipy": lambda: csr @ window.unfold(x).reshape(-1, taps).T,
    }
    works |= {name: _convolved(weight, x, window) for name, weight in stored.items()}
    return works, _sizes(stored)


def _convolved(weight: Weight, x: Array, window: Window) -> Work:
    return lambda: weight.correlate(x, window, EVAL)


def _sizes(stored: Mapping[str, Weight]) -> dict[str, int]:
    return {name: weight.bytes for name, weight in stored.items() if isinstance(weight, StoredWeight)}
