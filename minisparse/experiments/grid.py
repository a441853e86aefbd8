"""Grids: comparisons written down in TOML, those that come with the package and anybody's own.

    title = "What it shows, in a line"
    seeds = 3                          # how many, or which: [0, 1, 7]
    data = "mnist"                     # any part of a RunSpec, for all runs
    epochs = 10

    [[runs]]
    method = ["random", "magnitude"]   # a list anywhere is an axis: every combination is run
    model = ["lenet-300-100", "lenet-5"]
    settings = { sparsity = [0.9, 0.98], schedule = "cubic:begin=0.2,end=0.7" }

Keys of a `[[runs]]` table win over those at the top. Unknown keys are refused with a suggestion.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import resources
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from minisparse.errors import DataFormatError, UsageError, unknown_name
from minisparse.experiments.spec import RunSpec

LARGEST = 1 << 20  # bytes of a file
PARTS = tuple(f.name for f in fields(RunSpec) if f.name not in ("method", "settings", "seed"))
TOP = ("title", "seeds", "runs", *PARTS)
RUNS = ("method", "settings", "seeds", *PARTS)
SETTING = "settings."
KINDS = {"method": str} | {
    f.name: {"str": str, "int": int}[str(f.type)] for f in fields(RunSpec) if f.name in PARTS
}
MOST = 10_000  # runs of a grid, repeated ones counted too


@dataclass(frozen=True)
class Grid:
    """What a grid is about, and its runs, seed by seed."""

    title: str
    specs: tuple[RunSpec, ...]


def shipped() -> dict[str, str]:
    """Name and title of every grid that comes with the package."""
    found = sorted(_folder().iterdir(), key=lambda file: file.name)
    names = [file.name.removesuffix(".toml") for file in found if file.name.endswith(".toml")]
    return {name: str(tomllib.loads(_text(name)).get("title", "")) for name in names}


def load(source: str, seeds: int | tuple[int, ...] | None = None, **parts: Any) -> Grid:
    """The grid of this name, or in the file at this path.

    seeds and parts of a RunSpec given here replace those of every run. DataFormatError for a file that is
    not TOML, UsageError or UnknownNameError for one that is not a grid.
    """
    return parse(_text(source), source, seeds, **parts)


def parse(text: str, source: str = "grid", seeds: int | tuple[int, ...] | None = None, **parts: Any) -> Grid:
    """The same from the text itself; `source` is its name in errors."""
    try:
        facts = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise DataFormatError(f"{source} is not TOML: got {line!r}, expected a grid of runs.") from None
    _known(f"key of {source}", facts, TOP)
    tables = facts.get("runs")
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise UsageError(f"{source} has no runs: got {_short(tables)}, expected one or more [[runs]] tables.")
    shared = {key: value for key, value in facts.items() if key in (*PARTS, "seeds")}
    found: dict[str, RunSpec] = {}
    left = MOST
    for table in tables:
        _known(f"key of [[runs]] in {source}", table, RUNS)
        choices = _choices(source, shared | table | parts, seeds)
        left -= prod(map(len, choices))
        if left < 0:  # found out before the first is made
            raise UsageError(f"{source} is too large: got over {MOST:,} runs, expected at most as many.")
        for spec in _runs(choices):
            found.setdefault(spec.key, spec)
    in_turn = sorted(found.values(), key=lambda spec: spec.seed)
    return Grid(str(facts.get("title", source)), tuple(in_turn))


def _choices(
    source: str, table: Mapping[str, Any], seeds: int | tuple[int, ...] | None
) -> list[list[tuple[str, Any]]]:
    """The axes of a table, each as the pairs (name, value) to choose from; settings as 'settings.<name>'."""
    if "method" not in table:
        raise UsageError(f"[[runs]] in {source} has no method: got none, expected a name or a list of names.")
    settings = table.get("settings", {})
    if not isinstance(settings, dict):
        raise UsageError(f"settings in {source}: got {_short(settings)}, expected a table.")
    named = {key: value for key, value in table.items() if key in ("method", *PARTS)}
    named |= {SETTING + key: value for key, value in settings.items()}
    axes = {key: _axis(source, key, value) for key, value in named.items()}
    axes["seed"] = _seeds(source, table.get("seeds", 1) if seeds is None else seeds)
    return [[(key, value) for value in values] for key, values in axes.items()]


def _runs(choices: list[list[tuple[str, Any]]]) -> Iterator[RunSpec]:
    """Every combination, the seeds fastest."""
    for choice in product(*choices):
        own = tuple((key.removeprefix(SETTING), v) for key, v in choice if key.startswith(SETTING))
        yield RunSpec(settings=own, **{key: v for key, v in choice if not key.startswith(SETTING)})


def _axis(source: str, key: str, value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    kinds = KINDS.get(key, str | int | float | bool)
    wrong = [v for v in values if not isinstance(v, kinds)]
    if not values or wrong:
        raise UsageError(
            f"'{key}' in {source}: got {_short(wrong or value)}, expected {_kind(kinds)} or a list of them."
        )
    return values


def _kind(kinds: Any) -> str:
    return {str: "a text", int: "a whole number"}.get(kinds, "a value")


def _seeds(source: str, value: Any) -> list[int]:
    count = isinstance(value, int) and not isinstance(value, bool)
    numbers = list(range(min(value, MOST + 1))) if count else value
    whole = isinstance(numbers, list | tuple) and all(isinstance(n, int) for n in numbers)
    if not whole or not numbers or any(isinstance(n, bool) or n < 0 for n in numbers):
        raise UsageError(f"seeds in {source}: got {_short(value)}, expected how many, or a list of them.")
    return list(numbers)


def _known(what: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise unknown_name(what, key, known)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _folder() -> Any:
    return resources.files("minisparse.experiments") / "grids"


def _text(source: str) -> str:
    """Content of the shipped grid of this name, or of the file."""
    place = _folder() / f"{source}.toml"
    if source.replace("-", "").isalnum() and place.is_file():
        return place.read_text(encoding="utf-8")
    path = Path(source)
    if path.suffix != ".toml":
        raise unknown_name("grid", source, [f.name.removesuffix(".toml") for f in _folder().iterdir()])
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise DataFormatError(
                f"{source} is too large: got over {LARGEST} bytes, expected a grid of runs."
            )
        return content.decode("utf-8")
    except OSError as error:
        raise DataFormatError(
            f"{source} cannot be read: got {error.strerror}, expected a TOML file."
        ) from None
    except UnicodeDecodeError:
        raise DataFormatError(f"{source} is not text: got other bytes, expected TOML in UTF-8.") from None
