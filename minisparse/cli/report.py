"""A report page with plots of stored runs; without RUN, the list of what is stored."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from minisparse.cli.arguments import Parser
from minisparse.cli.console import percent
from minisparse.cli.pages import write_page
from minisparse.cli.stored import open_store, outcomes
from minisparse.experiments.runner import Outcome


def add_arguments(parser: Parser) -> None:
    """Which runs."""
    parser.add_argument("runs", metavar="RUN", nargs="*", help="starts of runs' keys, or all")
    parser.add_argument("--title", default="minisparse: stored runs", help="title of the page")


def run(args: Namespace) -> int:
    """List the store, or write the page and print its path."""
    found = outcomes(args.runs or ["all"], args.out)
    if not args.runs:
        return show(args, found)
    with open_store(args.out) as store:
        page = write_page(args.screen, found, store, args.title)
    if args.json:
        args.screen.json({"report": page, "plots": sorted(page.parent.glob("plots/*.png"))})
    else:
        args.screen.line(f"report: {page}\nplots:  {Path(page).parent / 'plots'}")
    return 0


def show(args: Namespace, found: list[Outcome]) -> int:
    """Key, label, status and accuracy of every run."""
    if args.json:
        args.screen.json([{"key": outcome.spec.key, **outcome.to_json()} for outcome in found])
        return 0
    rows = [[o.spec.key, o.spec.label, o.status, percent(o.accuracy)] for o in found]
    args.screen.table(["run", "what", "status", "accuracy"], rows, title=f"{len(found)} runs in {args.out}")
    args.screen.note("A page of them: minisparse report all")
    return 0
