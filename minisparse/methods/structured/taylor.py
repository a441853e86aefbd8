"""Taylor: remove the units whose absence changes the loss least, to first order.

P. Molchanov, S. Tyree, T. Karras, T. Aila, J. Kautz. Pruning Convolutional Neural Networks for Resource
Efficient Inference. ICLR 2017. arXiv:1611.06440 (feature maps, |.|, normalisation by layer)
P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz. Importance Estimation for Neural Network Pruning.
CVPR 2019. arXiv:1906.10771 (gates and filters, squared)

Multiply what unit u puts out by a gate z_u = 1 wherever it is read. Closing the gate changes the loss L_n of
sample n by -dL_n/dz_u + O(2), and

    dL_n/dz_u = sum over readers, their columns j of u, positions p
                X[n, p, j] sum_o W[o, j] dL_n/dY[n, p, o]                                  (1)

is the sum of w dL_n/dw over all weights that read u: a sum over a group of weights, not of their absolute
values. The sum over the weights that write u,

    sum over writers, their rows i of u, inputs, positions  w dL_n/dw
        = sum_p dL_n/dY[n, p, i] (W X)[n, p, i]                                            (2)

is the other form of 2019 (of="weights"). Behind a bias-free ReLU layer both are the same number. With power 1
or 2:

    score(u) = mean_n |(1) or (2)|^power                                                   (3)
    N(u) = score(u) / ||scores of the group||_2                                            (4)

With `normalize` groups are ranked by (4), as in 2017; in 2019 by (3). A mean of absolute values does not
vanish at a minimum of the loss, where the mean of (1) does.

Departures: scores come from `samples` training samples in evaluation mode when units are removed, the papers
accumulate them over mini-batches of the training between removals; the absolute value is taken of each
sample, in 2019's code of each mini-batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minisparse.errors import UsageError
from minisparse.methods.base import setting
from minisparse.methods.registry import register
from minisparse.methods.structured.ranked import Ranked
from minisparse.nn.layer import LinearLayer
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.count import check_choice, check_flag, check_whole
from minisparse.sparsity.groups import Group, groups_of
from minisparse.sparsity.schedule import Linear, Schedule
from minisparse.training.state import TrainState

BATCH = 64  # samples that are held in memory at once


def read_slopes(layer: LinearLayer) -> Array:
    """The terms of (1) for each column, from the last backward pass: (n, in)."""
    slopes: Array = (layer.rows * (layer.corows @ layer.weight.dense())).sum(axis=1)
    return slopes


def write_slopes(layer: LinearLayer) -> Array:
    """The terms of (2) for each row, from the last backward pass: (n, out)."""
    slopes: Array = (layer.corows * (layer.rows @ layer.weight.dense().T)).sum(axis=1)
    return slopes


def unit_slopes(network: Network, groups: tuple[Group, ...], of: str = "outputs") -> dict[Group, Array]:
    """(1) or (2) (n, units) of every unit, at the last backward pass."""
    layers = network.prunable()
    found = {}
    for group in groups:
        parts = group.consumers if of == "outputs" else group.producers
        rule = read_slopes if of == "outputs" else write_slopes
        terms = [rule(layers[name])[:, index].sum(axis=2) for name, index in parts]
        found[group] = np.sum(terms, axis=0)
    return found


def _batches(state: TrainState, samples: int) -> Iterator[int]:
    """Backward passes over a fixed sample of the training data; how many samples each has."""
    x, target = state.calibration(samples)
    for start in range(0, len(x), BATCH):
        part = slice(start, start + BATCH)
        y = state.network.forward(x[part], EVAL)
        state.loss.value(y, target[part])
        state.network.backward(state.loss.grad(), need_dx=False)
        yield len(y)


@register("taylor", family="structured", paper="arXiv:1906.10771")
@dataclass(frozen=True)
class Taylor(Ranked):
    """Keep the units the loss depends on most."""

    schedule: Schedule = setting(Linear(), "when to prune, and how far each time")
    of: str = setting("outputs", "outputs or weights: what of a unit is multiplied by its gate")
    power: int = setting(2, "1 for absolute, 2 for squared slopes")
    normalize: bool = setting(False, "divide scores by their group's L2 norm before comparing groups")
    samples: int = setting(256, "training samples the scores are computed from")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.of, "of", ("outputs", "weights"))
        check_flag(self.normalize, "normalize")
        check_whole(self.samples, "samples")
        if check_whole(self.power, "power") > 2:
            raise UsageError(f"power is not usable: got {self.power!r}, expected 1 or 2.")

    def score(self, state: TrainState) -> dict[Group, Array]:
        groups, count = groups_of(state.network), 0
        total = {group: np.zeros(len(group)) for group in groups}
        for n in _batches(state, self.samples):
            count += n
            for group, slopes in unit_slopes(state.network, groups, self.of).items():
                # the loss is a mean: n times its gradient is that of each sample
                total[group] += (np.abs(n * slopes.astype(np.float64)) ** self.power).sum(axis=0)
        scores = {group: sums / count for group, sums in total.items()}
        return {g: _unit_length(s) for g, s in scores.items()} if self.normalize else scores


def _unit_length(score: Array) -> Array:
    """Equation (4)."""
    norm = np.linalg.norm(score)
    return score / norm if norm > 0 else score
