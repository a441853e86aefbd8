"""How figures look: the same shapes in ink on paper, or in light on a dark page.

Colours are told apart by people with the common colour-vision deficiencies as well, and every method
has a marker of its own besides, so that nothing depends on colour alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from textwrap import wrap
from typing import Any, TypeVar

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from minisparse.methods.registry import catalogue

Drawn = TypeVar("Drawn", Figure, Figure | None)
DPI = 150
COLORS = 256
POINTS = 72  # to an inch
LETTER, BOLD = 0.58, 0.68  # mean width of a letter, as a share of the font size
HANDLE = 7  # letters that the line of a legend takes, with the space about it
MARKERS = ("o", "s", "^", "D", "v", "p", "<", ">", "h", "H")


@dataclass(frozen=True)
class Theme:
    """Colours of a page. `hues` are for methods in the order they come, `plain` for controls."""

    paper: str
    ink: str
    soft: str
    faint: str
    plain: str
    hues: tuple[str, ...]
    ramp: str
    alarm: str

    def rc(self) -> dict[str, Any]:
        """The same as settings of matplotlib."""
        return {
            "figure.facecolor": self.paper,
            "axes.facecolor": self.paper,
            "axes.edgecolor": self.soft,
            "axes.labelcolor": self.ink,
            "axes.titlecolor": self.ink,
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 9.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": self.faint,
            "grid.linewidth": 0.8,
            "xtick.color": self.soft,
            "ytick.color": self.soft,
            "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.frameon": False,
            "legend.labelcolor": self.ink,
            "legend.fontsize": 9,
            "lines.linewidth": 1.8,
            "lines.markersize": 6,
            "text.color": self.ink,
            "font.family": "DejaVu Sans",
            "image.interpolation": "nearest",
        }

    def figure(self, width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> Any:
        """(figure, axes (rows, columns)) of this size in inches."""
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **options)


LIGHT = Theme(
    paper="#ffffff",
    ink="#1d2733",
    soft="#7b8794",
    faint="#e7ebf0",
    plain="#8a94a0",
    hues=("#2f6fde", "#d9480f", "#2b8a3e", "#8d3fd1", "#c98a00", "#0b97a7", "#c2255c", "#7f5a32"),
    ramp="YlGnBu",
    alarm="#c92a2a",
)
DARK = Theme(
    paper="#161b22",
    ink="#e3e8ee",
    soft="#8b96a3",
    faint="#2a313b",
    plain="#9aa5b1",
    hues=("#6ea8fe", "#ff8a5c", "#69c77f", "#c493f5", "#f0bf4c", "#4fd0de", "#f783ac", "#cfa77a"),
    ramp="viridis",
    alarm="#ff8787",
)


def themed(draw: Callable[..., Drawn]) -> Callable[..., Drawn]:
    """A function that draws in the theme given as its keyword `theme`; LIGHT if none is."""

    @wraps(draw)
    def wrapped(*parts: Any, theme: Theme = LIGHT) -> Drawn:
        with rc_context(theme.rc()):
            return draw(*parts, theme=theme)

    return wrapped


@dataclass(frozen=True)
class Look:
    """Colour and marker of one method."""

    color: str
    marker: str


def looks(labels: Mapping[str, str], theme: Theme) -> dict[str, Look]:
    """A look for each label; labels: label -> method. Controls are grey: the eye goes to the others."""
    known, found, used = catalogue(), {}, 0
    for at, (label, method) in enumerate(labels.items()):
        control = method in known and known[method].family == "control"
        color = theme.plain if control else theme.hues[used % len(theme.hues)]
        used += not control
        found[label] = Look(color, MARKERS[at % len(MARKERS)])
    return found


def in_lines(label: str, inches: float, size: float = 9.0) -> str:
    """The label in lines of bold letters that fit this width, broken after commas and colons too."""
    characters = max(8, int(inches * POINTS / (BOLD * size)))
    return "\n".join(wrap(re.sub(r"([,:])(?=\S)", r"\1 ", label), characters, break_on_hyphens=False))


def legend_columns(labels: Iterable[str], inches: float, most: int = 6, size: float = 9.0) -> int:
    """How many of these labels fit side by side, at least one and at most `most`."""
    longest = max((len(label) for label in labels), default=0)
    return int(min(most, max(1, inches * POINTS // ((longest + HANDLE) * LETTER * size))))


def bare(axes: Axes) -> None:
    """Axes for a picture: no ticks, no grid."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])


def png(figure: Figure) -> bytes:
    """The figure as a PNG file with a palette, a quarter of the size of one with full colours."""
    full, small = BytesIO(), BytesIO()
    figure.savefig(full, format="png", dpi=DPI, metadata={"Software": None})
    picture = Image.open(full).convert("RGB")
    # median cut leaves the paper's colour as it is; without dithering, areas stay plain
    method, dither = Image.Quantize.MEDIANCUT, Image.Dither.NONE
    picture.quantize(COLORS, method=method, dither=dither).save(small, "png", dpi=(DPI, DPI))
    return small.getvalue()
