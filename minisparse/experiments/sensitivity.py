"""Per-layer sensitivity: one layer is pruned at a time, and all others stay whole.

H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf. Pruning Filters for Efficient ConvNets. ICLR 2017.
arXiv:1608.08710 (figure 2); S. Han, J. Pool, J. Tran, W. J. Dally. NIPS 2015. arXiv:1506.02626 (figure 6).

    A_l(s) = accuracy with the kept_count(n_l, s) best weights of layer l and all of the others   (1)

The network is trained once, scored once, and not trained again: what is measured is how much a layer's
weights are missed at once, not what training could make good. Layers that look alike here need not be alike
together: errors of several layers add up in no simple way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from minisparse.data.dataset import Dataset
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.methods.base import Scored, layer_shapes
from minisparse.nn.loss import LOSSES, Loss
from minisparse.nn.lr import Constant
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Uniform
from minisparse.sparsity.select import check_sparsity, select
from minisparse.training.run import evaluate
from minisparse.training.state import TrainState

GRID = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Point:
    """One layer at one sparsity: loss and accuracy (NaN for regression) of the whole network."""

    layer: str
    sparsity: float
    kept: int
    total: int
    loss: float
    accuracy: float


def sensitivity(
    network: Network,
    data: Dataset,
    x: Array,
    target: Array,
    method: Scored,
    sparsities: Sequence[float] = GRID,
    seed: int = 0,
) -> list[Point]:
    """Equation (1) for every prunable layer and sparsity, layers in the order data flows.

    Scores are those `method` gives the whole network on the training samples of `data`, selected by its
    pattern within the layer; loss and accuracy are those of x and target. The network is not changed.
    """
    levels = [check_sparsity(s) for s in sparsities]
    method.check(network)
    loss = LOSSES["mse" if data.classes is None else "cross-entropy"]()
    scores = method.score(_state(network, data, loss, seed))
    shapes, found = layer_shapes(network), []
    for name, layer in network.prunable().items():
        for level in levels:
            own = {name: shapes[name]}
            live = {name: layer.weight.mask}
            mask = select({name: scores[name]}, own, level, Uniform(), method.pattern, live)[name]
            work = network.copy()
            work.prunable()[name].weight.rewire(mask)
            value, accuracy = evaluate(work, loss, x, target)
            found.append(Point(name, level, int(mask.sum()), mask.size, value, accuracy))
    return found


def _state(network: Network, data: Dataset, loss: Loss, seed: int) -> TrainState:
    data = data.astype(network.dtype)
    return TrainState(
        network.copy(), SGD(), loss, Constant(0.1), seed, 1, 1,
        data.train_x, data.train_y, data.train_x, data.train_y,
    )  # fmt: skip


def tolerated(points: Sequence[Point], drop: float) -> dict[str, float]:
    """The highest sparsity of each layer up to which accuracy falls by no more than `drop`.

    Compared with the layer's own point of lowest sparsity. Where there is no accuracy, up to which the loss
    stays below (1 + drop) times that point's.
    """
    found: dict[str, float] = {}
    for name in dict.fromkeys(p.layer for p in points):
        own = sorted((p for p in points if p.layer == name), key=lambda p: p.sparsity)
        start = own[0]
        for point in own:
            fine = point.accuracy >= start.accuracy - drop
            if np.isnan(point.accuracy):
                fine = point.loss <= (1 + drop) * start.loss
            if not fine:
                break
            found[name] = point.sparsity
    return found


@themed
def sensitivity_curves(points: Sequence[Point], title: str, *, theme: Theme = LIGHT) -> Figure:
    """Accuracy (where there is none, loss) against the sparsity of one layer, a line for each layer."""
    figure, axes = theme.figure(7.6, 4.4)
    at = axes[0][0]
    losses = any(np.isnan(p.accuracy) for p in points)
    for k, name in enumerate(dict.fromkeys(p.layer for p in points)):
        own = [p for p in points if p.layer == name]
        y = [p.loss if losses else 100 * p.accuracy for p in own]
        at.plot(
            [100 * p.sparsity for p in own], y, color=theme.hues[k % len(theme.hues)],
            marker=MARKERS[k % len(MARKERS)], markeredgecolor=theme.paper, markeredgewidth=0.7,
            label=f"{name} ({own[0].total:,} weights)",
        )  # fmt: skip
    at.set_xlabel("sparsity of this layer alone (%)")
    at.set_ylabel("validation loss" if losses else "validation accuracy (%)")
    at.set_title(title)
    figure.legend(loc="outside right center")
    return figure
