"""One method: idea, equations, the lines that compute them, settings, paper, departures, tests.

    minisparse explain rigl
    minisparse explain rigl --trace     train a network of 28 weights, and print every change with its numbers
    minisparse explain MS101            an error code: what it means, its exit status

Functions are quoted from the installed package, with file and line.
"""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from minisparse.cli.arguments import Parser
from minisparse.cli.console import Screen
from minisparse.cli.listing import ROOT, place_of, show_sources, source_of
from minisparse.cli.trace import show_trace
from minisparse.errors import MinisparseError, UnknownNameError, suggestion, unknown_name
from minisparse.experiments.events import as_data
from minisparse.experiments.miniature import demonstration
from minisparse.experiments.settings import fields_of
from minisparse.experiments.trace import trace
from minisparse.methods.registry import Entry, catalogue, find


def add_arguments(parser: Parser) -> None:
    """The name of a method, or a code; whether to show the method at work."""
    parser.add_argument("name", metavar="METHOD", help="a method's name, or an error code such as MS101")
    parser.add_argument(
        "--trace", action="store_true", help="train a tiny network and print all that the method does to it"
    )


def run(args: Namespace) -> int:
    """Explain a method or an error code."""
    name = args.name
    show: Callable[[Screen, dict[str, Any]], None]
    if args.trace:
        args.screen.quiet = True  # what a method notes about large problems is noise here
        watched = trace(demonstration(find(name).cls), args.seed)
        facts = {"name": name, "idea": find(name).idea} | as_data(watched)
        show = partial(show_trace, trace=watched)
    elif name.upper() in codes():
        facts, show = explain_code(codes()[name.upper()]), show_code
    elif name in catalogue():
        facts, show = explain_method(catalogue()[name]), show_method
    elif name.upper().startswith("MS") and name[2:].isdigit():
        raise unknown_name("error code", name.upper(), codes())
    else:
        raise UnknownNameError(
            f"unknown method {name!r}: got {name!r}, expected a method or an error code. "
            f"{suggestion(name, catalogue())}See: minisparse list methods"
        )
    if args.json:
        args.screen.json(facts)
    else:
        show(args.screen, facts)
    return 0


def codes() -> dict[str, type[MinisparseError]]:
    """Every error class by its code."""
    found = {MinisparseError.code: MinisparseError}
    waiting = [MinisparseError]
    while waiting:
        below = waiting.pop().__subclasses__()
        found |= {cls.code: cls for cls in below if "code" in vars(cls)}
        waiting += below
    return dict(sorted(found.items()))


def explain_code(cls: type[MinisparseError]) -> dict[str, Any]:
    """Code, class, meaning and exit status."""
    text = inspect.getdoc(cls) or ""
    return {"code": cls.code, "error": cls.__name__, "meaning": text, "exit_status": cls.exit_status}


def show_code(screen: Screen, facts: dict[str, Any]) -> None:
    """Print what `explain_code` found."""
    screen.heading(f"{facts['code']}  {facts['error']}")
    screen.line(facts["meaning"])
    screen.line(f"Exit status of the command line: {facts['exit_status']}")
    screen.line(f"In Python: minisparse.errors.{facts['error']}")


def explain_method(entry: Entry) -> dict[str, Any]:
    """All that is known of a method, as plain data."""
    module = import_module(entry.cls.__module__)
    body, departures = sections(inspect.getdoc(module) or "")
    return {
        "name": entry.name,
        "family": entry.family,
        "idea": entry.idea,
        "paper": entry.paper,
        "text": body,
        "departures": departures,
        "file": place_of(module.__file__ or ""),
        "functions": [source_of(name, f) for name, f in functions(module)],
        "hooks": [source_of(f"{entry.cls.__name__}.{name}", f) for name, f in hooks(entry.cls)],
        "settings": [
            {"name": s.name, "default": s.text, "help": s.help} for s in fields_of(entry.cls)
        ],
        "tests": [place_of(str(path)) for path in tests(entry, module)],
        "command": f"minisparse run {entry.name} --model lenet-300-100 --data digits --seed 0",
    }  # fmt: skip


def sections(docstring: str) -> tuple[str, str]:
    """(reference and equations, departures) of a module's docstring without its first line."""
    paragraphs = docstring.partition("\n")[2].strip("\n").split("\n\n")
    apart = [p for p in paragraphs if p.startswith("Departure")]
    rest = [p for p in paragraphs if not p.startswith("Departure")]
    return "\n\n".join(rest), "\n\n".join(apart)


def functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """The public functions a module defines itself, in the order of its lines."""
    own = [
        (name, f)
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and not name.startswith("_")
    ]
    yield from sorted(own, key=lambda pair: pair[1].__code__.co_firstlineno)


def hooks(cls: type) -> Iterator[tuple[str, FunctionType]]:
    """The public methods a class defines itself: where the functions enter training."""
    for name, f in vars(cls).items():
        # dataclass adds functions of its own, without a file
        if inspect.isfunction(f) and not name.startswith("_") and f.__module__ == cls.__module__:
            yield name, f


def tests(entry: Entry, module: ModuleType) -> list[Path]:
    """Test files of a method, when the checkout with tests is there."""
    stems = {entry.name.replace("-", "_"), module.__name__.rpartition(".")[2].strip("_")}
    paths = (ROOT / "tests" / "methods" / f"test_{stem}.py" for stem in sorted(stems))
    return [path for path in paths if path.is_file()]


def show_method(screen: Screen, facts: dict[str, Any]) -> None:
    """Print what `explain_method` found."""
    screen.heading(f"{facts['name']}  ({facts['family']})")
    screen.line(facts["idea"])
    screen.line()
    screen.line(facts["text"] or "(no further text)")
    if facts["departures"]:
        screen.line(f"\n{facts['departures']}")
    for title, part in (("The lines that compute it", "functions"), ("Where they enter training", "hooks")):
        if facts[part]:
            screen.line()
            screen.heading(title)
        show_sources(screen, facts[part])
    screen.line()
    if facts["settings"]:
        rows = [[s["name"], s["default"], s["help"]] for s in facts["settings"]]
        screen.table(["setting", "default", "meaning"], rows, title="Settings")
    screen.line(f"Paper:   {facts['paper']}")
    screen.line(f"File:    {facts['file']}")
    screen.line(f"Tests:   {', '.join(facts['tests']) or 'not in this installation'}")
    screen.line(f"Run it:  {facts['command']}")
    screen.line(f"See it:  minisparse explain {facts['name']} --trace")
