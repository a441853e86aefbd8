"""What `minisparse bench kernels` measures: masks, matrices, and what the design asks of the result.

Light on purpose: NumPy is all it needs, so that a process of another library draws the same problems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isclose

import numpy as np
from numpy.typing import NDArray

from minisparse.rng import generator
from minisparse.sparsity.count import kept_count

Shape = tuple[int, int]
Draw = Callable[[Shape, float, np.random.Generator], NDArray[np.bool_]]

SHAPES = ((768, 3072), (3072, 768))
FIGURE = (0.8, 0.9, 0.95, 0.99)
SWEEP = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
ACTIVE = 0.5  # share of neurons that are not ablated in the ViT layer


def unstructured(shape: Shape, sparsity: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask with the exact number of entries anywhere."""
    mask = np.zeros(shape[0] * shape[1], dtype=bool)
    mask[rng.permutation(mask.size)[: kept_count(mask.size, sparsity)]] = True
    return mask.reshape(shape)


def fan_in(shape: Shape, sparsity: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask with the exact number of entries of one row in every row."""
    return _lowest(rng.random(shape), kept_count(shape[1], sparsity))


def ablated(shape: Shape, sparsity: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The same number of entries as `fan_in`, in a share ACTIVE of the rows."""
    active = rng.permutation(shape[0]) < round(ACTIVE * shape[0])
    return fan_in(shape, 1 - (1 - sparsity) / ACTIVE, rng) & active[:, None]


def groups(keep: int, of: int) -> Draw:
    """Masks of `keep` entries in every `of` columns."""

    def draw(shape: Shape, sparsity: float, rng: np.random.Generator) -> NDArray[np.bool_]:
        return _lowest(rng.random((shape[0], shape[1] // of, of)), keep).reshape(shape)

    return draw


def _lowest(scores: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Which are the `count` lowest of the last axis."""
    mask = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(mask, scores.argsort(axis=-1)[..., :count], True, axis=-1)
    return mask


DRAWS: dict[str, Draw] = {
    "unstructured": unstructured,
    "fan-in": fan_in,
    "ablated": ablated,
    "2:4": groups(2, 4),
    "4:8": groups(4, 8),
}


@dataclass(frozen=True)
class Case:
    """Rows of the table that share a kernel: masks (a name of DRAWS), formats, batch, order in memory."""

    kernel: str
    masks: str
    sparsities: tuple[float, ...]
    formats: tuple[str, ...]
    batch: int
    shapes: tuple[Shape, ...] = SHAPES
    by_rows: bool = False
    product: str = "apply"
    image: int = 0  # height and width; 0 for a matrix product

    @property
    def places(self) -> int:
        """Columns that the matrix is multiplied with: samples, times pixels of a convolution."""
        return self.batch * max(1, self.image) ** 2


@dataclass(frozen=True)
class Problem:
    """One matrix, its mask, and a generator for what it is multiplied with."""

    dense: NDArray[np.float32]
    mask: NDArray[np.bool_]
    rng: np.random.Generator


def problem(masks: str, kernel: str, shape: Shape, sparsity: float) -> Problem:
    """The matrix (out, in) of a case: equal arguments give an equal one, in any process."""
    rng = generator(0, f"bench {kernel} {shape[0]}x{shape[1]} {sparsity}")
    mask = DRAWS[masks](shape, sparsity, rng)
    return Problem(rng.standard_normal(shape).astype(np.float32), mask, rng)


def columns(found: Problem, batch: int, by_rows: bool = False) -> NDArray[np.float32]:
    """X (in, batch), feature by feature in memory or, by_rows, sample by sample."""
    x = found.rng.standard_normal((found.dense.shape[1], batch)).astype(np.float32)
    return np.asfortranarray(x) if by_rows else x


CASES = (
    Case("matvec fan-in", "fan-in", FIGURE, ("condensed", "sliced", "csr"), 1),
    Case("matvec unstructured", "unstructured", SWEEP, ("bitmask", "sliced", "csr"), 1),
    Case("matmat unstructured", "unstructured", SWEEP, ("panels", "csr"), 256),
    Case("matmat rows", "unstructured", (0.9,), ("panels", "csr"), 256, by_rows=True),
    Case("matvec 2:4", "2:4", (0.5,), ("nm", "bitmask"), 1),
    Case("matvec 4:8", "4:8", (0.5,), ("nm", "bitmask"), 1),
    Case("matmat 2:4", "2:4", (0.5,), ("panels", "nm"), 256),
    Case("matmat 4:8", "4:8", (0.5,), ("panels", "nm"), 256),
    Case("dX", "unstructured", (0.9, 0.95), ("csr",), 128, product="pull"),
    Case("dW", "unstructured", (0.9, 0.95), ("csr",), 128, product="pullback"),
    Case("conv 3x3", "unstructured", (0.5, 0.8, 0.9, 0.95), ("csr",), 128, ((16, 144),), image=32),
    Case("conv 3x3", "unstructured", (0.5, 0.8, 0.9, 0.95), ("csr",), 128, ((64, 576),), image=8),
    Case("ViT-B/16", "ablated", FIGURE, ("reduced", "csr", "condensed", "sliced", "bitmask"), 1, SHAPES[:1]),
    Case("ViT-B/16", "ablated", FIGURE, ("reduced", "csr", "condensed", "panels"), 256, SHAPES[:1]),
)


@dataclass(frozen=True)
class Target:
    """What the design asks of some records: at least `dense` times as fast as BLAS, `scipy` as SciPy.

    strict: faster, and not only as fast. threads: the numbers it is asked at; empty for all.
    """

    name: str
    kernels: tuple[str, ...]
    batch: int
    sparsities: tuple[float, ...]
    dense: float
    scipy: float | None = None
    threads: tuple[int, ...] = ()
    strict: bool = False

    def asks(self, kernel: str, batch: int, sparsity: float, threads: int) -> bool:
        """Whether it is about such a record."""
        return (
            kernel in self.kernels
            and batch == self.batch
            and any(isclose(sparsity, s) for s in self.sparsities)
            and (not self.threads or threads in self.threads)
        )

    def reached(self, ratio: float, least: float) -> bool:
        """Whether a measured ratio is enough."""
        return ratio > least if self.strict else ratio >= least

    def met(self, dense: float, scipy: float | None) -> bool:
        """Whether both ratios are enough; a ratio that is asked for and missing is not."""
        if not self.reached(dense, self.dense):
            return False
        return self.scipy is None or (scipy is not None and self.reached(scipy, self.scipy))

    @property
    def text(self) -> str:
        """Name and ratios in words."""
        sign = ">" if self.strict else ">="
        more = "" if self.scipy is None else f", {sign} {self.scipy:g}x SciPy"
        return f"{self.name} {sign} {self.dense:g}x dense{more}"


MATVEC_NM, MATMAT_NM = (
    tuple(f"{kind} {pattern}" for pattern in ("2:4", "4:8")) for kind in ("matvec", "matmat")
)
TARGETS = (
    Target("P1", ("matvec fan-in",), 1, (0.9,), 8.0, 3.0, (1,)),
    Target("P2", ("matvec unstructured",), 1, tuple(s for s in SWEEP if s >= 0.3), 1.0, strict=True),
    Target("P3", ("matmat unstructured",), 256, (0.6,), 1.0, strict=True),
    Target("P3", ("matmat unstructured",), 256, (0.8,), 2.5),
    Target("P3", ("matmat unstructured",), 256, (0.9,), 6.0),
    Target("P3", ("matmat unstructured",), 256, (0.95,), 9.0),
    Target("P3", ("matmat unstructured",), 256, (0.99,), 25.0),
    Target("P4", MATVEC_NM, 1, (0.5,), 1.8),
    Target("P4", MATMAT_NM, 256, (0.5,), 1.3),
)


def target_of(kernel: str, batch: int, sparsity: float, threads: int) -> Target | None:
    """The target that is about such a record, or None."""
    return next((t for t in TARGETS if t.asks(kernel, batch, sparsity, threads)), None)
