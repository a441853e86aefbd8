"""Wanda: within each output row, keep the weights of largest magnitude times input norm.

M. Sun, Z. Liu, A. Bair, J. Z. Kolter. A Simple and Effective Pruning Approach for Large Language Models.
ICLR 2024. arXiv:2306.11695

    S_rj = |W_rj| |X_j|_2 / sqrt(r)                                                         (1)

X_j is input feature j over the r rows of calibration inputs; S^2 / 2 is what removing the weight alone adds
to the layer's error (`layerwise.py`, equation (1)): SparseGPT's score with the off-diagonal part of A
left out, and nothing is compensated. Weights compete only within their row, so that every row keeps as
many, or within their N:M group. The next layer's inputs come through the layers already pruned.

`within` = "layer" lets all weights of a layer compete. The authors find rows better for language models and
make no difference for image classifiers; on small perceptrons layers are the better by far, as units that
can be spared are not kept alive.

Departures: where the layer's count is no multiple of its rows, the first rows keep one more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import Reconstructed, setting
from minisparse.methods.reconstruct.layerwise import Solution, groups_of, kept_per_layer, reconstruct
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Allocation, Uniform
from minisparse.sparsity.count import check_choice, check_flag
from minisparse.sparsity.pattern import NM, Pattern, Unstructured
from minisparse.sparsity.select import check_scores, top_k
from minisparse.sparsity.shape import LayerShape
from minisparse.training.state import TrainState


def wanda_score(weight: Array, gram: Array) -> Array:
    """Equation (1) for weight (out, in) and A = X^T X / r (in, in)."""
    return np.abs(weight) * np.sqrt(np.diag(gram))


def row_counts(live: Array, kept: int) -> Array:
    """Entries each row keeps (out,), their sum `kept`: as equal as live (out,) allows, first rows first."""
    counts = np.zeros_like(live)
    while (left := kept - int(counts.sum())) > 0:
        open_rows = np.flatnonzero(counts < live)
        if left < len(open_rows):
            counts[open_rows[:left]] += 1
        else:
            counts[open_rows] = np.minimum(live, counts + left // len(open_rows))[open_rows]
    return counts


def within_rows(score: Array, live: Array, kept: int) -> Array:
    """Mask (out, in) of the largest scores of each row, `kept` in all; ties to the lower column."""
    counts = row_counts(live.sum(axis=1), kept)
    rows = zip(check_scores("wanda", score), live, counts, strict=True)
    return np.stack([top_k(row, int(count), among=alive) for row, alive, count in rows])


def within_layer(score: Array, live: Array, kept: int) -> Array:
    """Mask (out, in) of the `kept` largest scores of the layer."""
    return top_k(check_scores("wanda", score), kept, among=live)


SCOPES: dict[str, Callable[[Array, Array, int], Array]] = {"row": within_rows, "layer": within_layer}


def within_groups(score: Array, live: Array, groups: NM) -> Array:
    """Mask (out, in) of the largest scores of each N:M group."""
    return groups.eligible(check_scores("wanda", score), LayerShape(*live.shape), live)


@register("wanda", family="reconstruct", paper="arXiv:2306.11695")
@dataclass(frozen=True)
class Wanda(Reconstructed):
    """Prune by weight and activation, row by row, without changing what stays."""

    within: str = setting("row", "which weights compete: those of a row, or of a layer")
    propagate: bool = setting(True, "take inputs through the layers already pruned")
    allocation: Allocation = setting(Uniform(), "how the kept weights are shared among layers")
    pattern: Pattern = setting(Unstructured(), "single weights, or N:M groups along the inputs")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.within, "wanda within", tuple(SCOPES))
        check_flag(self.propagate, "wanda propagate")
        groups_of(self.pattern, self.sparsity)

    def solve(self, state: TrainState, sparsity: float) -> Solution:
        groups = groups_of(self.pattern, self.sparsity)
        if groups and sparsity != self.sparsity:
            return {}

        def rule(weight: Array, gram: Array, live: Array, kept: int) -> tuple[Array, Array]:
            score = wanda_score(weight, gram)
            mask = within_groups(score, live, groups) if groups else SCOPES[self.within](score, live, kept)
            return mask, weight

        kept = kept_per_layer(state.network, sparsity, self.allocation)
        return reconstruct(state, self.samples, kept, rule, self.propagate)
