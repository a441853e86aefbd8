"""Rules that dynamic methods are composed of: which weights drop, which grow, how growth is shared out.

All are pure functions on arrays. Counts are exact and conserved: what is asked to leave leaves, what is
asked to enter enters. In a tie the lower flat index stays, or enters.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import cos, pi

import numpy as np
from numpy.random import Generator

from minisparse.nn.param import Array
from minisparse.sparsity.apportion import apportion, water_fill
from minisparse.sparsity.select import check_scores, top_k


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) / 2 * (1 + cos(pi * progress))


def drop_smallest(score: Array, mask: Array, k: int) -> Array:
    """`mask` without the k present entries of least |score|; score, mask (out, in)."""
    return top_k(np.abs(score), int(np.count_nonzero(mask)) - k, among=mask)


def grow_largest(stay: Array, score: Array, k: int) -> Array:
    """`stay` (out, in) and the k absent entries of largest |score|."""
    return stay | top_k(np.abs(score), k, among=~stay)


def grow_random(stay: Array, k: int, rng: Generator, among: Array | None = None) -> Array:
    """`stay` (out, in) and k entries drawn uniformly among the absent ones, or those of `among`."""
    return stay | top_k(rng.random(stay.shape), k, among=~stay if among is None else among & ~stay)


def share_out(total: int, worth: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """How many of `total` new entries each layer gets: in proportion to its worth, at most its room.

    What a full layer cannot take goes to the others in proportion; the counts sum to `total`, which the
    rooms together must hold. Equal shares if nothing has worth. NonFiniteError for a worth that is not
    finite.
    """
    check_scores("layers", list(worth.values()))
    weights = {name: Fraction(float(value)) for name, value in worth.items()}
    return apportion(water_fill(weights, room, total), total)
