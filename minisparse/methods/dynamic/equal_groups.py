"""Exchanges after which every group has as many entries as before: N of every M, or a constant fan-in.

A matrix (out, in), row after row, is cut into groups of M consecutive positions; with M = in a group is a
unit with all its inputs, and N of M its constant fan-in. An exchange of K entries of a layer:

    the K entries of least |w| leave, wherever they are                                    (1)
    each group takes in as many of its other positions as it lost, those that just left included:
    drawn uniformly, or those of largest |dL/dw|                                           (2)

No group is ever larger or smaller than it was, so what a format asks of a topology holds at every step. All
arrays are of the size of the present entries, or of the number of groups.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from minisparse.kernels.merge import union
from minisparse.methods.dynamic.rules import drop_smallest
from minisparse.nn.largest import Blocks, largest_by_row
from minisparse.nn.param import Array

GROWTH = ("random", "gradient")


def leave(flat: Array, weight: Array, k: int, groups: int, of: int) -> tuple[Array, Array]:
    """(positions that stay, how many each of `groups` groups lost) by (1); flat, weight (kept,)."""
    keep = drop_smallest(weight, k)
    return flat[keep], np.bincount(flat[~keep] // of, minlength=groups)


def enter_random(stay: Array, lost: Array, of: int, rng: Generator) -> Array:
    """Equation (2), drawn: the first lost[g] positions of a uniform stream in group g that are not taken."""
    now, wanted = stay, np.bincount(stay // of, minlength=lost.size) + lost
    missing = lost
    while missing.any():
        group = np.repeat(np.arange(lost.size), missing)
        now = np.union1d(now, group * of + rng.integers(of, size=group.size))
        missing = wanted - np.bincount(now // of, minlength=lost.size)
    return now


def enter_largest(stay: Array, lost: Array, of: int, gradient: Blocks) -> Array:
    """Equation (2) by |dL/dw|, ties to the lower position; gradient: of all entries, in blocks of rows."""
    return union(stay, largest_by_row((b.reshape(-1, of) for b in gradient), lost, excluded=stay))
