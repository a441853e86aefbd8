"""Accuracy against the work of training: dense, static, SET, RigL, and RigL and static for longer.

U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen. Rigging the Lottery. ICML 2020. arXiv:1911.11134,
appendix on FLOPs

With f_D the FLOPs of a dense forward pass of one sample, f_S those of the sparse one (2 for each present
weight and position), and a backward pass twice a forward one,

    dense 3 f_D,   static and SET 3 f_S,   SNFS 2 f_S + f_D   for a step and sample        (1)
    RigL  (3 f_S dT + 2 f_S + f_D) / (dT + 1)   with an exchange every dT steps            (2)

An exchange of RigL forms the gradient of all weights once. Runs are charged with the exchanges they made:
(steps - u) 3 f_S + u (2 f_S + f_D) for u exchanges, which is (2) as long as they go on. Masks, sorting and
biases cost nothing here, and FLOPs are not time. Training k times as long is k times the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from minisparse.experiments.dynamic.runs import EPOCHS, INTERVAL, METHODS, watched
from minisparse.experiments.summary import mean, spread
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Method
from minisparse.methods.dense import Dense
from minisparse.methods.dynamic.rigl import RigL
from minisparse.nn.network import Network
from minisparse.training.state import TrainState

SEEDS = 3
SPARSITIES = (0.95, 0.98)
DENSE = "dense"
BASES = ("static", "set", "rigl")
LONGER = {"static": (5,), "rigl": (2, 5)}  # times the training; the interval of exchanges stays


def forward_flops(network: Network) -> tuple[int, int]:
    """(f_D, f_S) of one sample: 2 for each weight and position, of all weights and of present ones."""
    positions = network.positions()
    weights = {name: layer.weight for name, layer in network.prunable().items()}
    return (
        2 * sum(w.size * positions[name] for name, w in weights.items()),
        2 * sum(w.kept * positions[name] for name, w in weights.items()),
    )


def rigl_step(f_s: float, f_d: float, interval: int) -> float:
    """Equation (2)."""
    return (3 * f_s * interval + 2 * f_s + f_d) / (interval + 1)


def snfs_step(f_s: float, f_d: float) -> float:
    """SNFS's part of equation (1)."""
    return 2 * f_s + f_d


def training_flops(f_d: float, f_s: float, steps: int, exchanges: int) -> float:
    """A sample's FLOPs over a run, `exchanges` of whose steps formed the gradient of all weights."""
    return (steps - exchanges) * 3 * f_s + exchanges * snfs_step(f_s, f_d)


@dataclass
class Exchanges:
    """Counts changes of topology after the start."""

    count: int = -1
    topology: int = -1

    def __call__(self, state: TrainState) -> None:
        """Look at the state after a step."""
        if state.topology != self.topology:
            self.topology = state.topology
            self.count += 1


def plan(sparsities: Sequence[float]) -> list[tuple[str, float, int, Method]]:
    """(label, sparsity, times the training, method)."""
    found: list[tuple[str, float, int, Method]] = [(DENSE, 0.0, 1, Dense())]
    for s in sparsities:
        found += [(label, s, 1, METHODS[label](s)) for label in BASES]
        found += [(label, s, k, METHODS[label](s)) for label, ks in LONGER.items() for k in ks]
    return found


def study(
    seeds: Sequence[int], progress: Progress = silent, sparsities: Sequence[float] = SPARSITIES,
    epochs: int = EPOCHS,
) -> Study:  # fmt: skip
    """All runs; work over that of the dense training of `epochs` epochs."""
    made = plan(sparsities)
    weights = [max(0, times - 1) + 1 for _, _, times, _ in made]
    rows: list[dict[str, Any]] = []
    reference = 1.0
    for place, (label, s, times, method) in enumerate(made):
        progress(sum(weights[:place]) / sum(weights), f"{label} x {times}, {100 * s:g} % sparsity")
        accuracies = []
        for seed in seeds:
            exchanges = Exchanges()
            run = watched(method, seed, exchanges, epochs=times * epochs)
            accuracies.append(run.accuracy)
        f_d, f_s = forward_flops(run.network)
        dense_gradients = exchanges.count if isinstance(method, RigL) else 0
        work = training_flops(f_d, f_s, run.steps, dense_gradients)
        reference = work if label == DENSE else reference
        rows.append(
            {
                "method": label, "sparsity": s, "times": times, "flops_a_sample": work / run.steps,
                "work": work / reference, "exchanges": max(0, exchanges.count),
                "accuracy": mean(accuracies), "spread": spread(accuracies),
            }
        )  # fmt: skip
    return Study(rows, in_words(rows), flops_figure(rows))


