"""Explored share: how much of a network was ever part of its sparse training.

S. Liu, L. Yin, D. C. Mocanu, M. Pechenizkiy. Do We Actually Need Dense Over-Parameterization? In-Time
Over-Parameterization in Sparse Training. ICML 2021. arXiv:2102.02887

    R = |union over t of the masks m_t| / N                                                (1)

For a layer of N entries of which n are present, K leaving at each of u updates and K entering uniformly among
all that are empty then, an entry not yet explored stays so with probability 1 - K / (N - n + K):

    E R = 1 - (1 - n/N) (1 - K / (N - n + K))^u                                            (2)

(N - n for N - n + K where those that just left may not return.) `record` follows any method if it is called
after every step, as the `progress` of a training. The union is kept as positions, R N of them: no more than
what was explored.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minisparse.nn.param import Array
from minisparse.training.state import TrainState

EVER = "explored: flat positions that were ever present"


def explored_share(ever: Mapping[str, Array], size: int) -> float:
    """R of equation (1) from the union of positions by layer; size: N of all layers; 0 without entries."""
    return sum(flat.size for flat in ever.values()) / size if size else 0.0


def expected_share(size: int, kept: int, moved: int, updates: int, returns: bool = True) -> float:
    """E R of equation (2); `returns`: those that just left are candidates again."""
    candidates = size - kept + (moved if returns else 0)
    missed = 1 - moved / candidates if candidates else 1.0
    return 1 - (1 - kept / size) * missed**updates


def record(state: TrainState) -> None:
    """Add what is present to the ascending positions that state.memory keeps under EVER."""
    ever = state.memory.setdefault(EVER, {})
    for name, layer in state.network.prunable().items():
        flat = layer.weight.flat
        ever[name] = np.union1d(ever[name], flat) if name in ever else flat
