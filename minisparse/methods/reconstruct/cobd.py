"""C-OBD: remove rows by the sum of their weights' Optimal Brain Damage.

C. Wang, R. Grosse, S. Fidler, G. Zhang. EigenDamage: Structured Pruning in the Kronecker-Factored
Eigenbasis. ICML 2019. arXiv:1905.05934 (section 4.1)

With F the diagonal of the Fisher matrix,

    I_r = sum_j F_rj w_rj^2 / 2                                                             (1)

the rise of the loss if all weights of row r were removed and the Fisher matrix were diagonal.

Departures: F is the true Fisher's diagonal with the expectation over targets taken exactly by default (the
paper samples them; the mean of squared per-sample gradients in either case). Biases are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from minisparse.curvature.fisher import fisher_diagonal, fisher_diagonal_sampled
from minisparse.curvature.tree import Tree
from minisparse.methods.base import Scored, setting
from minisparse.methods.reconstruct.kron_factors import ranked, spread_rows
from minisparse.methods.registry import register
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_choice, check_share, check_whole
from minisparse.sparsity.pattern import Pattern, Row
from minisparse.training.state import TrainState


def cobd_importance(weight: Array, fisher: Array) -> Array:
    """Equation (1) (out,) for weight and Fisher diagonal (out, in)."""
    return (fisher * weight * weight).sum(axis=1) / 2


def _exact(network: Network, loss: Loss, x: Array, target: Array, rng: Generator) -> Tree:
    return fisher_diagonal(network, loss, x, target)


DIAGONALS: dict[str, Callable[..., Tree]] = {"exact": _exact, "sampled": fisher_diagonal_sampled}


@register("c-obd", family="structured", paper="arXiv:1905.05934")
@dataclass(frozen=True)
class COBD(Scored):
    """Keep the rows of largest summed saliency."""

    pattern: Pattern = setting(Row(), "which sets of weights stay or leave together")
    samples: int = setting(512, "training samples the curvature is computed from")
    expectation: str = setting("exact", "targets of the Fisher matrix: exact or sampled")
    floor: float = setting(0.05, "share of a layer's rows that leave last")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.samples, "samples")
        check_choice(self.expectation, "expectation", tuple(DIAGONALS))
        check_share(self.floor, "floor")

    def score(self, state: TrainState) -> dict[str, Array]:
        network = state.network
        x, target = state.calibration(self.samples)
        rng = state.rng("fisher targets")
        diagonal = DIAGONALS[self.expectation](network, state.loss, x, target, rng)
        layers = network.prunable()
        rows = {n: cobd_importance(x.weight.dense(), diagonal[f"{n}.weight"]) for n, x in layers.items()}
        return spread_rows(ranked(rows, self.floor), network)
