"""Explored share: how much of a network was ever part of its sparse training.

S. Liu, L. Yin, D. C. Mocanu, M. Pechenizkiy. Do We Actually Need Dense Over-Parameterization? In-Time
Over-Parameterization in Sparse Training. ICML 2021. arXiv:2102.02887

    R = |union over t of the masks m_t| / N                                                (1)

For a layer of N entries of which n are present, K leaving at each of u updates and K entering uniformly among
all that are empty then, an entry not yet explored stays so with probability 1 - K / (N - n + K):

    E R = 1 - (1 - n/N) (1 - K / (N - n + K))^u                                            (2)

(N - n for N - n + K where those that just left may not return.) `record` follows any method if it is called
after every step, as the `progress` of a training.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minisparse.nn.param import Array
from minisparse.training.state import TrainState

EVER = "explored: entries that were ever present"


def explored_share(ever: Mapping[str, Array]) -> float:
    """R of equation (1) from the union of masks by layer; 0 without layers."""
    size = sum(mask.size for mask in ever.values())
    return sum(int(np.count_nonzero(mask)) for mask in ever.values()) / size if size else 0.0


def expected_share(size: int, kept: int, moved: int, updates: int, returns: bool = True) -> float:
    """E R of equation (2); `returns`: those that just left are candidates again."""
    candidates = size - kept + (moved if returns else 0)
    missed = 1 - moved / candidates if candidates else 1.0
    return 1 - (1 - kept / size) * missed**updates


def record(state: TrainState) -> None:
    """Add the present masks to what state.memory keeps under EVER."""
    ever = state.memory.setdefault(EVER, {})
    for name, mask in state.network.masks().items():
        ever[name] = ever[name] | mask if name in ever else mask
