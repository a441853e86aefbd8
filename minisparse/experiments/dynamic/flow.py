"""Gradient flow while the topology changes: what an exchange does to the slope of the loss.

U. Evci, Y. A. Ioannou, C. Keskin, Y. Dauphin. Gradient Flow in Sparse Neural Networks and How Lottery Tickets
Win. AAAI 2022. arXiv:2010.03533 (RigL's exchanges raise the gradient flow, SET's do not)

    flow = |dL/dw|^2 over present weights and all other parameters, on the probe sample    (1)
    jump = flow right after an exchange / flow right before it                             (2)

Growth where |dL/dW| is largest puts these entries into (1); growth at random puts in whatever is there. For
methods whose exchange follows a step, (2) spans that step too; `static` at the same steps shows what of it is
due to the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from minisparse.curvature.flow import gradient_flow
from minisparse.experiments.dynamic.runs import EPOCHS, INTERVAL, METHODS, watched
from minisparse.experiments.summary import mean
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.dense import Dense
from minisparse.nn.param import Array
from minisparse.training.state import TrainState

SEEDS = 3
SPARSITY = 0.98
DENSE = "dense"
STILL = (DENSE, "static")
EVERY = 4  # steps between two measurements


@dataclass
class Trace:
    """Flow at some steps, and (step, before, after) of each exchange.

    still: nothing is ever exchanged; what counts are the steps at which SET would.
    """

    still: bool = False
    steps: list[int] = field(default_factory=list)
    flows: list[float] = field(default_factory=list)
    jumps: list[tuple[int, float, float]] = field(default_factory=list)
    accuracy: float = float("nan")
    last: tuple[int, float] = (-1, float("nan"))
    topology: int = -1

    def __call__(self, state: TrainState) -> None:
        """Measure on every EVERY-th step, and around multiples of INTERVAL."""
        near = state.step % INTERVAL in (0, 1, INTERVAL - 1)
        if not (near or state.step % EVERY == 0):
            return
        flow = gradient_flow(state.network, state.loss, state.probe_x, state.probe_t)
        changed = self.topology not in (-1, state.topology)
        moment = state.step % INTERVAL == 0 if self.still else changed
        if self.steps and self.last[0] == state.step - 1 and moment:
            self.jumps.append((state.step, self.last[1], flow))
        self.steps.append(state.step)
        self.flows.append(flow)
        self.last, self.topology = (state.step, flow), state.topology

    @property
    def jump(self) -> float:
        """Geometric mean of (2); NaN if there was no exchange."""
        ratios = [after / before for _, before, after in self.jumps if before > 0 and after > 0]
        return float(np.exp(np.mean(np.log(ratios)))) if ratios else float("nan")


def study(
    seeds: Sequence[int], progress: Progress = silent, sparsity: float = SPARSITY, epochs: int = EPOCHS
) -> Study:
    """Dense, static and dynamic training; means over seeds."""
    methods = {DENSE: Dense(), **{label: make(sparsity) for label, make in METHODS.items()}}
    found: dict[str, list[Trace]] = {label: [] for label in methods}
    plan = [(label, seed) for label in methods for seed in seeds]
    for done, (label, seed) in enumerate(plan):
        progress(done / len(plan), f"{label}, seed {seed}")
        trace = Trace(still=label in STILL)
        trace.accuracy = watched(methods[label], seed, trace, epochs=epochs).accuracy
        found[label].append(trace)
    rows = [
        {
            "method": label,
            "sparsity": 0.0 if label == DENSE else sparsity,
            "flow_at_start": mean(t.flows[0] for t in own),
            "flow_on_average": mean(float(np.mean(t.flows)) for t in own),
            "jump": mean(t.jump for t in own),
            "accuracy": mean(t.accuracy for t in own),
        }
        for label, own in found.items()
    ]
    jumps = {row["method"]: row["jump"] for row in rows}
    words = [
        f"An exchange multiplies the gradient flow by {jumps['rigl']:.2f} under RigL, "
        f"{jumps['srigl']:.2f} under SRigL and {jumps['set']:.2f} under SET; a step of static training by "
        f"{jumps['static']:.2f}."
    ]
    return Study(rows, words, flow_figure(found, sparsity))


def smooth(values: Array, width: int = 7) -> Array:
    """Running geometric mean over the last axis, of the values there are at the ends."""
    logs = np.log(np.maximum(values, np.finfo(float).tiny))
    ones = np.ones(width)
    counts = np.convolve(np.ones(logs.shape[-1]), ones, "same")
    return np.exp(np.apply_along_axis(np.convolve, -1, logs, ones, "same") / counts)


@themed
def flow_figure(found: Mapping[str, Sequence[Trace]], sparsity: float, *, theme: Theme = LIGHT) -> Figure:
    """Left the flow while training; right the jump at each exchange, geometric means over seeds."""
    figure, axes = theme.figure(10.2, 4.6, 1, 2, width_ratios=(1.5, 1))
    left, right = axes[0]
    for place, (label, own) in enumerate(found.items()):
        color = {DENSE: theme.ink, "static": theme.plain}.get(label, theme.hues[max(0, place - 2)])
        shortest = min(len(t.steps) for t in own)
        values = smooth(np.array([t.flows[:shortest] for t in own]))
        steps = own[0].steps[:shortest]
        left.plot(steps, np.exp(np.log(values).mean(axis=0)), color=color, linewidth=1.5, label=label)
        left.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.13, linewidth=0)
        if label != DENSE:
            count = min(len(t.jumps) for t in own)
            at = [step for step, _, _ in own[0].jumps[:count]]
            ratios = np.array([[after / before for _, before, after in t.jumps[:count]] for t in own])
            right.plot(
                at, np.exp(np.log(ratios).mean(axis=0)), marker=MARKERS[place], color=color, linewidth=0.8,
                markersize=4.5,
            )  # fmt: skip
    left.set_yscale("log")
    left.set_title(f"Gradient flow at {100 * sparsity:g} % sparsity")
    left.set_xlabel("step: updates of the weights")
    left.set_ylabel("|dL/dw|\u00b2 on the probe sample")
    right.axhline(1, color=theme.ink, linewidth=0.9)
    right.set_yscale("log")
    ticks = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
    right.yaxis.set_major_locator(FixedLocator(ticks))
    right.yaxis.set_minor_locator(NullLocator())
    right.set_yticklabels([f"{tick:g}" for tick in ticks])
    right.set_title("Jump at an exchange")
    right.set_xlabel("step of the exchange")
    right.set_ylabel("flow after / before")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure
