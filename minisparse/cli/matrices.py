"""Small matrices side by side, their entries marked and coloured by what became of them.

x  leaves    +  enters    .  absent    and nothing behind what stays
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10

import numpy as np
from rich.text import Text

from minisparse.nn.param import Array

MARKS = {"x": "red", "+": "green", ".": "dim"}
CELL, GAP, INDENT = 8, " ", "  "
LEAST, MOST = 0.01, 1000.0  # a largest magnitude outside of these is written with a power of ten


@dataclass(frozen=True, eq=False)
class Panel:
    """A caption over a matrix; marks (rows, columns) of 'x', '+', '.' or ''."""

    caption: str
    values: Array
    marks: Array

    @property
    def width(self) -> int:
        """Characters of the matrix without what follows its last column."""
        return max(len(self.title), CELL * self.values.shape[1])

    @property
    def power(self) -> int:
        """Values are written in units of ten to this."""
        top = largest(self.values)
        return 0 if top == 0 or LEAST <= top < MOST else floor(log10(top))

    @property
    def title(self) -> str:
        """The caption with the power of ten."""
        return f"{self.caption} / 1e{self.power:+03d}" if self.power else self.caption

    def row(self, at: int) -> Text:
        """One line."""
        scale = 10.0**self.power
        places = decimals(largest(self.values) / scale)
        text = Text()
        for value, mark in zip(self.values[at] / scale, self.marks[at], strict=True):
            shown = "." if mark == "." else f"{round(float(value), places) + 0.0:.{places}f}"
            behind = " " if mark in ("", ".") else mark
            text.append(f"{shown:>{CELL - 1}}{behind}", style=MARKS.get(mark, ""))
        text.append(" " * (self.width - len(text)))
        return text


def largest(values: Array) -> float:
    """Largest finite magnitude; 0 if there is none."""
    magnitudes = np.abs(values[np.isfinite(values)])
    return float(magnitudes.max()) if magnitudes.size else 0.0


def decimals(top: float) -> int:
    """Places behind the point for values up to `top` so that they fit into a cell."""
    return 3 if top < 1 else 2 if top < 100 else 1


def beside(panels: Sequence[Panel], width: int) -> list[Text]:
    """The panels next to each other as far as they fit into `width` characters, the others below."""
    lines: list[Text] = []
    waiting = list(panels)
    while waiting:
        line = [waiting.pop(0)]
        while waiting and _width([*line, waiting[0]]) <= width:
            line.append(waiting.pop(0))
        lines += _line_of(line)
    return lines


def _width(panels: Sequence[Panel]) -> int:
    return len(INDENT) + sum(panel.width for panel in panels) + len(GAP) * (len(panels) - 1)


def _line_of(panels: Sequence[Panel]) -> list[Text]:
    gap = Text(GAP)
    captions = [Text(f"{panel.title:<{panel.width}}", style="italic") for panel in panels]
    rows = [[panel.row(at) for panel in panels] for at in range(len(panels[0].values))]
    lines = [Text(INDENT) + gap.join(parts) for parts in [captions, *rows]]
    for line in lines:
        line.rstrip()
    return lines


def vector(values: Array, most: int = 12) -> str:
    """'0.12 -0.30 0.00'; the shape of an array that is too long."""
    flat = np.asarray(values).reshape(-1)
    if flat.size > most:
        return " x ".join(map(str, np.shape(values)))
    return " ".join(f"{value + 0.0:.3g}" for value in flat)
