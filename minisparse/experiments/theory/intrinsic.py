"""Intrinsic dimension: how few numbers must be trained to solve a task?

C. Li, H. Farkhoor, R. Liu, J. Yosinski. Measuring the Intrinsic Dimension of Objective Landscapes. ICLR 2018.
arXiv:1804.08838

    d_int90 = the smallest d of a grid from which on training d coordinates of a random subspace reaches
              90 % of the accuracy of training all parameters                              (1)

Ways to train d numbers: directions of all parameters (dense and fastfood P), d of the parameters with all
others at their initial values (axes), d weights of a sparse network with all others 0 (random masks), and d
weights on top of a fixed cosine transform (dctps). Sparse networks train their biases as well, and dctps a
scale in each layer, which the counts include. Subspaces are trained by Adam at a rate of 0.1, all else by
SGD with momentum at the same rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minisparse.data.dataset import Dataset
from minisparse.data.digits import load
from minisparse.experiments.summary import mean, spread
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Method
from minisparse.methods.dense import Dense
from minisparse.methods.random import Random
from minisparse.methods.subspace.dctps import DCTpS
from minisparse.methods.subspace.subspace import Subspace
from minisparse.nn.lr import Cosine
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD, Adam, Optimizer
from minisparse.training.run import train

SEEDS = 3
MODEL, EPOCHS = "mlp:64-32-10", 15
GRID = (5, 10, 20, 50, 100, 150, 200, 300, 500, 1000)
ENOUGH = 0.9


@dataclass(frozen=True)
class Way:
    """A way to train d numbers: its method, its optimiser, and how many it trains in all."""

    method: Callable[[Network, int], Method]
    optimizer: Callable[[], Optimizer]
    trained: Callable[[Network, int], int]


def along_directions(kind: str) -> Way:
    """Coordinates of a subspace."""
    return Way(lambda network, d: Subspace(d, kind), Adam, lambda network, d: d)


def with_weights(make: Callable[[float], Method], per_layer: int = 0) -> Way:
    """Weights of a sparse network, all its other parameters, and so many more in each layer."""
    return Way(
        lambda network, d: make(1 - d / weights(network)),
        SGD,
        lambda network, d: d + others(network) + per_layer * len(network.prunable()),
    )


def weights(network: Network) -> int:
    """Number of weights, absent ones included."""
    return sum(layer.weight.size for layer in network.prunable().values())


def others(network: Network) -> int:
    """Number of all other parameters."""
    return sum(p.value.size for p in network.params().values()) - weights(network)


WAYS: dict[str, Way] = {
    "subspace, dense P": along_directions("dense"),
    "subspace, fastfood P": along_directions("fastfood"),
    "single parameters": along_directions("axes"),
    "random masks": with_weights(lambda s: Random(s)),
    "dct plus sparse": with_weights(lambda s: DCTpS(s), per_layer=1),
}


@dataclass(frozen=True)
class Curve:
    """Test accuracies, one number per seed, by d, and how many numbers each d trains in all."""

    label: str
    accuracies: dict[int, list[float]]
    trained: dict[int, int]

    def needed(self, accuracy: float) -> float:
        """Equation (1) for this accuracy, as a number of trained numbers; infinite if it is not reached."""
        found = inf
        for d in sorted(self.accuracies, reverse=True):
            if mean(self.accuracies[d]) < accuracy:
                break
            found = self.trained[d]
        return found


def study(
    seeds: Sequence[int], progress: Progress = silent, grid: Sequence[int] = GRID, epochs: int = EPOCHS,
    ways: Mapping[str, Way] | None = None,
) -> Study:  # fmt: skip
    """All ways at all d, and full training."""
    data, ways = load(), ways or WAYS
    networks = {seed: build(MODEL, data, seed) for seed in seeds}
    full = mean(_accuracy(networks[seed], data, Dense(), SGD(), epochs, seed) for seed in seeds)
    curves = []
    for place, (label, way) in enumerate(ways.items()):
        one = Curve(label, {}, {})
        for step, d in enumerate(grid):
            progress((place + step / len(grid)) / len(ways), f"{label}, d = {d}")
            one.trained[d] = way.trained(networks[seeds[0]], d)
            one.accuracies[d] = [
                _accuracy(network, data, way.method(network, d), way.optimizer(), epochs, seed)
                for seed, network in networks.items()
            ]
        curves.append(one)
    size = weights(networks[seeds[0]]) + others(networks[seeds[0]])
    rows: list[dict[str, Any]] = [
        {
            "way": one.label,
            "d": d,
            "trained": one.trained[d],
            "accuracy": mean(values),
            "spread": spread(values),
            "of_full": mean(values) / full,
        }
        for one in curves
        for d, values in one.accuracies.items()
    ]
    words = [f"All {size} parameters reach {100 * full:.1f} %; {100 * ENOUGH:g} % of that are reached by"]
    words += [f"{one.label}: {_count(one.needed(ENOUGH * full))}." for one in curves]
    return Study(rows, words, intrinsic_figure(curves, full, size))


def _accuracy(
    network: Network, data: Dataset, method: Method, optimizer: Optimizer, epochs: int, seed: int
) -> float:
    run = train(network, data, method, epochs=epochs, optimizer=optimizer, rate=Cosine(0.1), seed=seed)
    return run.accuracy


def _count(found: float) -> str:
    return f"{found:.0f} trained numbers" if isfinite(found) else "none of the grid"


@themed
def intrinsic_figure(curves: Sequence[Curve], full: float, size: int, *, theme: Theme = LIGHT) -> Figure:
    """Accuracy against how many numbers are trained; rings mark where 90 % of full training are reached."""
    figure, axes = theme.figure(8.2, 5.0)
    at = axes[0][0]
    for place, one in enumerate(curves):
        color = theme.hues[place]
        x = list(one.trained.values())
        values = 100 * np.array(list(one.accuracies.values()))
        at.plot(
            x, values.mean(axis=1), marker=MARKERS[place], color=color, label=one.label, markersize=5,
            markeredgecolor=theme.paper, markeredgewidth=0.6,
        )  # fmt: skip
        at.fill_between(x, values.min(axis=1), values.max(axis=1), color=color, alpha=0.12, linewidth=0)
        if one.needed(ENOUGH * full) in x:
            k = x.index(int(one.needed(ENOUGH * full)))
            ring = values.mean(axis=1)[k]
            at.plot([x[k]], [ring], "o", markersize=12, fillstyle="none", color=color, markeredgewidth=1.6)
    at.axhline(100 * full, color=theme.ink, linewidth=1.2)
    at.axhline(100 * ENOUGH * full, color=theme.soft, linewidth=1, linestyle=(0, (2, 3)))
    left = min(min(one.trained.values()) for one in curves)
    at.annotate(
        f"all {size:,} parameters", (left, 100 * full), (0, 4), textcoords="offset points", fontsize=8.5
    )
    at.annotate("90 % of that", (left, 90 * full), (0, -10), textcoords="offset points", fontsize=8.5)
    at.set_xscale("log")
    at.set_ylim(0, 106)
    at.set_title(f"Few trained numbers: {MODEL} on the digits")
    at.set_xlabel("numbers that are trained")
    at.set_ylabel("test accuracy (%)")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
