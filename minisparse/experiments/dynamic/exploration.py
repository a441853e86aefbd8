"""How much of a network dynamic training visits: the explored share, with its closed form for random growth.

S. Liu, L. Yin, D. C. Mocanu, M. Pechenizkiy. Do We Actually Need Dense Over-Parameterization? In-Time
Over-Parameterization in Sparse Training. ICML 2021. arXiv:2102.02887

    R = share of all weights that were ever present                                        (1)
    1 - E R_l = (1 - n_l / N_l) prod_u (1 - K_lu / (N_l - n_l + K_lu)),   E R = sum_l N_l E R_l / N      (2)

where K_lu weights of layer l are drawn uniformly at exchange u among those that are empty then, which is what
SET and ITOP with random growth do. Growth by gradient comes back to the same places and explores less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from minisparse.experiments.dynamic.runs import EPOCHS, INTERVAL, METHODS, watched
from minisparse.experiments.summary import mean
from minisparse.experiments.theme import LIGHT, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Method, rounded
from minisparse.methods.dynamic.explored import EVER, explored_share, record
from minisparse.methods.dynamic.itop import ITOP
from minisparse.methods.dynamic.rules import cosine
from minisparse.methods.dynamic.set import SET
from minisparse.nn.param import Array
from minisparse.training.state import TrainState

SEEDS = 3
SPARSITY = 0.95
COMPARED: dict[str, Callable[[float], Method]] = {
    **METHODS,
    "itop, random": lambda s: ITOP(s, growth="random", every=INTERVAL),
    "itop, gradient": lambda s: ITOP(s, growth="gradient", every=INTERVAL),
}
# share of a layer's weights that leaves when this share of the run is done, for (2)
MOVED: dict[str, Callable[[float], float]] = {
    "set": lambda done: SET().zeta,
    "itop, random": lambda done: cosine(ITOP().first, ITOP().last, done),
}


@dataclass
class Course:
    """R after each step from the start on, the steps of exchanges, and (N_l, n_l) of each layer."""

    shares: list[float] = field(default_factory=list)
    exchanges: list[int] = field(default_factory=list)
    layers: tuple[tuple[int, int], ...] = ()
    topology: int = -1
    accuracy: float = float("nan")

    def __call__(self, state: TrainState) -> None:
        """Follow R."""
        if state.topology != self.topology:
            if self.topology >= 0:
                self.exchanges.append(state.step)
            record(state)
        self.topology = state.topology
        weights = [layer.weight for layer in state.network.prunable().values()]
        self.layers = tuple((w.size, w.kept) for w in weights)
        self.shares.append(explored_share(state.memory[EVER], sum(w.size for w in weights)))


def expected_shares(
    layers: Sequence[tuple[int, int]], exchanges: Sequence[int], moved: Callable[[float], float], horizon: int
) -> Array:
    """(horizon + 1,) E R of equation (2) after each step; layers: (N_l, n_l).

    moved: share of a layer's weights that leaves when a share of the run is done.
    """
    missed = np.array([1 - kept / size for size, kept in layers])
    sizes, curve = np.array([size for size, _ in layers], dtype=float), np.empty(horizon + 1)
    for step in range(horizon + 1):
        if step in exchanges:
            for place, (size, kept) in enumerate(layers):
                k = rounded(moved(step / horizon), kept) if kept < size else 0
                missed[place] *= 1 - k / (size - kept + k) if k else 1
        curve[step] = 1 - (sizes * missed).sum() / sizes.sum()
    return curve


def study(
    seeds: Sequence[int], progress: Progress = silent, sparsity: float = SPARSITY, epochs: int = EPOCHS
) -> Study:
    """All methods; means over seeds."""
    plan = [(label, seed) for label in COMPARED for seed in seeds]
    found: dict[str, list[Course]] = {label: [] for label in COMPARED}
    for done, (label, seed) in enumerate(plan):
        progress(done / len(plan), f"{label}, seed {seed}")
        course = Course()
        course.accuracy = watched(COMPARED[label](sparsity), seed, course, epochs=epochs).accuracy
        found[label].append(course)
    theory = {
        label: expected_shares(own.layers, own.exchanges, moved, len(own.shares) - 1)
        for label, moved in MOVED.items()
        for own in found[label][:1]
    }
    rows = [
        {
            "method": label,
            "sparsity": sparsity,
            "exchanges": len(own[0].exchanges),
            "explored": mean(c.shares[-1] for c in own),
            "expected": float(theory[label][-1]) if label in theory else None,
            "accuracy": mean(c.accuracy for c in own),
        }
        for label, own in found.items()
    ]
    gap = max(
        float(np.abs(np.mean([c.shares for c in found[label]], axis=0) - curve).max())
        for label, curve in theory.items()
    )
    shares = {row["method"]: row["explored"] for row in rows}
    words = [
        f"Random growth follows its closed form to {100 * gap:.2g} points at every step.",
        "With as many exchanges of as many weights, growth by gradient explores "
        f"{shares['itop, gradient']:.2f} of the network, random growth {shares['itop, random']:.2f}.",
    ]
    return Study(rows, words, exploration_figure(found, theory, sparsity))


@themed
def exploration_figure(
    found: Mapping[str, Sequence[Course]],
    theory: Mapping[str, Array],
    sparsity: float,
    *,
    theme: Theme = LIGHT,
) -> Figure:
    """Left R against steps, dashed (2); right accuracy against R at the end, a dot for each seed."""
    figure, axes = theme.figure(10.2, 4.4, 1, 2, width_ratios=(1.5, 1))
    left, right = axes[0]
    for place, (label, own) in enumerate(found.items()):
        color = theme.plain if label == "static" else theme.hues[place - 1]
        values = np.array([c.shares for c in own])
        steps = np.arange(values.shape[1])
        left.plot(steps, values.mean(axis=0), color=color, linewidth=1.6, label=label)
        left.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, linewidth=0)
        if label in theory:
            left.plot(steps, theory[label], "--", color=theme.ink, linewidth=1.0, zorder=5)
        right.plot(
            [c.shares[-1] for c in own], [100 * c.accuracy for c in own], "osD^vP"[place], color=color,
            markeredgecolor=theme.paper, markersize=7,
        )  # fmt: skip
    left.set_ylim(0, None)
    left.set_title(f"Explored share at {100 * sparsity:g} % sparsity")
    left.set_xlabel("step: updates of the weights")
    left.set_ylabel("R: share of weights that were ever present")
    right.set_title("Accuracy against what was explored")
    right.set_xlabel("R at the end")
    right.set_ylabel("test accuracy (%)")
    handles, labels = left.get_legend_handles_labels()
    handles.append(Line2D([], [], color=theme.ink, linestyle="--", linewidth=1.0))
    figure.legend(handles, [*labels, "closed form"], loc="outside lower center", ncols=4)
    return figure
