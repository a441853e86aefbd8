"""Screen: results to stdout, everything else to stderr, and nothing lost when neither is a terminal."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import Any, Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

PIPE_WIDTH = 1000  # no terminal: rows stay on one line each, for grep and files
MIN_WIDTH = 8  # of a column that must give way on a narrow terminal
QUIET_SECONDS = 10.0
_NUMBER = re.compile(r"|-|x?[-+]?[\d.,]+(e[-+]?\d+)?( [/\u00b1] [\d,.]+)?( ?(%|[kMG]?B?))?")


class _Console(Console):
    """rich ends the process at a broken pipe; here the caller decides."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stderr: bool, color: bool) -> Console:
    made = _Console(
        stderr=stderr, no_color=True if not color else None, markup=False, highlight=False, emoji=False
    )
    if not made.is_terminal:
        made.width = PIPE_WIDTH
    return made


class Screen:
    """Where a command writes. `table`, `line` and `json` are results; `note` and `meter` are not."""

    def __init__(self, quiet: bool = False, color: bool = True) -> None:
        self.quiet = quiet
        self.out = _console(stderr=False, color=color)
        self.err = _console(stderr=True, color=color)

    def line(self, text: str = "") -> None:
        """One line of results."""
        self.out.print(text, soft_wrap=True)

    def heading(self, text: str) -> None:
        """A line that stands out on a terminal."""
        self.out.print(text, style="bold", soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
        """Rows of text under headings; columns of numbers are flush right."""
        body = [list(row) for row in rows]
        if title:
            self.heading(title)
        widths = [max(len(row[at]) for row in [columns, *body]) for at in range(len(columns))]
        gap = 1 if sum(widths) + 2 * len(widths) <= self.out.width else 0
        grid = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False)
        for at, column in enumerate(columns):
            right = all(_NUMBER.fullmatch(row[at]) for row in body)
            justify: Literal["left", "right"] = "right" if right else "left"
            grid.add_column(
                column, justify=justify, overflow="fold", no_wrap=right, min_width=min(widths[at], MIN_WIDTH)
            )
        for row in body:
            grid.add_row(*row)
        self.out.print(grid)

    def json(self, value: Any) -> None:
        """One JSON document."""
        text = json.dumps(plain(value), indent=2, allow_nan=False)
        self.out.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line for the person watching."""
        if not self.quiet:
            self.err.print(text, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A warning; shown also when quiet."""
        self.err.print(f"minisparse: warning: {text}", soft_wrap=True)

    def meter(self, total: float) -> Meter:
        """A progress display of `total` units of work."""
        if self.quiet:
            return Meter(total)
        return Bar(total, self) if self.err.is_terminal else Lines(total, self)


class Meter:
    """Progress that shows nothing; a context manager."""

    def __init__(self, total: float) -> None:
        self.total = total
        self.done = 0.0
        self.start = time.monotonic()

    @property
    def left(self) -> str:
        """Time left in words, if the rest goes as what is done went; nothing before any is done."""
        if not 0 < self.done < self.total:
            return ""
        spent = time.monotonic() - self.start
        return f", {duration(spent * (self.total - self.done) / self.done)} left"

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def move(self, done: float, label: str) -> None:
        """`done` units are complete, and this is under way."""
        self.done = done

    def tell(self, text: str) -> None:
        """A line that stays."""

    def log(self, text: str) -> None:
        """A line for places where nothing else shows how far it is."""


class Lines(Meter):
    """Progress without a terminal: lines that stay, and a sign of life every ten seconds."""

    def __init__(self, total: float, screen: Screen) -> None:
        super().__init__(total)
        self.screen = screen
        self.last = self.start

    def move(self, done: float, label: str) -> None:
        super().move(done, label)
        if time.monotonic() - self.last >= QUIET_SECONDS:
            self.tell(f"{label}: {done / self.total:.0%} done{self.left}")

    def tell(self, text: str) -> None:
        self.last = time.monotonic()
        self.screen.note(text)

    def log(self, text: str) -> None:
        self.tell(text + self.left)


class Bar(Meter):
    """Progress on a terminal."""

    def __init__(self, total: float, screen: Screen) -> None:
        super().__init__(total)
        self.bar = Progress(
            BarColumn(bar_width=24), TaskProgressColumn(), TimeRemainingColumn(compact=True),
            TextColumn("{task.description}", markup=False), console=screen.err, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def move(self, done: float, label: str) -> None:
        super().move(done, label)
        self.bar.update(self.task, completed=done, description=label)

    def tell(self, text: str) -> None:
        self.bar.console.print(text, soft_wrap=True)


def plain(value: Any) -> Any:
    """`value` as what JSON knows: dataclasses and mappings become objects, NaN and infinity null."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value) if isinstance(value, PurePath) else repr(value)


def duration(seconds: float) -> str:
    """'850 ms', '12 s', '3 min 20 s'."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def scaled(number: float, unit: str = "") -> str:
    """'3.9 k', '12.0 M': three or so digits with a decimal prefix."""
    if math.isnan(number):
        return "-"
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.1f} {prefix}{unit}"
    return f"{number:.0f} {unit}".rstrip()


def decimal(number: float, form: str) -> str:
    """The number in this format; '-' where there is none."""
    return "-" if math.isnan(number) else format(number, form)


def percent(share: float) -> str:
    """'97.2 %'; '-' where there is no number."""
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"
