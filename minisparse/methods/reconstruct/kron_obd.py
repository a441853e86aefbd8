"""Kron-OBD: remove rows by what they cost under a Kronecker-factored Fisher matrix, changing nothing else.

C. Wang, R. Grosse, S. Fidler, G. Zhang. EigenDamage: Structured Pruning in the Kronecker-Factored
Eigenbasis. ICML 2019. arXiv:1905.05934 (section 4.1)

With F ~ S (x) A (`kron_factors.py`), setting row r of W, w_r, to zero raises the loss by

    I_r = S_rr w_r^T A w_r / 2                                                              (1)

Departures: the authors' code computes sum_jk w_rj^2 A_jk, squaring before the product; (1) is what the
paper derives. Fisher expectations are exact over targets by default (the paper samples them), and biases
are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.methods.base import Scored, setting
from minisparse.methods.reconstruct.kron_factors import EXPECTATIONS, kron_factors, ranked, spread_rows
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_choice, check_share, check_whole
from minisparse.sparsity.pattern import Pattern, Row
from minisparse.training.state import TrainState


def kron_obd_importance(weight: Array, a: Array, s: Array) -> Array:
    """Equation (1) (out,) for weight (out, in), a = A (in, in), s = S (out, out)."""
    return np.diag(s) * np.sum((weight @ a) * weight, axis=1) / 2


@register("kron-obd", family="structured", paper="arXiv:1905.05934")
@dataclass(frozen=True)
class KronOBD(Scored):
    """Keep the rows whose removal would raise the loss most."""

    pattern: Pattern = setting(Row(), "which sets of weights stay or leave together")
    samples: int = setting(512, "training samples the curvature is computed from")
    expectation: str = setting("exact", "targets of the Fisher matrix: exact or sampled")
    floor: float = setting(0.05, "share of a layer's rows that leave last")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.samples, "samples")
        check_choice(self.expectation, "expectation", tuple(EXPECTATIONS))
        check_share(self.floor, "floor")

    def score(self, state: TrainState) -> dict[str, Array]:
        layers = state.network.prunable()
        factors = kron_factors(state, self.samples, self.expectation)
        rows = {n: kron_obd_importance(x.weight.dense(), *factors[n]) for n, x in layers.items()}
        return spread_rows(ranked(rows, self.floor), state.network)