def in_words(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What an exchange costs, and the cheapest that comes within a point of the dense network."""
    one = next(r for r in rows if r["method"] == "rigl" and r["times"] == 1)
    static = next(r for r in rows if r["method"] == "static" and r["times"] == 1)
    top = rows[0]["accuracy"]
    near = [r for r in rows[1:] if r["accuracy"] > top - 0.01]
    words = [
        f"At {100 * one['sparsity']:g} % sparsity RigL's exchanges, every {INTERVAL} steps, add "
        f"{100 * (one['work'] / static['work'] - 1):.0f} % to the work of static training."
    ]
    if near:
        best = min(near, key=lambda r: r["work"])
        words.append(
            f"Within a point of the dense {100 * top:.1f} % at the least work: {best['method']} at "
            f"{100 * best['sparsity']:g} %, {best['times']} times the training, "
            f"{100 * best['work']:.0f} % of the dense work."
        )
    return words


@themed
def flops_figure(rows: Sequence[dict[str, Any]], *, theme: Theme = LIGHT) -> Figure:
    """A panel for each sparsity: accuracy against work; a line joins what differs in length only."""
    dense = rows[0]
    sparsities = sorted({row["sparsity"] for row in rows[1:]})
    figure, axes = theme.figure(10.2, 4.4, 1, len(sparsities))
    for at, s in zip(axes[0], sparsities, strict=True):
        at.errorbar(
            [1.0], [100 * dense["accuracy"]], [100 * _half(dense)], fmt="*", color=theme.ink, markersize=11,
            capsize=2.5, label="dense",
        )  # fmt: skip
        at.axhline(100 * dense["accuracy"], color=theme.ink, linewidth=0.9, zorder=1)
        for place, label in enumerate(BASES):
            own = sorted(
                (r for r in rows if (r["method"], r["sparsity"]) == (label, s)), key=lambda r: r["work"]
            )
            color = theme.plain if label == "static" else theme.hues[place - 1]
            at.errorbar(
                [r["work"] for r in own], [100 * r["accuracy"] for r in own], [100 * _half(r) for r in own],
                fmt=f"{MARKERS[place]}-", color=color, capsize=2.5, linewidth=1.3, elinewidth=1.0,
                label=label, markeredgecolor=theme.paper,
            )  # fmt: skip
            for r in own:
                if r["times"] > 1:
                    where = (r["work"], 100 * r["accuracy"])
                    at.annotate(
                        f"x {r['times']}",
                        where,
                        (4, -11),
                        textcoords="offset points",
                        fontsize=8,
                        color=color,
                    )
        at.set_xscale("log")
        ticks = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
        at.xaxis.set_major_locator(FixedLocator(ticks))
        at.xaxis.set_minor_locator(NullLocator())
        at.set_xticklabels([f"{t:g}" for t in ticks])
        at.set_title(f"{100 * s:g} % sparsity")
        worst = min(100 * (r["accuracy"] - _half(r)) for r in rows if r["sparsity"] == s)
        at.set_ylim(worst - 0.05 * (100 - worst), 100)
        at.set_xlabel("training FLOPs / those of dense training")
    axes[0][0].set_ylabel("test accuracy (%)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _half(row: dict[str, Any]) -> float:
    return 0.0 if np.isnan(row["spread"]) else row["spread"]
