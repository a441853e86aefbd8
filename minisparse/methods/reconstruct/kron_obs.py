"""Kron-OBS: remove rows and let the other rows of the layer make up for them.

C. Wang, R. Grosse, S. Fidler, G. Zhang. EigenDamage: Structured Pruning in the Kronecker-Factored
Eigenbasis. ICML 2019. arXiv:1905.05934 (section 4.1)

With F ~ S (x) A (`kron_factors.py`), removing row r of W, w_r, at the least rise of the loss costs

    I_r = w_r^T A w_r / (2 [S^-1]_rr),     dW = -S^-1 e_r w_r^T / [S^-1]_rr                 (1)

which is Optimal Brain Surgeon's set formula for all weights of a row: A drops out of the update. For a
set R of rows, likewise,

    dW = -S^-1[:,R] ([S^-1]_RR)^-1 W[R]                                                     (2)

Departures: (2) for all removed rows together, where the authors add up (1) over them (which leaves what
rows take from each other uncorrected); their code squares w before the product with A. Fisher
expectations are exact over targets by default, and biases are left out.
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


def kron_obs_importance(weight: Array, a: Array, s_inverse: Array) -> Array:
    """I_r of equation (1) (out,); weight (out, in), a = A (in, in), s_inverse = S^-1 (out, out)."""
    return np.sum((weight @ a) * weight, axis=1) / (2 * np.diag(s_inverse))


def kron_obs_update(weight: Array, s_inverse: Array, leaving: Array) -> Array:
    """dW (out, in) of equation (2) for the rows leaving (out,) bool."""
    at = np.flatnonzero(leaving)
    return -s_inverse[:, at] @ np.linalg.solve(s_inverse[np.ix_(at, at)], weight[at])


@register("kron-obs", family="structured", paper="arXiv:1905.05934")
@dataclass(frozen=True)
class KronOBS(Reconstructed):
    """Remove the rows that the others can best make up for, and adjust those."""

    damping: float = setting(1e-2, "added to S, as a share of its mean diagonal")
    expectation: str = setting("exact", "targets of the Fisher matrix: exact or sampled")
    floor: float = setting(0.05, "share of a layer's rows that leave last")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real(self.damping, "kron-obs damping", 0)
        check_choice(self.expectation, "expectation", tuple(EXPECTATIONS))
        check_share(self.floor, "floor")

    def solve(self, state: TrainState, sparsity: float) -> dict[str, tuple[Array, Array]]:
        network = state.network
        factors = kron_factors(state, self.samples, self.expectation)
        inverses = {n: cholesky_inverse(damped_cholesky(s, self.damping)[0]) for n, (_, s) in factors.items()}
        weights = {n: x.weight.dense().astype(np.float64) for n, x in network.prunable().items()}
        rows = {n: kron_obs_importance(w, factors[n][0], inverses[n]) for n, w in weights.items()}
        masks = select_rows(rows, network, sparsity, self.floor)
        gone = {n: np.logical_not(mask.any(axis=1)) for n, mask in masks.items()}
        return {n: (masks[n], w + kron_obs_update(w, inverses[n], gone[n])) for n, w in weights.items()}
