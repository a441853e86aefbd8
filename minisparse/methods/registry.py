"""The catalogue of methods. Adding a file below `minisparse.methods` is all it takes to extend it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from minisparse.errors import UsageError, unknown_name
from minisparse.methods.base import Method


@dataclass(frozen=True)
class Entry:
    """What is known of a method: its class, family, one-line idea and reference."""

    name: str
    cls: type[Method]
    family: str
    paper: str

    @property
    def idea(self) -> str:
        """First line of the module's docstring."""
        return (import_module(self.cls.__module__).__doc__ or "").strip().splitlines()[0]


_ENTRIES: dict[str, Entry] = {}


def register(name: str, *, family: str, paper: str) -> Callable[[type[Method]], type[Method]]:
    """Class decorator. Raises UsageError if the name is taken by another class."""

    def add(cls: type[Method]) -> type[Method]:
        known = _ENTRIES.get(name)
        if known is not None and known.cls.__qualname__ != cls.__qualname__:
            raise UsageError(
                f"method name {name!r}: got {cls.__name__}, expected a name not taken by "
                f"{known.cls.__name__}."
            )
        _ENTRIES[name] = Entry(name, cls, family, paper)
        return cls

    return add


@cache
def _load() -> None:
    package = import_module("minisparse.methods")
    for module in pkgutil.walk_packages(package.__path__, "minisparse.methods."):
        import_module(module.name)


def catalogue() -> dict[str, Entry]:
    """Every registered method by name, in alphabetical order."""
    _load()
    return dict(sorted(_ENTRIES.items()))


def classes() -> dict[str, type[Method]]:
    """Every method class by class name, so that `minisparse.RigL` works."""
    return {entry.cls.__name__: entry.cls for entry in catalogue().values()}


def find(name: str) -> Entry:
    """The entry of this name. Raises UnknownNameError with the closest one."""
    known = catalogue()
    if name not in known:
        raise unknown_name("method", name, known)
    return known[name]
