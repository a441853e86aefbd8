"""Thousands of outputs of few inputs each: what exchanges and the auxiliary objective of Spartex bring.

N. Ullah, E. Schultheis, M. Lasby, Y. Ioannou, R. Babbar. Navigating Extremes: Dynamic Sparsity in Large
Output Spaces. NeurIPS 2024. arXiv:2411.03171

2,000 classes that are the leaves of a planted tree, 8 samples of each. All layers below the last are dense;
of the last the same share is kept at random for good, or exchanged as in SET or as in RigL, with the
auxiliary objective and without. Sparse last layers are stored and trained in condensed form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minisparse.data.registry import load
from minisparse.experiments.bench_timing import pinned
from minisparse.experiments.dynamic.runs import BATCH
from minisparse.experiments.summary import mean, spread
from minisparse.experiments.theme import LIGHT, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Method
from minisparse.methods.dense import Dense
from minisparse.methods.dynamic.spartex import Spartex
from minisparse.nn.models import build
from minisparse.nn.param import Array
from minisparse.training.run import Run, train

SEEDS = 3
SPARSITY = 0.9
MODEL, EPOCHS = "mlp:64-64-64-2000", 10
AUXILIARY = "with auxiliary objective"


def methods(sparsity: float) -> dict[tuple[str, bool], Method]:
    """(exchange, auxiliary objective or not) -> method."""
    kinds = {
        "static": Spartex(sparsity, share=0.0),
        "random growth": Spartex(sparsity),
        "gradient growth": Spartex(sparsity, growth="gradient"),
    }
    found: dict[tuple[str, bool], Method] = {("dense", False): Dense()}
    for label, method in kinds.items():
        found |= {(label, False): replace(method, auxiliary=0.0), (label, True): method}
    return found


def study(
    seeds: Sequence[int], progress: Progress = silent, sparsity: float = SPARSITY, epochs: int = EPOCHS
) -> Study:
    """All combinations on the label tree; means over seeds."""
    data, made = load("label-tree"), methods(sparsity)
    rows: list[dict[str, Any]] = []
    histories: dict[tuple[str, bool], Array] = {}
    for done, ((label, helped), method) in enumerate(made.items()):
        progress(done / len(made), f"{label}, {AUXILIARY}" if helped else label)
        runs: list[Run] = []
        for seed in seeds:
            with pinned(1):
                runs.append(
                    train(
                        build(MODEL, data, seed), data, method, epochs=epochs, batch=BATCH, seed=seed,
                        storage=None if label == "dense" else "condensed",
                    )
                )  # fmt: skip
        last = list(runs[0].network.prunable().values())[-1].weight
        histories[label, helped] = np.array([[r.accuracy for r in run.history] for run in runs])
        rows.append(
            {
                "last_layer": label, "auxiliary": helped, "fan_in": last.kept // last.shape[0],
                "weights": last.kept, "accuracy": mean(r.accuracy for r in runs),
                "spread": spread(r.accuracy for r in runs), "seconds": mean(r.seconds for r in runs),
            }
        )  # fmt: skip
    score = {(row["last_layer"], row["auxiliary"]): 100 * row["accuracy"] for row in rows}
    words = [
        f"{label}: {score[label, False]:.1f} %, {score[label, True]:.1f} % {AUXILIARY}."
        for label in dict.fromkeys(label for label, helped in made if helped)
    ]
    return Study(rows, words, outputs_figure(histories, sparsity))


@themed
def outputs_figure(
    histories: Mapping[tuple[str, bool], Array], sparsity: float, *, theme: Theme = LIGHT
) -> Figure:
    """Accuracy after each epoch; dashed without the auxiliary objective, bands over seeds."""
    figure, axes = theme.figure(8.6, 4.8)
    at = axes[0][0]
    labels = list(dict.fromkeys(label for label, _ in histories))
    colors = dict(zip(labels, (theme.ink, theme.plain, *theme.hues), strict=False))
    for (label, helped), values in histories.items():
        style = "-" if helped or label == "dense" else (0, (4, 2))
        epochs = np.arange(values.shape[1])
        name = label if label == "dense" else f"{label}{', ' + AUXILIARY if helped else ''}"
        at.plot(epochs, 100 * values.mean(axis=0), linestyle=style, color=colors[label], label=name)
        at.fill_between(
            epochs,
            100 * values.min(axis=0),
            100 * values.max(axis=0),
            color=colors[label],
            alpha=0.12,
            linewidth=0,
        )
    at.set_title(f"2,000 classes, a last layer of {100 * sparsity:g} % sparsity")
    at.set_xlabel("epoch")
    at.set_ylabel("test accuracy (%)")
    at.set_ylim(0, None)
    figure.legend(loc="outside lower center", ncols=2)
    return figure
