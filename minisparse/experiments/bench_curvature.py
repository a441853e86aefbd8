"""Curvature: what a second-order quantity costs, beside the same work done plainly.

    Hessian and GGN diagonal     against the backward passes of the loss's C = 10 columns, one by one;
                                 an activation that curves needs further columns, one per unit
    Hessian-vector product       against one gradient
    inverse by blocks            factors in blocks, against one at a time (`curvature/inverse.py`)
    SparseGPT                    in blocks, against column by column (`reconstruct/sparsegpt.py`)
    factor for SparseGPT         what either way begins with, against an inverse and its Cholesky factor

Figures are medians and quartiles of calls that alternate with those of the work they are compared with, so
that a disturbed machine disturbs both; first calls are not counted. Plain loops that take seconds are
called once. `ours/other` is the ratio of the medians, the target what it is to stay below, `ours/gradient`
the median in gradients of the same network and batch. Networks are float32 at their initial values on
random data, the rest is float64.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minisparse.curvature.ggn import ggn_diagonal
from minisparse.curvature.gradient import gradient, pull_to_params
from minisparse.curvature.hessian_diagonal import exact_diagonal
from minisparse.curvature.hvp import hvp
from minisparse.curvature.inverse import inverse_by_blocks, inverse_by_vectors
from minisparse.curvature.point import evaluate
from minisparse.experiments.bench_timing import pinned
from minisparse.methods.reconstruct.sparsegpt import by_blocks, by_columns, inverse_factor, lowest_of_block
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.models import make
from minisparse.nn.param import Array
from minisparse.rng import generator

Work = Callable[[], Any]

CLASSES = 10
DAMPING = 1e-2
BLOCK = 128  # of SparseGPT, its default


@dataclass(frozen=True)
class Sizes:
    """What is measured: (model, batch shape), (d, factors), (out, in); calls and seconds per row."""

    models: tuple[tuple[str, tuple[int, ...]], ...]
    inverses: tuple[tuple[int, int], ...]
    layer: tuple[int, int]
    least: int
    most: int
    seconds: float


FULL = Sizes(
    models=(
        ("lenet-5", (128, 1, 28, 28)),
        ("lenet-5-caffe", (128, 1, 28, 28)),
        ("mlp:64-40-20-10:tanh", (128, 64)),
    ),
    inverses=((500, 1000), (1000, 1000), (2000, 1000)),
    layer=(768, 3072),
    least=2,
    most=50,
    seconds=1.2,
)
QUICK = Sizes(FULL.models[::2], FULL.inverses[:1], (384, 1536), least=2, most=10, seconds=0.2)


@dataclass(frozen=True)
class Case:
    """One row. `target` bounds ours/other; `unit` is one gradient; `slow`: theirs is called just once."""

    work: str
    size: str
    ours: Work
    other: str
    theirs: Work
    target: str | None = None
    unit: Work | None = None
    slow: bool = False


def records(
    threads: tuple[int, ...], quick: bool = False, sizes: Sizes | None = None
) -> list[dict[str, Any]]:
    """One dict per row and number of threads; times in ms, None where there is no figure."""
    sizes = sizes or (QUICK if quick else FULL)
    rows = []
    for count in threads:
        with pinned(count), quiet():
            rows += [measure(case, count, sizes) for case in cases(sizes)]
    return rows


@contextmanager
def quiet() -> Iterator[None]:
    """No notes from methods while they are timed over and over; warnings still come."""
    log = logging.getLogger("minisparse.methods")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def measure(case: Case, threads: int, sizes: Sizes) -> dict[str, Any]:
    """The row of one case: quartiles of our times, medians of the others'."""
    works = {"ours": case.ours, "theirs": case.theirs, "unit": case.unit}
    once = {"theirs"} if case.slow else set()
    times = alternate({name: w for name, w in works.items() if w and name not in once}, sizes)
    times |= {name: [timed(case.theirs)] for name in once}
    low, median, high = (1e3 * float(t) for t in np.quantile(times["ours"], (0.25, 0.5, 0.75)))
    other = 1e3 * float(np.median(times["theirs"]))
    unit = 1e3 * float(np.median(times["unit"])) if case.unit else None
    return {
        "work": case.work, "size": case.size, "threads": threads, "median_ms": median, "q25_ms": low,
        "q75_ms": high, "against": case.other, "other_ms": other, "ours/other": median / other,
        "target": case.target, "ours/gradient": median / unit if unit else None,
    }  # fmt: skip


