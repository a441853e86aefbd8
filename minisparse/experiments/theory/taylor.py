"""Taylor's forecast along a pruning path: how far can the loss be foreseen from where the network stands?

Y. Le Cun, J. S. Denker, S. A. Solla. Optimal Brain Damage. NIPS 1989; B. Hassibi, D. G. Stork. Second order
derivatives for network pruning: Optimal Brain Surgeon. NIPS 1992

Pruning to sparsity s moves the weights by v(s), -w where a weight leaves and 0 elsewhere. The change of the
loss L is forecast at the trained network, where g and H are gradient and Hessian and h is H's diagonal:

    first      g^T v                                                                       (1)
    diagonal   g^T v + h^T v^2 / 2                                                         (2)
    full       g^T v + v^T H v / 2                                                         (3)
    stepwise   (3) from each level of the path to the next, g and H taken anew, added up   (4)

The path ranks all weights once, by magnitude or by OBD's saliency, and removes the lowest first. Nothing
is retrained. All is float64; L is the mean loss on the training data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minisparse.curvature import tree as trees
from minisparse.curvature.gradient import gradient
from minisparse.curvature.hessian_diagonal import exact_diagonal
from minisparse.curvature.hvp import hvp
from minisparse.curvature.tree import Tree
from minisparse.data.digits import load
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import layer_shapes
from minisparse.methods.dense import Dense
from minisparse.methods.saliency.magnitude import magnitude
from minisparse.methods.saliency.obd import obd_saliency
from minisparse.nn.loss import LOSSES, Loss
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.allocation import Global
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.select import select
from minisparse.training.run import train

SEEDS = 3
MODEL = "mlp:64-32-10"
EPOCHS = 30
LEVELS = tuple(round(0.05 * k, 2) for k in range(1, 20))
NOTICEABLE = 1e-3  # change of the loss
TITLES = {
    "first": "first order",
    "diagonal": "diagonal of H",
    "full": "all of H",
    "stepwise": "all of H, level by level",
}
FORECASTS = tuple(TITLES)
RANKINGS = {"magnitude": "magnitude", "obd": "OBD"}
Score = Callable[[Tree, Tree], Tree]
PATHS: dict[str, Score] = {
    "magnitude": lambda w, h: {name: magnitude(a) for name, a in w.items()},
    "obd": lambda w, h: {name: obd_saliency(a, h[name]) for name, a in w.items()},
}


@dataclass(frozen=True)
class Point:
    """A network on the data: everything the forecasts are made of."""

    network: Network
    loss: Loss
    x: Array
    target: Array

    @property
    def value(self) -> float:
        """L in evaluation mode."""
        return float(self.loss.value(self.network.forward(self.x), self.target))

    def gradient(self) -> Tree:
        return gradient(self.network, self.loss, self.x, self.target)

    def product(self, v: Tree) -> Tree:
        """H v."""
        return hvp(self.network, self.loss, self.x, self.target, v)

    def quadratic(self, v: Tree) -> float:
        """Equation (3)."""
        return trees.inner(v, self.gradient()) + trees.inner(v, self.product(v)) / 2


def along(point: Point, path: Sequence[Tree]) -> dict[str, Array]:
    """True change of L and forecasts (1) to (4) at each point of a path of parameter values.

    The network is left at the end of the path.
    """
    base, start, g = point.value, trees.values(point.network), point.gradient()
    h = exact_diagonal(point.network, point.loss, point.x, point.target)
    steps = [{name: values[name] - w for name, w in start.items()} for values in path]
    found: dict[str, list[float]] = {name: [] for name in ("true", *FORECASTS)}
    for v in steps:
        first = trees.inner(v, g)
        found["first"].append(first)
        found["diagonal"].append(first + sum(float((h[n] * a**2).sum()) for n, a in v.items()) / 2)
        found["full"].append(first + trees.inner(v, point.product(v)) / 2)
    total = 0.0
    for values in path:
        here = trees.values(point.network)
        total += point.quadratic({name: values[name] - w for name, w in here.items()})
        found["stepwise"].append(total)
        for name, p in point.network.params().items():
            p.value[...] = values[name]
        found["true"].append(point.value - base)
    return {name: np.array(values) for name, values in found.items()}


def pruned_values(network: Network, scores: Tree, levels: Sequence[float]) -> list[Tree]:
    """Parameter values with the lowest scores of all layers removed, for each sparsity."""
    start, shapes, found = trees.values(network), layer_shapes(network), []
    for s in levels:
        masks = select(scores, shapes, s, Global(), Unstructured())
        found.append(start | {f"{n}.weight": start[f"{n}.weight"] * mask for n, mask in masks.items()})
    return found


def paths(seed: int, levels: Sequence[float] = LEVELS, epochs: int = EPOCHS) -> dict[str, dict[str, Array]]:
    """`along` for each ranking of one trained network."""
    data = load()
    network = train(build(MODEL, data, seed), data, Dense(), epochs=epochs, seed=seed).network
    data, found = data.astype(np.float64), {}
    for name, score in PATHS.items():
        work, loss = network.astype(np.float64), LOSSES["cross-entropy"]()
        point = Point(work, loss, data.train_x, data.train_y)
        h = exact_diagonal(work, loss, data.train_x, data.train_y)
        weights = {n: layer.weight.dense() for n, layer in work.prunable().items()}
        scores = score(weights, {n: h[f"{n}.weight"] for n in weights})
        found[name] = along(point, pruned_values(work, scores, levels))
    return found


def study(
    seeds: Sequence[int], progress: Progress = silent, levels: Sequence[float] = LEVELS, epochs: int = EPOCHS
) -> Study:
    """Both rankings, the mean over one trained network per seed."""
    runs = []
    for done, seed in enumerate(seeds):
        progress(done / len(seeds), f"seed {seed}")
        runs.append(paths(seed, levels, epochs))
    found = {
        ranking: {name: np.mean([run[ranking][name] for run in runs], axis=0) for name in runs[0][ranking]}
        for ranking in PATHS
    }
    rows = [
        {"ranking": ranking, "sparsity": s, **{name: float(values[k]) for name, values in own.items()}}
        for ranking, own in found.items()
        for k, s in enumerate(levels)
    ]
    return Study(rows, list(_words(found, levels)), forecast_figure(found, levels))


def _words(found: dict[str, dict[str, Array]], levels: Sequence[float]) -> list[str]:
    words = []
    for ranking, own in found.items():
        reach = {TITLES[name]: trusted(own["true"], own[name], levels) for name in FORECASTS}
        told = ", ".join(f"{title} {100 * s:.0f} %" for title, s in reach.items())
        words.append(f"Pruned by {RANKINGS[ranking]}, within a factor of 2 of the truth up to: {told}.")
    return words


def trusted(true: Array, forecast: Array, levels: Sequence[float]) -> float:
    """The level up to which a forecast is within a factor of 2 of the truth, 0 if none.

    Changes below NOTICEABLE are not held against it.
    """
    good = (forecast >= true / 2) & (forecast <= 2 * true)
    good |= np.maximum(np.abs(true), np.abs(forecast)) < NOTICEABLE
    count = int(np.argmin(np.append(good, False)))
    return levels[count - 1] if count else 0.0


@themed
def forecast_figure(
    found: dict[str, dict[str, Array]], levels: Sequence[float], *, theme: Theme = LIGHT
) -> Figure:
    """Change of the loss and its forecasts against sparsity, a panel per ranking."""
    figure, axes = theme.figure(11, 4.8, 1, len(found), sharey=True)
    for at, (ranking, own) in zip(axes[0], found.items(), strict=True):
        _panel(at, own, levels, theme)
        at.set_title(f"Pruned by {RANKINGS[ranking]}")
    axes[0][0].set_ylabel("change of the loss")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


def _panel(axes: Axes, own: dict[str, Array], levels: Sequence[float], theme: Theme) -> None:
    x = 100 * np.array(levels)
    axes.plot(x, own["true"], color=theme.ink, linewidth=2.4, label="true change", zorder=3)
    for place, (name, title) in enumerate(TITLES.items()):
        axes.plot(
            x, own[name], marker=MARKERS[place], color=theme.hues[place], label=title, markersize=4.5,
            linewidth=1.3,
        )  # fmt: skip
    axes.set_yscale("symlog", linthresh=NOTICEABLE)
    axes.set_xlabel("sparsity (%)")
