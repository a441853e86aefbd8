"""Magnitude: remove the weights of smallest absolute value.

S. Han, J. Pool, J. Tran, W. J. Dally. Learning both Weights and Connections for Efficient Neural
Networks. NeurIPS 2015. arXiv:1506.02626
M. Zhu, S. Gupta. To prune, or not to prune. arXiv:1710.01878 (the gradual schedule, here the default)

    score_L1 = |w|                                                                         (1)
    score_L2 = w^2                                                                         (2)

Single weights rank alike under (1) and (2). They differ for sets of weights (filters, blocks), whose
score is the mean over the set: its L1 norm, or its squared L2 norm, per weight.

    N(w) = |w| / ||W_layer||_2                                                             (3)

With `normalized`, scores are divided by the layer's norm before layers are compared (under L2 by its
square), which makes a global ranking blind to the scale of a layer.

With `regrow` = R > 0 masks and weights are optimised in turn. Let the schedule prune when t_1, t_2, ... steps
are done. Between, the mask is fixed; the last R steps before each t_j are taken by all weights, removed ones
from 0:

    w <- w - eta m grad L(w)               mask fixed      t_j <= t < t_{j+1} - R          (4)
    w <- w - eta grad L(w)                 no mask         t_{j+1} - R <= t < t_{j+1}      (5)
    w <- H_k(w),  m = [w != 0]             weights fixed   t = t_{j+1}                     (6)

H_k keeps the k largest |w|. R = 1 and pruning at every step is iterative hard thresholding (T. Blumensath,
M. E. Davies. Iterative hard thresholding for compressed sensing. 2009. arXiv:0805.0510), projected descent on
the networks of k weights; R = 1 and rare pruning is hard thresholding pursuit (S. Foucart. SIAM J. Numer.
Anal. 49(6), 2011, 2543-2563); R of half a period is AC/DC. For R = 1 plain descent stands still where

    grad_q = 0 where present,   eta |grad_q| <= min |w| of those present where absent      (7)

which holds for nearly every mask of a trained network, since eta |grad| is small: one step hardly changes a
mask, an epoch does. The schedule steady:every=P alternates at one sparsity; a gradual one lets removed
weights return on the way. Either fixes the mask at its end.

Departure: the original gradual method keeps removed weights frozen in the ranking and lets them come
back; here a removed weight is zero, and stays removed unless it regrows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minisparse.errors import UsageError
from minisparse.methods.base import Scored, setting
from minisparse.methods.registry import register
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_flag, check_whole
from minisparse.sparsity.schedule import Cubic, Schedule
from minisparse.training.state import TrainState


def magnitude(weight: Array, power: int = 1) -> Array:
    """Equation (1) for power 1, (2) for power 2; any shape."""
    return np.abs(weight) ** power


def normalized(weight: Array, power: int = 1) -> Array:
    """Equation (3); an all-zero layer scores 0."""
    norm = np.linalg.norm(weight)
    return magnitude(weight, power) / (norm**power if norm > 0 else 1)


@register("magnitude", family="saliency", paper="arXiv:1506.02626")
@dataclass(frozen=True)
class Magnitude(Scored):
    """Keep the largest weights."""

    schedule: Schedule = setting(Cubic(), "when to prune, and how far each time")
    norm: int = setting(1, "1 for L1, 2 for L2; they differ only for sets of weights")
    normalize: bool = setting(False, "divide scores by the layer's norm before comparing layers")
    regrow: int = setting(0, "steps before each pruning that removed weights take too; 0: they stay removed")

    def __post_init__(self) -> None:
        super().__post_init__()
        if check_whole(self.norm, "norm") > 2:
            raise UsageError(f"norm is not usable: got {self.norm!r}, expected 1 or 2.")
        check_flag(self.normalize, "normalize")
        check_whole(self.regrow, "regrow", 0)

    def before_forward(self, state: TrainState) -> None:
        """Put all weights back where equation (5) begins."""
        layers = state.network.prunable()
        if self.regrow and any(x.weight.kept < x.weight.size for x in layers.values()):
            coming = range(state.step + 1, state.step + 1 + self.regrow)
            if any(self.schedule.levels(t, state.horizon, self.sparsity) for t in coming):
                state.rewire({name: np.ones(x.weight.shape, dtype=bool) for name, x in layers.items()})

    def score(self, state: TrainState) -> dict[str, Array]:
        rule = normalized if self.normalize else magnitude
        layers = state.network.prunable()
        return {name: rule(layer.weight.dense(), self.norm) for name, layer in layers.items()}
