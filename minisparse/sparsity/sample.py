"""Random subsets in memory of their own size: which entries a sparse matrix starts with, or grows.

    S uniform among all subsets of `count` of the free positions                           (1)

Free are the positions 0 .. size - 1 that are not excluded. The r-th free position, r = 0, 1, ..., is

    r + #{j : e_j - j <= r},   e_0 < e_1 < ... the excluded ones                           (2)

since e_j - j free positions lie before e_j. So it is enough to draw ranks r. The first `count` different
numbers in a stream of uniform draws are (1) exactly: as many are drawn as are missing, until none is. On
average a round finds half of what it misses or more, because for more than half of the ranks it is those left
out that are drawn.

Over several layers with one count in all, (1) holds of the positions in all layers one after the other; the
layers' counts are then multivariate hypergeometric.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from minisparse.errors import UsageError
from minisparse.kernels.merge import skip
from minisparse.kernels.rank import ascending
from minisparse.nn.weight import check_flat
from minisparse.sparsity.allocation import Allocation, budget, sizes_of
from minisparse.sparsity.count import check_whole
from minisparse.sparsity.shape import Array, LayerShape

__all__ = ["free_positions", "sample_counts", "sample_distinct", "sample_layers", "sample_rows"]


def sample_distinct(count: int, size: int, rng: Generator, excluded: Array | None = None) -> Array:
    """(count,) ascending int64 positions below `size`, uniform over subsets: equation (1).

    excluded: ascending, distinct positions that may not be drawn. Memory O(count + excluded), whatever the
    size. UsageError for what is not a count, or if fewer than `count` positions are free; ShapeError if
    `excluded` is not as described.
    """
    size = check_whole(size, "size of the sampled set", 0)
    taken = np.empty(0, dtype=np.int64) if excluded is None else check_flat(excluded, size)
    free = size - taken.size
    if check_whole(count, "count of samples", 0) > free:
        raise UsageError(
            f"sample cannot be that large: got count={count}, expected at most {free}, the free positions."
        )
    if 2 * count > free:
        ranks = np.delete(np.arange(free), _distinct(free - count, free, rng))
    else:
        ranks = _distinct(count, free, rng)
    return free_positions(ranks, taken)


def free_positions(ranks: Array, excluded: Array) -> Array:
    """Equation (2): the positions with these ranks among those not excluded; both ascending int64."""
    return skip(ranks, excluded)


def sample_rows(count: int, rows: int, columns: int, rng: Generator) -> Array:
    """(rows * count,) ascending flat positions in a matrix (rows, columns): (1) in each row on its own.

    UsageError for what is not a count, or if `count` exceeds `columns`.
    """
    rows, columns = check_whole(rows, "rows to sample", 0), check_whole(columns, "columns to sample", 0)
    if check_whole(count, "count of samples", 0) > columns:
        raise UsageError(
            f"sample cannot be that large: got count={count}, expected at most {columns} columns."
        )
    if 2 * count <= columns:
        return _distinct(count, columns, rng, rows)
    return np.delete(np.arange(rows * columns), _distinct(columns - count, columns, rng, rows))


def sample_counts(total: int, rooms: Mapping[str, int], rng: Generator) -> dict[str, int]:
    """How many of `total` entries, uniform over all layers together, fall into each layer's room."""
    ends = np.cumsum(list(rooms.values()))
    drawn = sample_distinct(total, int(ends[-1]), rng)
    counts = np.diff(np.searchsorted(drawn, ends), prepend=0)
    return {name: int(count) for name, count in zip(rooms, counts, strict=True)}


def sample_layers(
    shapes: Mapping[str, LayerShape], sparsity: float, allocation: Allocation, rng: Generator
) -> dict[str, Array]:
    """A random topology: ascending int64 flat positions of the present entries of each layer.

    Counts are the allocation's; where it has none (one ranking over all layers) the positions are uniform
    over all layers together. SparsityError as `Allocation.counts`.
    """
    sizes = sizes_of(shapes)
    counts = allocation.counts(shapes, sparsity)
    if counts is None:
        counts = sample_counts(budget(shapes, sparsity), sizes, rng)
    return {name: sample_distinct(counts[name], size, rng) for name, size in sizes.items()}


def _distinct(count: int, size: int, rng: Generator, rows: int = 1) -> Array:
    """Ascending flat positions of `count` <= size / 2 different entries in each of `rows` rows of `size`."""
    drawn, missing = np.empty(0, dtype=np.int64), np.full(rows, count)
    while missing.any():
        starts = np.repeat(np.arange(rows) * size, missing)
        new = starts + rng.integers(size, size=starts.size)
        drawn = _once(ascending(np.concatenate([drawn, new]), rows * size))
        missing = count - np.bincount(drawn // size, minlength=rows)
    return drawn


def _once(numbers: Array) -> Array:
    """Each of the ascending numbers once; np.unique hashes: a hundred times slower on millions."""
    return numbers[np.concatenate([[True], numbers[1:] != numbers[:-1]])] if numbers.size else numbers
