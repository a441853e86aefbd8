"""Measured times on this machine: median and quartiles, next to other ways to do the same work."""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from minisparse.cli.arguments import Parser
from minisparse.cli.flags import choice
from minisparse.cli.threads import most_threads
from minisparse.errors import UsageError

# Each module has `records(threads: tuple[int, ...], quick: bool) -> list[dict]`, one dict per row; rows that
# follow each other with the same keys in the same order are a table. Its docstring's first line is the title.
# A module that also writes files has `report(rows, folder, quick)`: ([(title, rows of a table)], [paths]).
BENCHES = {
    "train": "minisparse.experiments.bench_train",
    "kernels": "minisparse.experiments.bench_kernels",
    "curvature": "minisparse.experiments.bench_curvature",
    "dynamic": "minisparse.experiments.dynamic_scale",
    "srigl": "minisparse.experiments.srigl_speed",
}


def add_arguments(parser: Parser) -> None:
    """What to measure."""
    parser.value(
        "what", read=choice("benchmark", list(BENCHES)), nargs="?",
        metavar="WHAT", help=f"one of {', '.join(BENCHES)} (default: all there are)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: rough figures")


def run(args: Namespace) -> int:
    """Measure, and print one table per benchmark."""
    present = [name for name, module in BENCHES.items() if find_spec(module) is not None]
    if args.what is not None and args.what not in present:
        raise UsageError(
            f"benchmark '{args.what}' is not in this version: got none of it, "
            f"expected one of {', '.join(present)}."
        )
    found: dict[str, list[dict[str, Any]]] = {}
    for name in [args.what] if args.what else present:
        args.screen.note(f"measuring {name} (other programs disturb the figures)")
        module = import_module(BENCHES[name])
        found[name] = module.records(thread_counts(args.threads), args.quick)
        tables, files = [((module.__doc__ or name).partition("\n")[0], found[name])], []
        if hasattr(module, "report"):
            tables, files = module.report(found[name], Path(args.out) / f"bench-{name}", args.quick)
        for title, rows in [] if args.json else tables:
            show(args.screen, title, rows)
        for path in files[:1]:
            args.screen.note(f"page, plots and JSON: {path}")
    if args.json:
        args.screen.json(found[args.what] if args.what else found)
    return 0


def thread_counts(asked: int | None) -> tuple[int, ...]:
    """The number asked for; else 1, and 2 where there are two processors."""
    if asked is not None:
        return (asked,)
    return (1, 2) if most_threads() > 1 else (1,)


def show(screen: Any, title: str, rows: list[dict[str, Any]]) -> None:
    """Tables whose columns are the keys of their rows; rows with other keys begin another table."""
    for columns, own in groupby(rows, key=list):
        body = [[cell(row[name]) for name in columns] for row in own]
        screen.table([name.replace("_", " ") for name in columns], body, title=title)
        title = ""


def cell(value: Any) -> str:
    """Three significant digits; '-' for nothing."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
