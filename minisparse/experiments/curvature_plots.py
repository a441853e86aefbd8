"""Pictures of second order: forecasts of single deletions, the Hessian's spectrum, what criteria keep.

Each function that draws returns a matplotlib Figure in a Theme. Eigenvalues come from Lanczos and, for
networks small enough, from the full matrix as a check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.random import Generator
from scipy.stats import rankdata

from minisparse.curvature import tree as trees
from minisparse.curvature.full import hessian
from minisparse.curvature.spectrum import hessian_eigenpairs, spectral_density
from minisparse.experiments.deletions import Deletions
from minisparse.experiments.theme import LIGHT, Theme, bare, themed
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array

TITLES = {
    "obd": "OBD",
    "obs": "OBS",
    "taylor": "Taylor, 1st order",
    "second order": "Taylor, 2nd order",
    "magnitude": "magnitude",
}
FORMULAS = {
    "obd": r"$h\,w^2/2$",
    "obs": r"$w^2/(2P_{qq})$",
    "taylor": r"$-w\,g$",
    "second order": r"$-w\,g+h\,w^2/2$",
    "magnitude": r"rank of $|w|$",
}


@themed
def prediction(found: Mapping[str, Deletions], *, theme: Theme = LIGHT) -> Figure:
    """Forecast against outcome for every weight: a row per network, a column per criterion.

    Axes are linear near 0 and logarithmic beyond, alike in a whole row; on the line a forecast is right.
    Titles give Spearman's correlation.
    """
    figure, axes = theme.figure(13, 0.6 + 2.8 * len(found), len(found), len(TITLES), sharey="row")
    for row, (label, deleted) in zip(axes, found.items(), strict=True):
        scale = Scale.of(deleted)
        for at, (criterion, title) in zip(row, TITLES.items(), strict=True):
            _panel(at, deleted, criterion, scale, theme)
            at.set_title(f"{title}: {deleted.correlation(criterion):.2f}")
        row[0].set_ylabel(f"{label}: true change of the loss")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), markerscale=4)
    return figure


@dataclass(frozen=True)
class Scale:
    """Limits of an axis that is linear from -small to small and logarithmic beyond, and its ticks."""

    small: float
    low: float
    high: float

    @classmethod
    def of(cls, deleted: Deletions) -> Scale:
        """Linear below a 10,000th of the largest change; wide enough for all changes and forecasts."""
        losses = [deleted.forecasts[name] for name in TITLES if name != "magnitude"]
        every = np.concatenate([deleted.alone, deleted.adjusted, *losses])
        small = 10 ** (np.floor(np.log10(np.abs(every).max(initial=0.0) or 1.0)) - 4)
        return cls(small, min(2 * every.min(), -small), max(3 * every.max(), small))

    @property
    def ticks(self) -> Array:
        """0 and every second decade, as far as the limits go."""
        decades = self.small * 10.0 ** np.arange(0, 9, 2)
        both = np.concatenate([-decades, [0.0], decades])
        return np.sort(both[(both >= self.low) & (both <= self.high)])


def _panel(axes: Axes, deleted: Deletions, criterion: str, scale: Scale, theme: Theme) -> None:
    forecast, came = deleted.forecasts[criterion], deleted.came(criterion)
    ranks = criterion == "magnitude"
    across = rankdata(forecast) if ranks else forecast
    for k, name in enumerate(deleted.names):
        own = deleted.layer == k
        axes.plot(
            across[own], came[own], ".", color=theme.hues[k % len(theme.hues)], markersize=3.4, alpha=0.6,
            markeredgewidth=0, label=f"weights of {name}", rasterized=True,
        )  # fmt: skip
    axes.set_yscale("symlog", linthresh=scale.small, linscale=1.6)
    axes.set_ylim(scale.low, scale.high)
    axes.yaxis.set_major_locator(FixedLocator(list(scale.ticks)))
    axes.set_xlabel(FORMULAS[criterion])
    if ranks:
        return
    axes.set_xscale("symlog", linthresh=scale.small, linscale=1.6)
    axes.set_xlim(scale.low, scale.high)
    axes.xaxis.set_major_locator(FixedLocator(list(scale.ticks)))
    axes.tick_params("x", labelsize=8)
    ends = [scale.low, scale.high]
    axes.plot(ends, ends, color=theme.ink, linewidth=0.9, zorder=3, label="forecast = truth")


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a Hessian of n parameters.

    top (k,): the largest in size; density (g,): how many there are per unit, at the points of grid (g,),
    smeared by a Gaussian of width sigma; direct (n,): all of them, or None.
    """

    top: Array
    grid: Array
    density: Array
    sigma: float
    direct: Array | None


def spectrum(
    network: Network,
    loss: Loss,
    x: Array,
    target: Array,
    rng: Generator,
    k: int = 20,
    probes: int = 6,
    direct: bool = True,
) -> Spectrum:
    """Largest k eigenvalues and density by Lanczos; direct: all eigenvalues of the full matrix as well."""
    work, x = network.astype(np.float64), x.astype(np.float64)
    size = trees.flatten(trees.values(work)).size
    top, _ = hessian_eigenpairs(work, loss, x, target, min(k, size), rng)
    low, high = min(0.0, float(top.min())), max(0.0, float(top.max()))
    sigma = (high - low or 1.0) / 100
    grid = np.linspace(low - 5 * sigma, high + 5 * sigma, 600)
    density = size * spectral_density(work, loss, x, target, grid, sigma, rng, probes, steps=60)
    every = np.linalg.eigvalsh(hessian(work, loss, x, target)) if direct else None
    return Spectrum(top, grid, density, sigma, every)


