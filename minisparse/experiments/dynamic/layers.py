"""Where sparsity goes: that of each layer under uniform, Erdos-Renyi and Erdos-Renyi-kernel densities.

U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen. Rigging the Lottery. ICML 2020. arXiv:1911.11134 (ERK)

ER and ERK leave more of small layers, and all of the smallest; of large ones they leave less than uniform
densities do. The weights are as many, but those of small layers are used at more positions of an image: the
last column is the work of one sample over that of the dense network.
"""

from __future__ import annotations

from collections.abc import Sequence
from csv import DictWriter
from io import StringIO
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import layer_shapes
from minisparse.nn.layer import Shape
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.sparsity.allocation import ERK, Allocation, ErdosRenyi, FirstDense, Uniform

SEEDS = 1  # nothing is drawn
SPARSITY = 0.9
RULES: dict[str, Allocation] = {
    "uniform": Uniform(),
    "uniform, first dense": FirstDense(),
    "er": ErdosRenyi(),
    "erk": ERK(),
}
NETWORKS: dict[str, Shape] = {"lenet-300-100": (1, 28, 28), "lenet-5": (1, 28, 28), "resnet-20": (3, 32, 32)}


def table(network: Network, sparsity: float) -> list[dict[str, Any]]:
    """A row for each layer and rule: its sparsity, how much is kept; the rule's work over dense work."""
    shapes, positions = layer_shapes(network), network.positions()
    dense = sum(shape.size * positions[name] for name, shape in shapes.items())
    rows = []
    for label, rule in RULES.items():
        counts = rule.counts(shapes, sparsity)
        if counts is None:
            continue
        work = sum(count * positions[name] for name, count in counts.items()) / dense
        rows += [
            {
                "network": network.name, "allocation": label, "layer": name, "weights": shapes[name].size,
                "kept": count, "sparsity": 1 - count / shapes[name].size, "work": work,
            }
            for name, count in counts.items()
        ]  # fmt: skip
    return rows


def study(seeds: Sequence[int], progress: Progress = silent, sparsity: float = SPARSITY) -> Study:
    """Three networks at one sparsity: a row for each network and rule; all layers in a file of their own."""
    found = []
    for done, (name, shape) in enumerate(NETWORKS.items()):
        progress(done / len(NETWORKS), name)
        found += table(make(name, shape, 10), sparsity)
    rows = [
        {
            "network": name,
            "allocation": rule,
            "sparsity": 1 - sum(r["kept"] for r in own) / sum(r["weights"] for r in own),
            "least": min(r["sparsity"] for r in own),
            "most": max(r["sparsity"] for r in own),
            "dense_layers": sum(r["kept"] == r["weights"] for r in own),
            "work": own[0]["work"],
        }
        for name in NETWORKS
        for rule in RULES
        for own in [[r for r in found if (r["network"], r["allocation"]) == (name, rule)]]
    ]
    last = list(NETWORKS)[-1]
    words = [
        f"{last} at {100 * sparsity:g} % under {row['allocation']}: {100 * row['work']:.1f} % of dense work."
        for row in rows
        if row["network"] == last
    ]
    return Study(rows, words, layers_figure(found, sparsity), {"csv": as_csv(found)})


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    """All rows with a line of their names."""
    file = StringIO(newline="")
    writer = DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


@themed
def layers_figure(rows: Sequence[dict[str, Any]], sparsity: float, *, theme: Theme = LIGHT) -> Figure:
    """A panel for each network: sparsity of the layers in the order data flows."""
    names = list(dict.fromkeys(row["network"] for row in rows))
    counts = [len({row["layer"] for row in rows if row["network"] == name}) for name in names]
    widths = [max(4, count) for count in counts]
    figure, axes = theme.figure(11.4, 4.4, 1, len(names), sharey=True, width_ratios=widths)
    for at, name in zip(axes[0], names, strict=True):
        for place, label in enumerate(RULES):
            own = [row for row in rows if (row["network"], row["allocation"]) == (name, label)]
            at.plot(
                np.arange(len(own)), [100 * row["sparsity"] for row in own], linestyle="-",
                marker=MARKERS[place], markersize=5, linewidth=1.2, color=theme.hues[place],
                label=label, markeredgecolor=theme.paper, markeredgewidth=0.5,
            )  # fmt: skip
        layers = [row["layer"] for row in rows if (row["network"], row["allocation"]) == (name, "erk")]
        at.set_xticks(np.arange(len(layers)), layers, rotation=90, fontsize=7.5)
        at.set_title(name)
    axes[0][0].set_ylabel("sparsity of the layer (%)")
    axes[0][0].set_ylim(-4, 103)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    figure.suptitle(
        f"{100 * sparsity:g} % over all layers", x=0.01, ha="left", fontsize=11, fontweight="bold"
    )
    return figure
