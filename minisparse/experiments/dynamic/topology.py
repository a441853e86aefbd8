"""Where weights go: connections of each pixel after every exchange of SET, RigL and SRigL.

D. C. Mocanu et al. Nature Communications 9, 2018. arXiv:1707.04780 (connections move to where the ink is);
U. Evci et al. ICML 2020. arXiv:1911.11134; M. Lasby et al. ICLR 2024. arXiv:2305.02299

The picture of a network is the number of first-layer weights at each pixel. All start at random. `ink` is the
correlation of these numbers with the standard deviation of the pixels over the training set, which is 0 where
nothing is ever drawn; `unread` counts pixels without a weight. The animation has a frame per exchange.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from minisparse.data.digits import load
from minisparse.experiments.dynamic.runs import EPOCHS, METHODS, watched
from minisparse.experiments.summary import mean
from minisparse.experiments.theme import LIGHT, Theme, bare, themed
from minisparse.experiments.theory.study import Progress, Study, silent
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.training.state import TrainState

SEEDS = 3
SPARSITY = 0.95
LABELS = ("set", "rigl", "srigl")
SHOWN = 6  # pictures of a method in the figure
FRAME_MS, LAST_MS, FRAME_DPI = 350, 2000, 90


@dataclass
class Course:
    """Weights per pixel (h, w) after the start and after each exchange, and the steps these were at."""

    steps: list[int] = field(default_factory=list)
    counts: list[Array] = field(default_factory=list)
    topology: int = -1

    def __call__(self, state: TrainState) -> None:
        """Look at the network whenever its topology has changed."""
        if state.topology != self.topology:
            self.topology = state.topology
            self.steps.append(state.step)
            self.counts.append(per_pixel(state.network))


def per_pixel(network: Network) -> Array:
    """Present weights of the first layer at each pixel (h, w), summed over channels."""
    weight = next(iter(network.prunable().values())).weight
    channels, h, w = network.input_shape
    counts = np.bincount(weight.flat % weight.shape[1], minlength=weight.shape[1])
    return counts.reshape(channels, h, w).sum(axis=0)


def ink(x: Array) -> Array:
    """Standard deviation (h, w) of the pixels of x (n, c, h, w), over samples, averaged over channels."""
    return x.std(axis=0).mean(axis=0)


def likeness(counts: Array, deviation: Array) -> float:
    """Correlation of two pictures; 0 where one is flat."""
    if counts.std() == 0 or deviation.std() == 0:
        return 0.0
    return float(np.corrcoef(counts.ravel(), deviation.ravel())[0, 1])


def study(
    seeds: Sequence[int], progress: Progress = silent, sparsity: float = SPARSITY, epochs: int = EPOCHS
) -> Study:
    """All methods; the figure and the animation show the first seed, the table the mean over seeds."""
    courses: dict[str, list[Course]] = {label: [] for label in LABELS}
    plan = [(label, seed) for seed in seeds for label in LABELS]
    for done, (label, seed) in enumerate(plan):
        progress(done / (len(plan) + 1), f"{label}, seed {seed}")
        course = Course()
        watched(METHODS[label](sparsity), seed, course, epochs=epochs)
        courses[label].append(course)
    progress(len(plan) / (len(plan) + 1), "animation")
    deviation = ink(load().train_x)
    rows = [
        {
            "method": label,
            "exchanges": len(own[0].steps) - 1,
            "ink_first": mean(likeness(c.counts[0], deviation) for c in own),
            "ink_last": mean(likeness(c.counts[-1], deviation) for c in own),
            "unread_first": mean(float((c.counts[0] == 0).sum()) for c in own),
            "unread_last": mean(float((c.counts[-1] == 0).sum()) for c in own),
        }
        for label, own in courses.items()
    ]
    words = [
        f"{row['method']}: the correlation of a pixel's weights with its ink goes from "
        f"{row['ink_first']:.2f} to {row['ink_last']:.2f} in {row['exchanges']} exchanges."
        for row in rows
    ]
    first = {label: own[0] for label, own in courses.items()}
    return Study(
        rows, words, topology_figure(first, deviation, sparsity), {"gif": animation(first, deviation)}
    )


def scale(courses: Mapping[str, Course]) -> int:
    """Weights of a pixel that are drawn darkest: all but a hundredth of the pixels have at most as many."""
    counts = np.concatenate([c.ravel() for course in courses.values() for c in course.counts])
    return max(1, int(np.ceil(np.quantile(counts, 0.99))))


@themed
def topology_figure(
    courses: Mapping[str, Course], deviation: Array, sparsity: float, *, theme: Theme = LIGHT
) -> Figure:
    """A row for each method: weights per pixel at some exchanges, and the ink for comparison."""
    figure, axes = theme.figure(10.2, 1.75 * len(courses) + 0.5, len(courses), SHOWN + 1)
    most = scale(courses)
    for row, (label, course) in zip(axes, courses.items(), strict=True):
        last = len(course.counts) - 1
        for at, k in zip(row, np.rint(np.linspace(0, last, SHOWN)).astype(int), strict=False):
            _picture(at, course.counts[k], most, theme)
            at.set_title(f"step {course.steps[k]}", fontsize=9, fontweight="normal")
        row[0].set_ylabel(label, fontsize=10.5, fontweight="bold")
        _picture(row[-1], deviation, float(deviation.max()), theme, "Greys" if theme is LIGHT else "gray")
        row[-1].set_title("ink", fontsize=9, fontweight="normal")
    figure.suptitle(
        f"First-layer weights at each pixel, {100 * sparsity:g} % sparsity (white 0, dark {most} or more)",
        x=0.01, ha="left", fontsize=11, fontweight="bold",
    )  # fmt: skip
    return figure


def _picture(axes: Axes, values: Array, most: float, theme: Theme, ramp: str | None = None) -> None:
    bare(axes)
    axes.imshow(values, cmap=ramp or theme.ramp, vmin=0, vmax=max(1e-12, most))


@themed
def frame(
    counts: Mapping[str, Array], step: int, most: int, deviation: Array, *, theme: Theme = LIGHT
) -> Figure:
    """One moment: a picture for each method, and the ink."""
    figure, axes = theme.figure(8.4, 2.6, 1, len(counts) + 1)
    for at, (label, values) in zip(axes[0], counts.items(), strict=False):
        _picture(at, values, most, theme)
        at.set_title(label)
        unread = int((values == 0).sum())
        at.set_xlabel(f"{unread} pixels unread" if unread else "all pixels read", fontsize=8.5)
    _picture(axes[0][-1], deviation, float(deviation.max()), theme, "Greys")
    axes[0][-1].set_title("ink")
    axes[0][-1].set_xlabel(f"step {step}", fontsize=8.5)
    return figure


def animation(courses: Mapping[str, Course], deviation: Array) -> bytes:
    """GIF with a frame for each exchange; a method that has fewer stays as it is."""
    most = scale(courses)
    steps = sorted({step for course in courses.values() for step in course.steps})
    pictures = []
    for step in steps:
        now = {label: at_step(course, step) for label, course in courses.items()}
        pictures.append(raster(frame(now, step, most, deviation)))
    palette = pictures[-1].quantize(128, dither=Image.Dither.NONE)
    frames = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    file = BytesIO()
    frames[0].save(
        file, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, disposal=1
    )
    return file.getvalue()


def at_step(course: Course, step: int) -> Array:
    """The picture that holds at this step."""
    return course.counts[int(np.searchsorted(course.steps, step, side="right")) - 1]


def raster(figure: Figure) -> Image.Image:
    """The figure as a picture in memory."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=FRAME_DPI)
    return Image.open(file).convert("RGB")
