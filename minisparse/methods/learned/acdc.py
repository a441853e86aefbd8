"""AC/DC: training alternates between dense phases and phases with only the largest weights, and ends sparse.

A. Peste, E. Iofinova, A. Vladu, D. Alistarh. AC/DC: Alternating Compressed/DeCompressed Training of Deep
Neural Networks. NeurIPS 2021. arXiv:2106.12379

    compress     keep the largest |w| of all layers together; the mask holds for the phase (1)
    decompress   all weights train; those that were absent start again from 0              (2)

Phases last the share `phase` of the run, the first compression is at `begin`, the last at `last`. A phase is
left out if a dense one of full length would not fit between it and `last`: with the defaults, for 100 epochs,

    sparse in [10, 15), [20, 25), ..., [70, 75) and from 85 on                             (3)

as in the paper's ImageNet runs (begin 0.05, phase 0.1 give its CIFAR runs). Learning rates go on across
phases. Absent weights have no momentum; the others keep theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from minisparse.errors import UsageError
from minisparse.methods.base import Method, layer_shapes, rounded, setting
from minisparse.methods.registry import register
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.sparsity.allocation import Allocation, Global
from minisparse.sparsity.count import check_share, check_sparsity
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.select import select
from minisparse.training.state import TrainState


@lru_cache(maxsize=64)
def sparse_phases(horizon: int, begin: float, phase: float, last: float) -> tuple[tuple[int, int], ...]:
    """Intervals of steps [start, stop) with masks, equation (3); the last one ends with the run."""
    first, length, final = rounded(begin, horizon), max(1, rounded(phase, horizon)), rounded(last, horizon)
    starts = range(first, final - 2 * length + 1, 2 * length)
    return (*((t, t + length) for t in starts), (final, horizon))


@register("acdc", family="learned", paper="arXiv:2106.12379")
@dataclass(frozen=True)
class ACDC(Method):
    """Alternating compressed and decompressed training."""

    needs: ClassVar[frozenset[str]] = frozenset({"prunable layers"})

    sparsity: float = setting(0.9, "share of prunable weights that are zero in sparse phases and at the end")
    begin: float = setting(0.1, "share of the run before the first sparse phase")
    phase: float = setting(0.05, "length of a phase as a share of the run")
    last: float = setting(0.85, "share of the run at which the last sparse phase begins")
    allocation: Allocation = setting(Global(), "how the kept weights are shared among layers")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_share(self.phase, "phase")
        if check_share(self.begin, "begin") > check_share(self.last, "last"):
            raise UsageError(
                f"phases do not fit: got begin={self.begin} and last={self.last}, expected begin <= last."
            )

    def setup(self, state: TrainState) -> None:
        self.alternate(state)

    def after_update(self, state: TrainState) -> None:
        self.alternate(state)

    def alternate(self, state: TrainState) -> None:
        """(1) where a sparse phase begins, (2) where one ends that is not the last."""
        phases = sparse_phases(state.horizon, self.begin, self.phase, self.last)
        layers = state.network.prunable()
        if state.step in [start for start, _ in phases]:
            scores = {name: magnitude(layer.weight.dense()) for name, layer in layers.items()}
            shapes = layer_shapes(state.network)
            state.rewire(select(scores, shapes, self.sparsity, self.allocation, Unstructured()))
        elif state.step in [stop for _, stop in phases[:-1]]:
            state.rewire({name: np.ones(x.weight.shape, dtype=bool) for name, x in layers.items()})
