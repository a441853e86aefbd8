"""Units without work: those that SRigL ablates, and those that RigL leaves without inputs or readers.

M. Lasby, A. Golubeva, U. Evci, M. Nica, Y. Ioannou. Dynamic Sparse Training with Structured Sparsity.
ICLR 2024. arXiv:2305.02299 (unstructured training at high sparsity ablates units by itself)

Of each hidden layer of a trained network, the share of units that

    have no input                       in SRigL those that were ablated                  (1)
    have inputs, but no unit reads them, so that they have no influence on the output      (2)

A layer of constant fan-in has no units of (1) but by ablation, so SRigL ablates what RigL empties one weight
after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minisparse.experiments.dynamic.runs import EPOCHS, INTERVAL, METHODS, watched
from minisparse.experiments.summary import mean, spread
from minisparse.experiments.theme import LIGHT, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Method
from minisparse.methods.dynamic.silence import unused
from minisparse.methods.dynamic.srigl import SRigL
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight

SEEDS = 3
SPARSITIES = (0.9, 0.95, 0.98, 0.99)


def _srigl(gamma: float) -> Callable[[float], Method]:
    return lambda sparsity: SRigL(sparsity, every=INTERVAL, gamma=gamma)


COMPARED: dict[str, Callable[[float], Method]] = {
    "static": METHODS["static"],
    "rigl": METHODS["rigl"],
    **{f"srigl, gamma {gamma:g}": _srigl(gamma) for gamma in (0.0, 0.3, 0.9)},
}


def idle_units(network: Network) -> dict[str, tuple[float, float]]:
    """The shares (1) and (2) of each hidden layer, for a chain of linear layers."""
    layers = network.prunable()
    return {
        name: (
            float(unused(first.weight).mean()),
            float((~unused(first.weight) & unread(then.weight)).mean()),
        )
        for (name, first), (_, then) in pairwise(layers.items())
    }


def unread(weight: Weight) -> Array:
    """Inputs (in,) that no present weight reads."""
    return np.bincount(weight.flat % weight.shape[1], minlength=weight.shape[1]) == 0


def study(
    seeds: Sequence[int], progress: Progress = silent, sparsities: Sequence[float] = SPARSITIES,
    epochs: int = EPOCHS,
) -> Study:  # fmt: skip
    """All methods at all sparsities; means over seeds."""
    plan = [(label, s) for s in sparsities for label in COMPARED]
    rows: list[dict[str, Any]] = []
    for done, (label, s) in enumerate(plan):
        progress(done / len(plan), f"{label}, {100 * s:g} % sparsity")
        runs = [watched(COMPARED[label](s), seed, epochs=epochs) for seed in seeds]
        idle = [idle_units(run.network) for run in runs]
        row: dict[str, Any] = {"method": label, "sparsity": s}
        for name in idle[0]:
            row[f"{name}_no_input"] = mean(found[name][0] for found in idle)
            row[f"{name}_unread"] = mean(found[name][1] for found in idle)
        rows.append(
            row | {"accuracy": mean(r.accuracy for r in runs), "spread": spread(r.accuracy for r in runs)}
        )
    return Study(rows, in_words(rows), ablation_figure(rows))


def in_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first hidden layer at the highest sparsity."""
    most = max(row["sparsity"] for row in rows)
    name = next(key for key in rows[0] if key.endswith("_no_input"))
    shares = {row["method"]: row[name] for row in rows if row["sparsity"] == most}
    told = ", ".join(f"{100 * share:.0f} % under {label}" for label, share in shares.items())
    return [f"At {100 * most:g} % sparsity units of {name.removesuffix('_no_input')} without input: {told}."]


@themed
def ablation_figure(rows: Sequence[Mapping[str, Any]], *, theme: Theme = LIGHT) -> Figure:
    """A panel for each hidden layer: bars by sparsity and method, full (1), pale on top (2)."""
    names = [key.removesuffix("_no_input") for key in rows[0] if key.endswith("_no_input")]
    labels = list(dict.fromkeys(row["method"] for row in rows))
    sparsities = list(dict.fromkeys(row["sparsity"] for row in rows))
    figure, axes = theme.figure(10.2, 4.4, 1, len(names), sharey=True)
    width = 0.8 / len(labels)
    for at, name in zip(axes[0], names, strict=True):
        for place, label in enumerate(labels):
            own = [row for row in rows if row["method"] == label]
            x = np.arange(len(sparsities)) + (place - (len(labels) - 1) / 2) * width
            color = theme.plain if label == "static" else theme.hues[place - 1]
            empty = np.array([100 * row[f"{name}_no_input"] for row in own])
            lost = np.array([100 * row[f"{name}_unread"] for row in own])
            at.bar(x, empty, 0.9 * width, color=color, label=label)
            at.bar(x, lost, 0.9 * width, bottom=empty, color=color, alpha=0.35)
        at.set_xticks(np.arange(len(sparsities)), [f"{100 * s:g} %" for s in sparsities])
        at.set_title(f"Hidden layer {name}")
        at.set_xlabel("sparsity")
        at.grid(axis="x", visible=False)
    axes[0][0].set_ylabel("units (%)")
    handles, shown = axes[0][0].get_legend_handles_labels()
    handles += [Patch(color=theme.soft), Patch(color=theme.soft, alpha=0.35)]
    figure.legend(
        handles, [*shown, "without input", "with inputs, but unread"], loc="outside lower center", ncols=4
    )
    return figure
