"""Deterministic mini-batches and the balanced sample used for pruning at initialisation.

The order of an epoch is a function of (seed, epoch) alone: iterating twice, resuming at epoch 7, or
drawing a probe in between changes nothing.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minisparse.data.arguments import whole_number
from minisparse.data.dataset import Dataset
from minisparse.rng import generator

GATHER_BYTES = 1 << 20


class Batch(NamedTuple):
    """Samples ``x`` and their labels or targets ``y``, row by row; contiguous and freely writable."""

    x: NDArray[Any]
    y: NDArray[Any]


def steps_per_epoch(n: int, size: int) -> int:
    """Batches of ``size`` needed for ``n`` samples: the last one may be smaller, none is dropped."""
    return -(-whole_number("number of samples", n, 1) // whole_number("batch size", size, 1))


def batches(dataset: Dataset, size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """Every training sample once, in the order of (seed, epoch), ``size`` at a time.

    The last batch holds what is left; a ``size`` above the number of samples gives one batch.
    Raises UsageError, before the first batch, for a size below 1 or a negative seed or epoch.
    """
    size = whole_number("batch size", size, 1)
    rng = generator(whole_number("seed", seed, 0), "batches", whole_number("epoch", epoch, 0))
    return _gathered(dataset, size, rng.permutation(dataset.n_train))


def _gathered(dataset: Dataset, size: int, order: NDArray[np.int64]) -> Iterator[Batch]:
    """Slices of blocks of whole batches: small samples are gathered many batches at a time, because
    a gather per batch would cost as much as a small network's step; a block stays within cache."""
    per_block = size * max(1, GATHER_BYTES // (size * dataset.train_x[0].nbytes))
    for start in range(0, len(order), per_block):
        rows = order[start : start + per_block]
        x = np.take(dataset.train_x, rows, axis=0)
        y = np.take(dataset.train_y, rows, axis=0)
        for first in range(0, len(rows), size):
            yield Batch(x[first : first + size], y[first : first + size])


def probe(dataset: Dataset, per_class: int, seed: int) -> Batch:
    """A class-balanced sample of the training set, as SNIP, GraSP and others use at initialisation.

    ``per_class`` examples of every class, or all of a class that has fewer, in a mixed order that
    depends on ``seed`` alone. Regression: ``per_class`` examples for every output, at random.
    """
    per_class = whole_number("number of examples per class", per_class, 1)
    order = generator(whole_number("seed", seed, 0), "probe").permutation(dataset.n_train)
    if dataset.classes is None:
        rows = order[: per_class * dataset.outputs]
    else:
        labels = dataset.train_y[order]
        firsts = [np.flatnonzero(labels == k)[:per_class] for k in range(dataset.classes)]
        rows = order[np.sort(np.concatenate(firsts))]
    return Batch(np.take(dataset.train_x, rows, axis=0), np.take(dataset.train_y, rows, axis=0))
