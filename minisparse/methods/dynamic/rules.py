"""Rules that dynamic methods are composed of: which weights drop, which grow, how growth is shared out.

All are pure functions on arrays of present entries: `flat`, their ascending positions in the matrix, and a
number for each, in that order. Nothing of the matrix's own size is formed. Counts are exact and conserved:
what is asked to leave leaves, what is asked to enter enters. In a tie the lower position stays, or enters.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import cos, pi

import numpy as np
from numpy.random import Generator

from minisparse.kernels.merge import union
from minisparse.nn.largest import Blocks, largest
from minisparse.nn.param import Array
from minisparse.sparsity.apportion import apportion, water_fill
from minisparse.sparsity.sample import sample_distinct
from minisparse.sparsity.select import check_scores, top_k


def cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) / 2 * (1 + cos(pi * progress))


def drop_smallest(score: Array, k: int) -> Array:
    """Who stays (kept,) when the k entries of least |score| leave; score (kept,)."""
    return top_k(np.abs(score), score.size - k)


def largest_together(scores: Mapping[str, Array], k: int) -> dict[str, Array]:
    """Who is among the k largest scores of all layers together; in a tie earlier layers come first."""
    ends = np.cumsum([score.size for score in scores.values()])
    chosen = top_k(np.concatenate(list(scores.values())), k)
    return dict(zip(scores, np.split(chosen, ends[:-1]), strict=True))


def grow_largest(stay: Array, scores: Blocks, k: int) -> Array:
    """The positions `stay` and, among all others, the k of largest |score|; scores in blocks of rows."""
    return union(stay, largest(scores, k, excluded=stay))


def grow_random(stay: Array, size: int, k: int, rng: Generator, excluded: Array | None = None) -> Array:
    """The positions `stay` and k drawn uniformly among the others of a matrix of this size.

    excluded: ascending positions where none may enter, those of `stay` among them; by default just those.
    """
    return union(stay, sample_distinct(k, size, rng, stay if excluded is None else excluded))


def share_out(total: int, worth: Mapping[str, float], room: Mapping[str, int]) -> dict[str, int]:
    """How many of `total` new entries each layer gets: in proportion to its worth, at most its room.

    What a full layer cannot take goes to the others in proportion; the counts sum to `total`, which the
    rooms together must hold. Equal shares if nothing has worth. NonFiniteError for a worth that is not
    finite.
    """
    check_scores("layers", list(worth.values()))
    weights = {name: Fraction(float(value)) for name, value in worth.items()}
    return apportion(water_fill(weights, room, total), total)
