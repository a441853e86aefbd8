"""Trajectory length: a curve through a random sparse ReLU network grows or fades exponentially in depth.

I. Price, J. Tanner. Trajectory growth lower bounds for random sparse deep ReLU networks. ICMLA 2021.
arXiv:1911.10651

Every weight of a layer of k inputs is 0 with probability 1 - a, else drawn from N(0, sigma^2 / k). On average
over such networks a curve of length l before the first layer has after d layers a length of at least

    (a sigma / sqrt(2 pi))^d l                                                             (1)

and as k grows each layer multiplies it by

    sigma sqrt(a / 2)                                                                      (2)

Why (2): a short piece u of the curve becomes W u at the units that are on, half of them, where (W u)_i has
variance a sigma^2 |u|^2 / k. Lengths stay the same if and only if sigma^2 = 2 / a: He's initialisation with
the fan-in that the mask leaves. (1) follows from |v| >= |v|_1 / sqrt(k) and E|m u| >= |E m u| = a |u|.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.random import Generator

from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.nn.activation import Activation
from minisparse.nn.layer import Layer
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight
from minisparse.rng import generator

SEEDS = 10
DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05)
WIDTH, DEPTH, POINTS = 300, 8, 200
Scale = Callable[[float], float]  # density -> sigma
SCALES: dict[str, Scale] = {
    "\u03c3\u00b2 = 2": lambda a: sqrt(2),
    "\u03c3\u00b2 = 2 / density": lambda a: sqrt(2 / a),
}


def lower_bound(density: float, sigma: float) -> float:
    """Factor per layer of (1)."""
    return density * sigma / sqrt(2 * pi)


def wide_limit(density: float, sigma: float) -> float:
    """Factor per layer of (2)."""
    return sigma * sqrt(density / 2)


def circle(points: int, dimension: int, rng: Generator) -> Array:
    """A closed unit circle (points + 1, dimension) in a random plane."""
    plane = np.linalg.qr(rng.standard_normal((dimension, 2)))[0]
    angle = np.linspace(0, 2 * pi, points + 1)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) @ plane.T


def length(curve: Array) -> float:
    """Length of the polygon through curve (points, ...)."""
    return float(np.linalg.norm(np.diff(curve.reshape(len(curve), -1), axis=0), axis=1).sum())


def lengths(network: Network, curve: Array) -> dict[str, float]:
    """Length of the image of curve (points, *sample) after each layer of the network, by the layer's name."""
    found, y = {}, curve
    for name, layer in network.layers.items():
        y = layer.forward(y)
        found[name] = length(y)
    return found


def sparse_gaussian(width: int, depth: int, density: float, sigma: float, rng: Generator) -> Network:
    """Layers fc1, act1, fc2, ... of this width without biases, as the theorem has them; float64."""
    layers: dict[str, Layer] = {}
    for k in range(1, depth + 1):
        mask = rng.random((width, width)) < density
        value = sigma / sqrt(width) * rng.standard_normal((width, width))
        layers |= {f"fc{k}": Linear(MaskedWeight(value, mask=mask)), f"act{k}": Activation("relu")}
    return Network(layers, (width,))


def growth(
    density: float, sigma: float, seeds: Sequence[int], width: int = WIDTH, depth: int = DEPTH
) -> Array:
    """(depth + 1,) mean length of a unit circle before the first layer and after each ReLU, over seeds."""
    found = []
    for seed in seeds:
        rng = generator(seed, "trajectory")
        curve = circle(POINTS, width, rng)
        after = lengths(sparse_gaussian(width, depth, density, sigma, rng), curve)
        found.append([length(curve), *(after[f"act{k}"] for k in range(1, depth + 1))])
    return np.mean(found, axis=0)


