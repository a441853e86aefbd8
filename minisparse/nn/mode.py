"""Mode of a forward pass: training or evaluation, and where its randomness comes from."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator


@dataclass(frozen=True)
class Mode:
    """training: batch statistics and dropout are on; rng: generator of this step's noise."""

    training: bool = False
    rng: Generator | None = None


EVAL = Mode()
