"""Gates make up their mind: most weights are surely kept or surely gone, few remain in between.

C. Louizos et al., arXiv:1712.01312 (log a, the parameter of a gate); D. Molchanov et al., arXiv:1701.05369
(log alpha, noise against signal)

Of every weight of a network trained with L0, log a: the gate of evaluation is 0 below -log 11 and 1 above
log 11, in between it is undecided. Of every weight trained with variational dropout, log alpha: past the
threshold the weight is left out; undecided means within `NEAR` of the threshold. Counts are over the weights
of all layers and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from minisparse.experiments.criteria.runs import NOISY, trained
from minisparse.experiments.summary import mean
from minisparse.experiments.theme import LIGHT, Theme, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.methods.base import Method
from minisparse.methods.learned.l0 import L0
from minisparse.methods.learned.variational_dropout import VariationalDropout
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.training.state import TrainState
from minisparse.weights.hard_concrete import GAMMA, ZETA
from minisparse.weights.variational import LIMIT, log_alpha

SEEDS = 3
MODEL, EPOCHS = "lenet-300-100", 20
MOMENTS = 40  # times a run is looked at, beside the start
SHOWN = (0.0, 0.25, 1.0)  # shares of the run whose histograms are drawn
NEAR = 1.0
EDGE = float(np.log(-ZETA / GAMMA))
VD = VariationalDropout(strength=1.0, begin=0.05, end=0.4)


@dataclass(frozen=True)
class Kind:
    """One parameter of all weights: how to read it, its range, its axis, and where it is undecided."""

    method: Method
    read: Callable[[dict[str, Any]], Array]
    span: tuple[float, float]
    name: str
    between: tuple[float, float]
    kept_below: bool


KINDS = {
    "L0": Kind(
        L0(strength=2.0, rate=10.0), lambda own: own["log_a"].value, (-5.0, 5.0),
        "log a of the gate", (-EDGE, EDGE), False,
    ),
    "variational dropout": Kind(
        VD, lambda own: log_alpha(own["weight"].value, own["log_sigma2"].value)[0], (-LIMIT, LIMIT),
        "log alpha: noise against signal", (VD.threshold - NEAR, VD.threshold + NEAR), True,
    ),
}  # fmt: skip


def read(network: Network, kind: Kind) -> Array:
    """The parameter of all weights, one after the other."""
    layers = network.prunable().values()
    return np.concatenate([kind.read(layer.weight.params()).ravel() for layer in layers])


def shares(values: Array, kind: Kind) -> dict[str, float]:
    """Shares of weights that are surely kept, undecided and surely gone."""
    low, high = float((values <= kind.between[0]).mean()), float((values >= kind.between[1]).mean())
    kept, gone = (low, high) if kind.kept_below else (high, low)
    return {"kept": kept, "undecided": 1 - low - high, "gone": gone}


@dataclass
class Course:
    """Histograms (moments, bins) of one parameter over a run, shares at each moment, and their steps."""

    counts: Array
    shares: list[dict[str, float]]
    steps: list[int]
    accuracy: float


def follow(kind: Kind, seed: int, model: str = MODEL, epochs: int = EPOCHS, bins: int = 80) -> Course:
    """Train once and look at all weights MOMENTS times."""
    counts, seen, steps = [], [], []
    edges = np.linspace(*kind.span, bins + 1)

    def watch(state: TrainState) -> None:
        if state.step % max(1, state.horizon // MOMENTS) and state.step != state.horizon:
            return
        values = read(state.network, kind)
        counts.append(np.histogram(np.clip(values, *kind.span), edges)[0])
        seen.append(shares(values, kind))
        steps.append(state.step)

    run = trained(kind.method, seed, model, replace(NOISY, epochs=epochs), watch=watch)
    return Course(np.array(counts), seen, steps, run.accuracy)


def study(
    seeds: Sequence[int], progress: Progress = silent, model: str = MODEL, epochs: int = EPOCHS
) -> Study:
    """Both parameters over training, counts added up over seeds."""
    plan = [(label, seed) for label in KINDS for seed in seeds]
    found: dict[str, list[Course]] = {}
    for done, (label, seed) in enumerate(plan):
        progress(done / len(plan), f"{label}, seed {seed}")
        found.setdefault(label, []).append(follow(KINDS[label], seed, model, epochs))
    rows = []
    for label, runs in found.items():
        for moment in _moments(runs[0]):
            facts = {n: mean(run.shares[moment][n] for run in runs) for n in ("kept", "undecided", "gone")}
            rows.append({"method": label, "step": runs[0].steps[moment], **facts})
    return Study(rows, [_words(label, runs) for label, runs in found.items()], gate_figure(found))


def _moments(course: Course) -> list[int]:
    """Places in the course of the shares of the run in SHOWN."""
    last = course.steps[-1]
    return [int(np.argmin([abs(step - share * last) for step in course.steps])) for share in SHOWN]


def _words(label: str, runs: Sequence[Course]) -> str:
    start, end = (
        {n: 100 * mean(run.shares[k][n] for run in runs) for n in runs[0].shares[0]} for k in (0, -1)
    )
    return (
        f"{label}: undecided {start['undecided']:.1f} % of the weights at the start, "
        f"{end['undecided']:.1f} % at the end; then {end['gone']:.1f} % are gone and {end['kept']:.1f} % "
        f"kept (accuracy {100 * mean(run.accuracy for run in runs):.1f} %)."
    )


@themed
def gate_figure(found: dict[str, list[Course]], *, theme: Theme = LIGHT) -> Figure:
    """Left, how many weights have which value as training goes on; right, histograms at three moments."""
    figure, axes = theme.figure(10.4, 3.6 * len(found), len(found), 2, width_ratios=(1.25, 1))
    for (left, right), (label, runs) in zip(axes, found.items(), strict=True):
        kind, counts = KINDS[label], np.sum([run.counts for run in runs], axis=0)
        _course(left, kind, counts, runs[0].steps, theme)
        left.set_title(f"{label}: while training")
        _histograms(right, kind, counts, runs[0], theme)
        right.set_title(f"{label}: at three moments")
    return figure


def _course(axes: Axes, kind: Kind, counts: Array, steps: Sequence[int], theme: Theme) -> None:
    shown = np.ma.masked_equal(counts.T, 0)
    edges = np.linspace(*kind.span, len(shown) + 1)
    picture = axes.pcolormesh(
        np.array([*steps, 2 * steps[-1] - steps[-2]]), edges, shown, cmap=theme.ramp, norm=LogNorm(),
        rasterized=True,
    )  # fmt: skip
    for border in kind.between:
        axes.axhline(border, color=theme.alarm, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.grid(False)
    axes.set_xlim(0, steps[-1])
    axes.set_ylabel(kind.name)
    axes.set_xlabel("step: updates of the weights")
    bar = axes.figure.colorbar(picture, ax=axes, pad=0.01)
    bar.set_label("weights", color=theme.ink)


def _histograms(axes: Axes, kind: Kind, counts: Array, course: Course, theme: Theme) -> None:
    edges = np.linspace(*kind.span, counts.shape[1] + 1)
    for place, moment in enumerate(_moments(course)):
        style = ("-", (0, (5, 2)), "-")[place]
        color = (theme.plain, theme.hues[4], theme.hues[0])[place]
        axes.stairs(
            100 * counts[moment] / counts[moment].sum(), edges, color=color, linewidth=1.6, linestyle=style,
            label=f"step {course.steps[moment]}",
        )  # fmt: skip
    axes.axvspan(*kind.between, color=theme.alarm, alpha=0.08, linewidth=0, label="undecided")
    axes.set_yscale("log")
    axes.set_xlabel(kind.name)
    axes.set_ylabel("share of weights (%)")
    axes.legend(loc="upper center", ncols=2)
