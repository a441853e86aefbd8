"""Memorising random labels: how many weights does it take when there is nothing to understand?

C. Zhang, S. Bengio, M. Hardt, B. Recht, O. Vinyals. Understanding deep learning requires rethinking
generalization. ICLR 2017. arXiv:1611.03530

A network that fits labels drawn by lot has stored them: n labels of c classes are n log2(c) bits. Here the
images are the digits, the accuracy is that on the training samples, and the network has fewer and fewer
weights: at random places throughout, pruned by magnitude while it trains, or rewired by RigL. The same
random masks with the true labels show what regularity saves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from minisparse.data.dataset import Dataset
from minisparse.data.digits import load
from minisparse.experiments.summary import mean, spread
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Method
from minisparse.methods.dynamic.rigl import RigL
from minisparse.methods.random import Random
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.models import build
from minisparse.rng import generator
from minisparse.sparsity.schedule import Cubic
from minisparse.training.run import train

SEEDS = 3
SAMPLES, EPOCHS, BATCH = 200, 150, 32
MODEL = "mlp:64-64-32-10"
SPARSITIES = (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
FITTED = 0.99
METHODS: dict[str, Callable[[float], Method]] = {
    "static random": lambda s: Random(s),
    "magnitude, gradual": lambda s: Magnitude(s, Cubic()),
    "rigl": lambda s: RigL(s, every=50),
}
CONTROL = "static random, true labels"


def with_labels(data: Dataset, samples: int, seed: int, true: bool = False) -> Dataset:
    """`samples` training samples of data with labels drawn uniformly, or their own; tested on themselves."""
    rng = generator(seed, "memorise")
    chosen = rng.permutation(data.n_train)[:samples]
    x, y = data.train_x[chosen], data.train_y[chosen]
    if not true:
        y = rng.integers(0, data.outputs, samples)
    return Dataset(data.name, x, y, x, y, data.classes)


@dataclass(frozen=True)
class Curve:
    """Accuracies on the training samples, one number per seed, by the number of weights kept."""

    label: str
    accuracies: dict[int, list[float]]

    @property
    def needed(self) -> float:
        """The fewest weights of the grid from which on the labels are fitted; infinite if none."""
        fitting = float("inf")
        for kept in sorted(self.accuracies, reverse=True):
            if mean(self.accuracies[kept]) < FITTED:
                break
            fitting = kept
        return fitting


def curve(
    label: str, make: Callable[[float], Method], data: Sequence[Dataset], sparsities: Sequence[float],
    seeds: Sequence[int], epochs: int = EPOCHS, progress: Callable[[str], None] = lambda text: None,
) -> Curve:  # fmt: skip
    """Train once per sparsity and seed, data[k] with seeds[k]."""
    found: dict[int, list[float]] = {}
    for s in sparsities:
        for seed, own in zip(seeds, data, strict=True):
            progress(f"{label}, {100 * s:g} % sparsity")
            run = train(build(MODEL, own, seed), own, make(s), epochs=epochs, batch=BATCH, seed=seed)
            kept = sum(layer.weight.kept for layer in run.network.prunable().values())
            found.setdefault(kept, []).append(run.accuracy)
    return Curve(label, found)


def study(
    seeds: Sequence[int], progress: Progress = silent, samples: int = SAMPLES, epochs: int = EPOCHS,
    sparsities: Sequence[float] = SPARSITIES,
) -> Study:  # fmt: skip
    """All methods on random labels, and the control."""
    data = load()
    lots, own = ([with_labels(data, samples, seed, true) for seed in seeds] for true in (False, True))
    plan = [(label, make, lots) for label, make in METHODS.items()]
    plan.append((CONTROL, METHODS["static random"], own))
    total, done = len(plan) * len(sparsities) * len(seeds), -1

    def tell(text: str) -> None:
        nonlocal done
        done += 1
        progress(done / total, text)

    curves = [curve(label, make, sets, sparsities, seeds, epochs, tell) for label, make, sets in plan]
    rows = [
        {
            "method": one.label,
            "weights": kept,
            "weights_per_sample": kept / samples,
            "accuracy": mean(values),
            "spread": spread(values),
        }
        for one in curves
        for kept, values in one.accuracies.items()
    ]
    words = [f"{samples} labels drawn by lot are {samples * log2(data.outputs):.0f} bits."]
    words += [
        f"{one.label}: {100 * FITTED:g} % of the training labels from {one.needed:.0f} weights on, "
        f"{one.needed / samples:.1f} a sample."
        if np.isfinite(one.needed)
        else f"{one.label}: never {100 * FITTED:g} % of the training labels."
        for one in curves
    ]
    return Study(rows, words, memory_figure(curves, samples, data.outputs))


@themed
def memory_figure(curves: Sequence[Curve], samples: int, classes: int, *, theme: Theme = LIGHT) -> Figure:
    """Training accuracy against the number of weights, mean and range over seeds."""
    figure, axes = theme.figure(8.2, 4.8)
    at = axes[0][0]
    for place, one in enumerate(curves):
        control = one.label == CONTROL
        color = theme.plain if control else theme.hues[place]
        kept = sorted(one.accuracies)
        values = 100 * np.array([one.accuracies[k] for k in kept])
        at.plot(
            kept, values.mean(axis=1), "--" if control else "-", marker=MARKERS[place], color=color,
            label=one.label, markeredgecolor=theme.paper, markeredgewidth=0.7,
        )  # fmt: skip
        at.fill_between(kept, values.min(axis=1), values.max(axis=1), color=color, alpha=0.15, linewidth=0)
    at.axhline(100 / classes, color=theme.soft, linewidth=1, linestyle=(0, (2, 3)))
    at.axvline(samples, color=theme.soft, linewidth=1, linestyle=(0, (2, 3)))
    at.annotate("one weight per sample", (samples, 96), (4, 0), textcoords="offset points", fontsize=8.5)
    at.annotate(
        "chance", (max(kept), 100 / classes), (0, -10), textcoords="offset points", fontsize=8.5, ha="right"
    )
    at.set_xscale("log")
    at.xaxis.set_major_locator(FixedLocator(kept))
    at.xaxis.set_minor_locator(NullLocator())
    at.set_xticklabels([f"{k:,}" for k in kept])
    at.set_ylim(0, 103)
    at.set_title(f"Fitting {samples} images with random labels")
    at.set_xlabel("weights kept")
    at.set_ylabel("accuracy on the training samples (%)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
