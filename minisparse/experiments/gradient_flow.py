"""Gradient flow of sparse networks: what dense initial weights under a mask cost, and what gives it back.

U. Evci, Y. A. Ioannou, C. Keskin, Y. Dauphin. Gradient Flow in Sparse Neural Networks and How Lottery Tickets
Win. AAAI 2022. arXiv:2010.03533

Compared at the same random masks (ERK): weights drawn for a dense layer, and weights drawn for each unit's
own fan-in (`sparse-init`); with them the dense network and RigL, whose exchanges raise the gradient. Measured
while training: |dL/dw|^2 on the probe sample, over present weights and all other parameters (`flow_traces`).

The second comparison needs no training: in a deep ReLU network, how the signal goes from layer to layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minisparse.curvature.flow import signal
from minisparse.experiments.flow_traces import Trace
from minisparse.experiments.plan import REFERENCE
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.summary import level, mean, spread
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.methods.base import layer_shapes
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.rng import generator
from minisparse.sparsity.allocation import Uniform
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.select import select
from minisparse.sparsity.sparse_init import initialise_for_masks

# what is compared -> (method, settings); exchanges as often as the default comparison makes them
KINDS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "dense weights": ("random", {}),
    "sparse-init": ("random", {"control": "sparse-init"}),
    "rigl, dense weights": ("rigl", {"every": 20}),
}
DENSE = "dense network"
SPARSITIES = (0.9, 0.98, 0.99)
WIDTH, HIDDEN = 300, 10
DEEP = "-".join([f"mlp:{WIDTH}", *[str(WIDTH)] * HIDDEN, "10"])


def plan(
    sparsities: Sequence[float] = SPARSITIES,
    seeds: Sequence[int] = (0, 1, 2),
    training: Mapping[str, Any] | None = None,
) -> list[tuple[str, RunSpec]]:
    """(kind, run) of the dense network and of each kind at each sparsity, seed by seed."""
    common, found = dict(training or {}), []
    for seed in seeds:
        found.append((DENSE, RunSpec(REFERENCE, seed=seed, **common)))
        for sparsity in sparsities:
            for kind, (method, settings) in KINDS.items():
                chosen = {**settings, "sparsity": sparsity}
                found.append((kind, RunSpec(method, tuple(chosen.items()), seed=seed, **common)))
    return found


@dataclass(frozen=True)
class Row:
    """Means over seeds: |g|^2 before training and over it, and the test accuracy with its spread."""

    kind: str
    sparsity: float
    start: float
    average: float
    accuracy: float
    spread: float


def rows(found: Sequence[Trace]) -> list[Row]:
    """One Row per kind and sparsity."""
    groups: dict[tuple[str, float], list[Trace]] = {}
    for one in found:
        groups.setdefault((one.kind, one.spec.sparsity), []).append(one)
    return [
        Row(
            *key,
            mean(t.flows[0] for t in own),
            mean(float(np.mean(t.flows)) for t in own),
            mean(t.accuracy for t in own),
            spread(t.accuracy for t in own),
        )
        for key, own in groups.items()
    ]


def signals(sparsity: float, seeds: Sequence[int] = tuple(range(5))) -> dict[str, list[float]]:
    """Mean square of each layer's outputs before the activation, over seeds and standard normal inputs.

    Of a deep network: dense, with dense weights under uniform random masks, and with weights for them.
    """
    found: dict[str, list[dict[str, float]]] = {DENSE: [], "dense weights": [], "sparse-init": []}
    for seed in seeds:
        network = make(DEEP, (WIDTH,), 10, seed)
        x = generator(seed, "inputs").standard_normal((200, WIDTH)).astype(np.float32)
        found[DENSE].append(signal(network, x))
        _mask(network, sparsity, seed)
        found["dense weights"].append(signal(network, x))
        initialise_for_masks(network, generator(seed, "control: weights"))
        found["sparse-init"].append(signal(network, x))
    return {kind: [mean(o[name] for o in own) for name in own[0]] for kind, own in found.items()}


def _mask(network: Network, sparsity: float, seed: int) -> None:
    """Random masks in all prunable layers, each of this sparsity."""
    rng, shapes = generator(seed, "topology"), layer_shapes(network)
    scores = {name: rng.random(shape.matrix) for name, shape in shapes.items()}
    masks = select(scores, shapes, sparsity, Uniform(), Unstructured())
    for name, layer in network.prunable().items():
        layer.weight.rewire(masks[name])


@themed
def flow_figure(
    found: Sequence[Trace], depths: Mapping[float, Mapping[str, Sequence[float]]], *, theme: Theme = LIGHT
) -> Figure:
    """Above |g|^2 while training, a panel per sparsity; below the signal in each layer of a deep network."""
    levels = sorted({t.spec.sparsity for t in found if t.spec.sparsity})
    kinds = [DENSE, *KINDS]
    colors = dict(zip(kinds, (theme.plain, *theme.hues), strict=False))
    figure, axes = theme.figure(10.2, 6.6, 2, max(1, len(levels)), sharey="row")
    for column, sparsity in enumerate(levels):
        upper, lower = axes[0][column], axes[1][column]
        for kind in kinds:
            own = [t for t in found if t.kind == kind and t.spec.sparsity in (0.0, sparsity)]
            _flow(upper, own, kind, colors[kind])
        upper.set_title(f"{level(sparsity)} sparsity: while training")
        upper.set_xlabel("step: updates of the weights")
        _depth(lower, depths.get(sparsity, {}), sparsity, colors)
        lower.set_title(f"Before it: {HIDDEN} hidden layers of {WIDTH}")
        lower.set_xlabel("layer")
    axes[0][0].set_ylabel("|dL/dw|\u00b2 of present weights")
    axes[1][0].set_ylabel("mean square before activation")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def _flow(axes: Axes, own: Sequence[Trace], kind: str, color: str) -> None:
    """Geometric mean over seeds, the range as a band."""
    if not own:
        return
    shortest = min(len(t.steps) for t in own)
    values = np.array([t.flows[:shortest] for t in own])
    values = np.maximum(values, np.finfo(np.float64).tiny)
    steps = own[0].steps[:shortest]
    axes.plot(steps, np.exp(np.log(values).mean(axis=0)), color=color, linewidth=1.5, label=kind)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)
    axes.set_yscale("log")


def _depth(
    axes: Axes, own: Mapping[str, Sequence[float]], sparsity: float, colors: Mapping[str, str]
) -> None:
    """Signals by layer; dashed 2 density^layer, what dense weights should leave of inputs of size 1."""
    for place, (kind, values) in enumerate(own.items()):
        layers = np.arange(1, len(values) + 1)
        axes.plot(
            layers, values, MARKERS[place], linestyle="-", color=colors[kind], linewidth=1.3, markersize=4.5
        )
        expected = 2 * (1 - sparsity) ** layers.astype(np.float64)
        if kind == "dense weights":
            axes.plot(layers, expected, color=colors[kind], linestyle=(0, (4, 3)), linewidth=1)
    axes.set_yscale("log")