def study(seeds: Sequence[int], progress: Progress = silent, width: int = WIDTH, depth: int = DEPTH) -> Study:
    """Both scales at all densities; one random network per seed."""
    plan = [(scale, a, sigma(a)) for scale, sigma in SCALES.items() for a in DENSITIES]
    found: dict[tuple[str, float], Array] = {}
    for done, (scale, a, sigma) in enumerate(plan):
        progress(done / len(plan), f"{scale}, density {a:g}")
        found[scale, a] = growth(a, sigma, seeds, width, depth)
    rows: list[dict[str, Any]] = [
        {
            "scale": scale,
            "density": a,
            "factor": float((found[scale, a][-1] / found[scale, a][0]) ** (1 / depth)),
            "wide_limit": wide_limit(a, sigma),
            "lower_bound": lower_bound(a, sigma),
            "length_in": float(found[scale, a][0]),
            "length_out": float(found[scale, a][-1]),
        }
        for scale, a, sigma in plan
    ]
    worst = max(abs(row["factor"] / row["wide_limit"] - 1) for row in rows)
    plain, fitted = (row["length_out"] / row["length_in"] for row in rows if row["density"] == DENSITIES[-1])
    words = [
        f"Each layer multiplies lengths by sigma sqrt(density / 2), to {100 * worst:.1f} % at width {width}; "
        "the proven bound lies below everywhere.",
        f"At a density of {DENSITIES[-1]:g}, after {depth} layers: weights drawn for a dense layer leave "
        f"{plain:.0e} of the length, weights drawn for the fan-in that is left {100 * fitted:.0f} %.",
    ]
    return Study(rows, words, trajectory_figure(found))


@themed
def trajectory_figure(found: dict[tuple[str, float], Array], *, theme: Theme = LIGHT) -> Figure:
    """Length against depth, a panel per scale, with (1) and (2); right, a layer's factor against density."""
    figure, axes = theme.figure(13, 4.6, 1, len(SCALES) + 1)
    *panels, last = axes[0]
    for place, (at, (scale, sigma)) in enumerate(zip(panels, SCALES.items(), strict=True)):
        own = {a: values for (s, a), values in found.items() if s == scale}
        for k, (a, values) in enumerate(own.items()):
            _panel(at, values, a, sigma(a), k, theme)
        at.set_title(f"Length of a circle, {scale}")
        at.set_xlabel("layers passed")
        _factors(last, scale, own, sigma, theme.hues[5 + place], MARKERS[place], theme)
    for at in panels:
        at.set_ylim(1e-8, 5)
    panels[0].set_ylabel("length / length at the input")
    last.set_title("What one layer does")
    last.set_xlabel("density of the weights")
    last.set_ylabel("factor per layer")
    last.legend()
    handles, labels = panels[0].get_legend_handles_labels()
    lines = {
        "wide layers: \u03c3 \u221a(density / 2)": "--",
        "lower bound: \u03c3 density / \u221a(2\u03c0)": ":",
    }
    handles += [Line2D([], [], color=theme.ink, linestyle=style, linewidth=1.2) for style in lines.values()]
    figure.legend(handles, [*labels, *lines], loc="outside lower center", ncols=7)
    return figure


def _panel(axes: Axes, values: Array, a: float, sigma: float, place: int, theme: Theme) -> None:
    depth, color = np.arange(len(values)), theme.hues[place]
    axes.plot(depth, wide_limit(a, sigma) ** depth, "--", color=color, linewidth=1.1)
    axes.plot(depth, lower_bound(a, sigma) ** depth, ":", color=color, linewidth=1.3)
    # smaller from density to density: where they meet, each leaves a rim of the one before
    axes.plot(
        depth, values / values[0], MARKERS[place], color=color, markersize=9 - 1.4 * place,
        label=f"density {a:g}", markeredgecolor=theme.paper, markeredgewidth=0.5,
    )  # fmt: skip
    axes.set_yscale("log")


def _factors(
    axes: Axes, scale: str, own: dict[float, Array], sigma: Scale, color: str, marker: str, theme: Theme
) -> None:
    measured = [(values[-1] / values[0]) ** (1 / (len(values) - 1)) for values in own.values()]
    axes.plot(list(own), measured, marker, color=color, label=scale, markeredgecolor=theme.paper)
    dense = np.geomspace(min(own), max(own), 60)
    axes.plot(dense, [wide_limit(a, sigma(a)) for a in dense], "--", color=color, linewidth=1.1)
    axes.plot(dense, [lower_bound(a, sigma(a)) for a in dense], ":", color=color, linewidth=1.3)
    axes.set_xscale("log")
    axes.set_yscale("log")
