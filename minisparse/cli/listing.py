"""Functions with their place and their lines, as `explain` quotes them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import CodeType, FunctionType

import minisparse
from minisparse.cli.console import Screen

ROOT = Path(minisparse.__file__).parent.parent


def place_of(path: str) -> str:
    """A path relative to the folder that holds the package."""
    place = Path(path)
    return place.relative_to(ROOT).as_posix() if place.is_relative_to(ROOT) else place.name


def source_of(name: str, function: FunctionType | CodeType) -> dict[str, str]:
    """Name, place and source of a function."""
    lines, first = inspect.getsourcelines(function)
    text = inspect.cleandoc("\n" + "".join(lines))
    place = f"{place_of(inspect.getsourcefile(function) or '')}:{first}"
    return {"name": name, "place": place, "source": text}


def show_sources(screen: Screen, entries: Iterable[Mapping[str, str]]) -> None:
    """Print what `source_of` found."""
    for entry in entries:
        screen.line(f"\n{entry['place']}  {entry['name']}")
        screen.line("\n".join(f"    {line}".rstrip() for line in entry["source"].splitlines()))