@themed
def hessian_spectrum(found: Mapping[str, Spectrum], *, theme: Theme = LIGHT) -> Figure:
    """Left the eigenvalues of largest size by Lanczos, then the density of all, a panel per label."""
    figure, axes = theme.figure(13, 4.0, 1, 1 + len(found))
    first, *others = axes[0]
    for k, (at, (label, one)) in enumerate(zip(others, found.items(), strict=True)):
        color = theme.hues[k % len(theme.hues)]
        place = np.arange(1, len(one.top) + 1)
        first.plot(place, one.top, "os^D"[k % 4], color=color, markersize=5.5, label=label)
        if one.direct is not None:
            largest = one.direct[np.argsort(-np.abs(one.direct), kind="stable")][: len(place)]
            name = "full matrix" if k + 1 == len(found) else None
            first.plot(place, largest, "+", color=theme.ink, markersize=8, markeredgewidth=0.9, label=name)
        _density(at, one, color, theme)
        at.set_title(f"All eigenvalues, {label}")
    first.xaxis.set_major_locator(MaxNLocator(integer=True))
    first.set_title("Largest eigenvalues")
    first.set_xlabel("place by size")
    first.set_ylabel("eigenvalue of the Hessian")
    first.legend()
    return figure


def _density(axes: Axes, one: Spectrum, color: str, theme: Theme) -> None:
    """Curve by stochastic Lanczos over a histogram of all eigenvalues, if there are all."""
    if one.direct is not None:
        edges = np.linspace(one.grid[0], one.grid[-1], 80)
        counts, _ = np.histogram(one.direct, edges)
        axes.stairs(
            counts / np.diff(edges), edges, color=theme.soft, fill=True, alpha=0.35, label="full matrix"
        )
    axes.plot(one.grid, one.density, color=color, label="stochastic Lanczos")
    alone = 1 / (one.sigma * np.sqrt(2 * np.pi))  # the height of one eigenvalue
    axes.set_yscale("log")
    axes.set_ylim(alone / 20, 3 * max(float(one.density.max()), alone))
    axes.set_xlabel("eigenvalue of the Hessian")
    axes.set_ylabel("eigenvalues per unit")
    axes.legend()


@themed
def removed_by_criterion(networks: Mapping[str, Network], inputs: Array, *, theme: Theme = LIGHT) -> Figure:
    """Kept connections of each input pixel per criterion, beside the pixels' spread, and what they share.

    networks: criterion -> pruned network whose first layer reads all pixels; inputs (n, 1, h, w).
    """
    shape = inputs.shape[-2:]
    masks = {label: next(iter(net.prunable().values())).weight.mask for label, net in networks.items()}
    counts = {label: mask.sum(axis=0).reshape(shape) for label, mask in masks.items()}
    spread = inputs.std(axis=0).reshape(shape)
    columns = -(-(len(networks) + 1) // 2)
    figure = Figure(figsize=(13, 4.9), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(1.7, 1))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axes = left.subplots(2, columns, squeeze=False)
    for at in axes.flat:
        at.set_axis_off()
    _picture(axes.flat[0], spread, float(spread.max()), "inputs: spread", theme)
    dead = spread == 0
    axes.flat[0].set_xlabel(f"{dead.sum()} pixels constant", fontsize=8)
    top = max(int(c.max()) for c in counts.values())
    for at, (label, count) in zip(axes.flat[1:], counts.items(), strict=False):
        image = _picture(at, count, top, label, theme)
        at.set_xlabel(f"{count[dead].sum()} kept at constant pixels", fontsize=8)
    bar = left.colorbar(image, ax=axes, location="bottom", shrink=0.5, aspect=40)
    bar.set_label("kept connections of the pixel")
    bar.outline.set_visible(False)
    _overlap(right.subplots(), masks, theme)
    return figure


def _picture(axes: Axes, values: Array, top: float, title: str, theme: Theme) -> AxesImage:
    axes.set_axis_on()
    bare(axes)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return axes.imshow(values, cmap=theme.ramp, vmin=0, vmax=top)


def shared(a: Array, b: Array) -> float:
    """Share of a's kept entries that b keeps too; Boolean arrays of one shape."""
    return float((a & b).sum() / a.sum()) if a.any() else float("nan")


def _overlap(axes: Axes, masks: Mapping[str, Array], theme: Theme) -> None:
    table = np.array([[shared(a, b) for b in masks.values()] for a in masks.values()])
    bare(axes)
    axes.spines[:].set_visible(False)
    axes.imshow(table, cmap=theme.ramp, vmin=0, vmax=1)
    axes.set_xticks(range(len(masks)), list(masks), rotation=40, ha="right")
    axes.set_yticks(range(len(masks)), list(masks))
    axes.set_title("Share of kept weights in common")
    for (row, column), value in np.ndenumerate(table):
        color = theme.paper if value > 0.55 else theme.ink
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=9, color=color)
