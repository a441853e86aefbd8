"""What there is: methods, models, data sets, and the values that their settings take."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from inspect import getdoc, signature

from minisparse.cli.arguments import Parser
from minisparse.cli.flags import choice
from minisparse.data import available
from minisparse.errors import MinisparseError
from minisparse.experiments.grid import shipped
from minisparse.experiments.settings import write
from minisparse.methods.registry import catalogue
from minisparse.nn.init import INITIALIZERS
from minisparse.nn.lr import RATES
from minisparse.nn.models import PLANS
from minisparse.nn.optim import OPTIMIZERS
from minisparse.sparsity.parse import ALLOCATIONS, CONTROLS, PATTERNS, SCHEDULES
from minisparse.weights.formats import FORMATS

Rows = list[dict[str, str]]
MASKED = "dense matrix and Boolean mask: every zero is stored; what training uses"


def methods() -> Rows:
    """Name, family, idea and paper of every method."""
    return [
        {"name": name, "family": entry.family, "idea": entry.idea, "paper": entry.paper}
        for name, entry in catalogue().items()
    ]


def models() -> Rows:
    """Every model, with what it is."""
    return [{"name": name, "idea": text} for name, (text, _) in PLANS.items()]


def data() -> Rows:
    """Every data set, with what it is."""
    return [{"name": name, "idea": text} for name, text in available().items()]


def formats() -> Rows:
    """Ways to store a weight."""
    rows = [{"name": "masked", "idea": MASKED}]
    return rows + [{"name": name, "idea": first_line(cls)} for name, cls in FORMATS.items()]


def first_line(thing: object) -> str:
    """First line of a docstring."""
    return (getdoc(thing) or "").partition("\n")[0]


def _settings(cls: type) -> str:
    """'begin=0.2,end=0.7': the settings of a class with their defaults."""
    parts = []
    for name, parameter in signature(cls).parameters.items():
        required = parameter.default is parameter.empty
        parts.append(name if required else f"{name}={_default(parameter.default)}")
    return ",".join(parts)


def _default(value: object) -> str:
    try:
        return write(value)  # type: ignore[arg-type]
    except MinisparseError:
        return repr(value)


def _classes(known: Mapping[str, type]) -> Callable[[], Rows]:
    return lambda: [
        {"name": name, "idea": first_line(cls), "settings": _settings(cls)} for name, cls in known.items()
    ]


LISTS: dict[str, Callable[[], Rows]] = {
    "methods": methods,
    "models": models,
    "data": data,
    "schedules": _classes(SCHEDULES),
    "allocations": _classes(ALLOCATIONS),
    "patterns": _classes(PATTERNS),
    "controls": _classes(CONTROLS),
    "formats": formats,
    "optimizers": _classes(OPTIMIZERS),
    "rates": _classes(RATES),
    "grids": lambda: [{"name": name, "idea": title} for name, title in shipped().items()],
    "initializers": lambda: [{"name": name, "idea": first_line(f)} for name, f in INITIALIZERS.items()],
}


def add_arguments(parser: Parser) -> None:
    """Which list."""
    parser.value(
        "what", read=choice("list", list(LISTS)), nargs="?", default="methods",
        metavar="WHAT", help=f"one of {', '.join(LISTS)} (%(default)s)",
    )  # fmt: skip


def run(args: Namespace) -> int:
    """Print one list."""
    rows = LISTS[args.what]()
    if args.json:
        args.screen.json(rows)
        return 0
    columns = list(rows[0])
    args.screen.table(columns, [[row[name] for name in columns] for row in rows], title=args.what)
    others = ", ".join(name for name in LISTS if name != args.what)
    args.screen.note(f"Other lists: {others}. More on a method: minisparse explain NAME")
    return 0
