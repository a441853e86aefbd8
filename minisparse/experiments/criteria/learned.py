"""Sparsity that is learned: which layers do variational dropout and L0 thin out, and which does magnitude?

D. Molchanov et al., arXiv:1701.05369; C. Louizos et al., arXiv:1712.01312; T. Gale, E. Elsen, S. Hooker. The
State of Sparsity in Deep Neural Networks. 2019. arXiv:1902.09574 (the networks that variational dropout finds
keep more of the first and of the last layer)

Variational dropout and L0 find a sparsity s, in total and for every layer. Gradual magnitude pruning is then
given the same s, once with one ranking over all layers and once with the same share of every layer, and
trained for as many epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minisparse.experiments.criteria.runs import NOISY, Recipe, densities, trained
from minisparse.experiments.summary import mean
from minisparse.experiments.theme import LIGHT, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Method
from minisparse.methods.learned.l0 import L0
from minisparse.methods.learned.variational_dropout import VariationalDropout
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.sparsity.allocation import Allocation, Global, Uniform
from minisparse.sparsity.schedule import Cubic

SEEDS = 3
EPOCHS = {"lenet-300-100": 20, "lenet-5": 15}
FINDERS: dict[str, Callable[[], Method]] = {
    "variational dropout": lambda: VariationalDropout(strength=1.0, begin=0.05, end=0.4),
    "L0": lambda: L0(strength=1.0, rate=10.0),
}
ALLOCATIONS: dict[str, Allocation] = {"global": Global(), "uniform": Uniform()}
GRADUAL = Cubic(0.1, 0.8)


@dataclass(frozen=True)
class Found:
    """One network with found sparsity and the pruned ones of the same: densities by layer, accuracies."""

    sparsity: float
    accuracy: float
    densities: dict[str, float]
    pruned: dict[str, dict[str, float]]
    accuracies: dict[str, float]


def find(make: Callable[[], Method], model: str, seed: int, epochs: int) -> Found:
    """Train once with the sparsity open, then by magnitude at what was found, for each allocation."""
    free = trained(make(), seed, model, replace(NOISY, epochs=epochs))
    asked, runs = min(free.sparsity, 0.9999), {}
    for name, allocation in ALLOCATIONS.items():
        runs[name] = trained(Magnitude(asked, GRADUAL, allocation), seed, model, Recipe(epochs=epochs))
    return Found(
        free.sparsity, free.accuracy, densities(free.network),
        {name: densities(run.network) for name, run in runs.items()},
        {name: run.accuracy for name, run in runs.items()},
    )  # fmt: skip


def study(seeds: Sequence[int], progress: Progress = silent, epochs: Mapping[str, int] = EPOCHS) -> Study:
    """Every finder on every model; rows by layer, means over seeds."""
    plan = [(model, label, seed) for model in epochs for label in FINDERS for seed in seeds]
    found: dict[tuple[str, str], list[Found]] = {}
    for done, (model, label, seed) in enumerate(plan):
        progress(done / len(plan), f"{label}, {model}, seed {seed}")
        own = find(FINDERS[label], model, seed, epochs[model])
        found.setdefault((model, label), []).append(own)
    rows = [row for (model, label), runs in found.items() for row in _rows(model, label, runs)]
    return Study(rows, [_words(*key, runs) for key, runs in found.items()], layer_figure(found))


def _rows(model: str, label: str, runs: Sequence[Found]) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "method": label,
            "layer": layer,
            "found": 1 - mean(run.densities[layer] for run in runs),
            "global_magnitude": 1 - mean(run.pruned["global"][layer] for run in runs),
            "uniform_magnitude": 1 - mean(run.pruned["uniform"][layer] for run in runs),
        }
        for layer in runs[0].densities
    ]


def _words(model: str, label: str, runs: Sequence[Found]) -> str:
    total, accuracy = (100 * mean(getattr(run, name) for run in runs) for name in ("sparsity", "accuracy"))
    least = {layer: mean(run.densities[layer] for run in runs) for layer in runs[0].densities}
    spared = sorted(least, key=lambda layer: -least[layer])[:2]
    others = ", ".join(f"{n} {100 * mean(run.accuracies[n] for run in runs):.1f} %" for n in ALLOCATIONS)
    return (
        f"{model}: {label} finds {total:.1f} % sparsity and {accuracy:.1f} % accuracy, and keeps most of "
        f"{' and '.join(spared)}; magnitude at that sparsity: {others}."
    )


@themed
def layer_figure(found: Mapping[tuple[str, str], Sequence[Found]], *, theme: Theme = LIGHT) -> Figure:
    """Share of weights kept by layer, a dot per seed and a line through the means; a panel per case."""
    models, labels = (list(dict.fromkeys(key[k] for key in found)) for k in (0, 1))
    figure, axes = theme.figure(5.2 * len(labels), 3.4 * len(models) + 0.5, len(models), len(labels))
    for row, model in zip(axes, models, strict=True):
        for at, label in zip(row, labels, strict=True):
            _panel(at, label, found[model, label], theme)
            total = 100 * mean(run.sparsity for run in found[model, label])
            at.set_title(f"{label}, {model}: {total:.1f} % sparsity")
        low = min(at.get_ylim()[0] for at in row)
        for at in row:
            at.set_ylim(low, 1.3)
        row[0].set_ylabel("share of the layer's weights kept")
    handles = {h.get_label(): h for at in axes.flat for h in at.get_legend_handles_labels()[0]}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, label: str, runs: Sequence[Found], theme: Theme) -> None:
    names = list(runs[0].densities)
    place = np.arange(len(names))
    lines = {
        label: ([run.densities for run in runs], theme.hues[list(FINDERS).index(label)], "o", -0.08),
        "magnitude, one ranking": ([run.pruned["global"] for run in runs], theme.hues[2], "s", 0.08),
    }
    for title, (tables, color, marker, shift) in lines.items():
        values = np.array([[table[name] for name in names] for table in tables])
        axes.plot(place + shift, values.mean(axis=0), marker=marker, color=color, label=title, linewidth=1.4)
        for own in values:
            axes.plot(place + shift, own, marker, color=color, markersize=3, alpha=0.5)
    every = 1 - mean(run.sparsity for run in runs)
    axes.axhline(
        every, color=theme.plain, linestyle=(0, (4, 3)), linewidth=1.2, label="the same in every layer"
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda share, at: f"{100 * share:g} %")
    axes.set_xticks(place, names)