def alternate(works: dict[str, Work], sizes: Sizes) -> dict[str, list[float]]:
    """Seconds of the calls of each work, in turn, until `seconds` have passed or `most` rounds are over."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    start = time.perf_counter()
    for done in range(sizes.most):
        if done >= sizes.least and time.perf_counter() - start > sizes.seconds:
            break
        for name, work in works.items():
            times[name].append(timed(work))
    return times


def timed(work: Work) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cases(sizes: Sizes) -> Iterator[Case]:
    """All rows, each prepared when its turn comes."""
    for model, shape in sizes.models:
        yield from network_cases(model, shape)
    for size, factors in sizes.inverses:
        yield inverse_case(size, factors)
    yield from sparsegpt_cases(*sizes.layer)


def network_cases(model: str, shape: tuple[int, ...]) -> Iterator[Case]:
    """Both diagonals and a Hessian-vector product of one model at its initial weights."""
    rng = generator(0, "bench curvature")
    network, loss = make(model, shape[1:], CLASSES), CrossEntropy()
    x = rng.standard_normal(shape).astype(np.float32)
    target = rng.integers(0, CLASSES, shape[0])
    params = network.params()
    v = {name: rng.standard_normal(p.value.shape).astype(np.float32) for name, p in params.items()}
    batch, size = (network, loss, x, target), f"{model} b{shape[0]}"
    evaluate(*batch)
    columns = loss.sqrt_hessian()

    def backward_passes() -> None:
        evaluate(*batch)
        for column in columns:
            pull_to_params(network, column)

    def one_gradient() -> None:
        gradient(*batch)

    other = f"forward + {CLASSES} backward"
    target_ratio = "P8: <= 2" if model.startswith("lenet") else None
    for work, diagonal in (("Hessian diagonal", exact_diagonal), ("GGN diagonal", ggn_diagonal)):
        ours = partial(diagonal, *batch)
        yield Case(work, size, ours, other, backward_passes, target_ratio, one_gradient)
    ours = partial(hvp, *batch, v)
    yield Case("Hessian-vector product", size, ours, "gradient", one_gradient, None, one_gradient)


def inverse_case(size: int, factors: int) -> Case:
    """Inverse of a damped sum of `factors` outer products of vectors of `size` numbers."""
    q = generator(0, "bench inverse").standard_normal((factors, size))
    return Case(
        "inverse by blocks", f"d = {size}, {factors} factors", partial(inverse_by_blocks, q, DAMPING),
        "by vectors", partial(inverse_by_vectors, q, DAMPING), "P9: <= 0.1", slow=size * factors > 5e5,
    )  # fmt: skip


def sparsegpt_cases(out: int, inputs: int) -> Iterator[Case]:
    """Half of the weights of a layer removed, inputs correlated; and the factor it takes."""
    rng = generator(0, "bench sparsegpt")
    weight, x = rng.standard_normal((out, inputs)), rng.standard_normal((2 * inputs, inputs))
    x[:, 1:] += x[:, :-1] / 2
    gram = x.T @ x / len(x)
    factor = inverse_factor(gram, DAMPING)
    live = np.ones(weight.shape, dtype=bool)

    def solve(rule: Callable[..., Any], *blocks: int) -> None:
        rule(weight, factor, lowest_of_block(live, live.size // 2), *blocks)

    yield Case(
        "SparseGPT", f"{out}x{inputs}, 50 %", partial(solve, by_blocks, BLOCK, BLOCK),
        "by columns", partial(solve, by_columns, BLOCK), "P9: <= 0.1", slow=True,
    )  # fmt: skip
    yield Case(
        "factor for SparseGPT", f"{inputs}x{inputs}", partial(inverse_factor, gram, DAMPING),
        "inverse, then Cholesky", partial(plain_factor, gram, DAMPING),
    )  # fmt: skip


def plain_factor(gram: Array, damping: float) -> Array:
    """Upper U with U^T U the inverse of the damped matrix, as it is defined."""
    damped = gram + damping * np.mean(np.diag(gram)) * np.eye(len(gram))
    return np.linalg.cholesky(np.linalg.inv(damped)).T
