"""C-OBS: remove rows by the sum of their weights' Optimal Brain Surgeon, and add up its updates.

C. Wang, R. Grosse, S. Fidler, G. Zhang. EigenDamage: Structured Pruning in the Kronecker-Factored
Eigenbasis. ICML 2019. arXiv:1905.05934 (section 4.1)

With F ~ S (x) A (`kron_factors.py`) the inverse is S^-1 (x) A^-1, and removing each weight alone costs

    I_r = sum_j w_rj^2 / (2 [S^-1]_rr [A^-1]_jj)                                            (1)

summed over row r. For the rows R that leave, the single updates are added up,

    dW = -S^-1 Z A^-1,     Z_rj = w_rj / ([S^-1]_rr [A^-1]_jj) in the rows of R, else 0     (2)

after which the rows of R are set to zero. Neither sum is exact (`kron_obs.py` has the exact forms): (1)
may exceed or fall short of what the row costs, and (2) does not bring R to zero by itself.

Departures: Fisher expectations are exact over targets by default, and biases are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.curvature.inverse import cholesky_inverse, damped_cholesky
from minisparse.methods.base import Reconstructed, setting
from minisparse.methods.reconstruct.kron_factors import EXPECTATIONS, kron_factors, select_rows
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_choice, check_real, check_share
from minisparse.training.state import TrainState


def _single(weight: Array, a_inverse: Array, s_inverse: Array) -> Array:
    """w_rj / ([S^-1]_rr [A^-1]_jj) (out, in)."""
    return weight / np.outer(np.diag(s_inverse), np.diag(a_inverse))


def cobs_importance(weight: Array, a_inverse: Array, s_inverse: Array) -> Array:
    """Equation (1) (out,); weight (out, in), a_inverse = A^-1 (in, in), s_inverse = S^-1 (out, out)."""
    return (weight * _single(weight, a_inverse, s_inverse)).sum(axis=1) / 2


def cobs_update(weight: Array, a_inverse: Array, s_inverse: Array, leaving: Array) -> Array:
    """dW (out, in) of equation (2) for the rows leaving (out,) bool."""
    z = np.where(leaving[:, None], _single(weight, a_inverse, s_inverse), 0)
    return -s_inverse @ z @ a_inverse


@register("c-obs", family="structured", paper="arXiv:1905.05934")
@dataclass(frozen=True)
class COBS(Reconstructed):
    """Remove rows by summed compensated saliency, adding up the single updates."""

    damping: float = setting(1e-2, "added to A and to S, as a share of their mean diagonals")
    expectation: str = setting("exact", "targets of the Fisher matrix: exact or sampled")
    floor: float = setting(0.05, "share of a layer's rows that leave last")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.damping, "c-obs damping", 0)
        check_choice(self.expectation, "expectation", tuple(EXPECTATIONS))
        check_share(self.floor, "floor")

    def solve(self, state: TrainState, sparsity: float) -> dict[str, tuple[Array, Array]]:
        network = state.network
        factors = kron_factors(state, self.samples, self.expectation)
        inverses = {n: (self._inverse(a), self._inverse(s)) for n, (a, s) in factors.items()}
        weights = {n: x.weight.dense().astype(np.float64) for n, x in network.prunable().items()}
        rows = {n: cobs_importance(w, *inverses[n]) for n, w in weights.items()}
        masks = select_rows(rows, network, sparsity, self.floor)
        gone = {n: np.logical_not(mask.any(axis=1)) for n, mask in masks.items()}
        return {n: (masks[n], w + cobs_update(w, *inverses[n], gone[n])) for n, w in weights.items()}

    def _inverse(self, factor: Array) -> Array:
        return cholesky_inverse(damped_cholesky(factor, self.damping)[0])
