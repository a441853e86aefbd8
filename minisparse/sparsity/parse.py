"""Text <-> schedule, allocation, pattern and control, for the command line and for canonical JSON.

    text     = head [":" settings]           controls: several such joined by "+"
    head     = a name of the registry, or a shorthand such as 2:4
    settings = value (of the first setting) | key=value {"," key=value}

as in ``cubic``, ``cubic:begin=0.1,end=0.8``, ``rounds:5``, ``2:4``, ``block:rows=4,cols=4``,
``explicit:fc1=0.9,fc2=0.5``, ``reinit+shuffle``. `to_text` writes the settings that differ from their
defaults, or all of them on demand; parsing either text gives an equal value back.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, TypeAlias, TypeVar, get_args, get_type_hints

from minisparse.errors import UsageError, unknown_name
from minisparse.sparsity.allocation import (
    ERK,
    Allocation,
    EqualPerLayer,
    ErdosRenyi,
    FirstDense,
    FirstLast,
    Global,
    Uniform,
)
from minisparse.sparsity.control import Combined, Control, Invert, Reinit, Shuffle, Untouched, combine
from minisparse.sparsity.explicit import Explicit
from minisparse.sparsity.pattern import NM, Block, Column, InChannel, Pattern, Row, Unstructured
from minisparse.sparsity.schedule import Cubic, Exponential, Linear, OneShot, Rounds, Schedule, Steady
from minisparse.sparsity.slow_last import SlowLast
from minisparse.sparsity.sparse_init import SparseInit

Axis: TypeAlias = Schedule | Allocation | Pattern | Control
AxisT = TypeVar("AxisT", bound=Schedule | Allocation | Pattern | Control)

SCHEDULES: dict[str, type[Schedule]] = {
    "one-shot": OneShot,
    "rounds": Rounds,
    "linear": Linear,
    "cubic": Cubic,
    "exponential": Exponential,
    "steady": Steady,
}
ALLOCATIONS: dict[str, type[Allocation]] = {
    "global": Global,
    "uniform": Uniform,
    "erdos-renyi": ErdosRenyi,
    "erk": ERK,
    "equal-per-layer": EqualPerLayer,
    "first-dense": FirstDense,
    "first-last": FirstLast,
    "slow-last": SlowLast,
    "explicit": Explicit,
}
PATTERNS: dict[str, type[Pattern]] = {
    "unstructured": Unstructured,
    "nm": NM,
    "block": Block,
    "row": Row,
    "column": Column,
    "in-channel": InChannel,
}
CONTROLS: dict[str, type[Control]] = {
    "none": Untouched,
    "reinit": Reinit,
    "shuffle": Shuffle,
    "invert": Invert,
    "sparse-init": SparseInit,
}


def parse_schedule(text: str) -> Schedule:
    """The schedule that `text` names; UsageError in one line for anything unknown or unusable."""
    return _parse("schedule", text, SCHEDULES)


def parse_allocation(text: str) -> Allocation:
    """The allocation that `text` names; UsageError in one line for anything unknown or unusable."""
    return _parse("allocation", text, ALLOCATIONS)


def parse_pattern(text: str) -> Pattern:
    """The pattern that `text` names; UsageError in one line for anything unknown or unusable."""
    return _parse("pattern", text, PATTERNS)


def parse_control(text: str) -> Control:
    """The control, or the controls joined by '+', that `text` names; UsageError in one line otherwise."""
    parts = text.split("+") if isinstance(text, str) else [text]
    return combine(*(_parse("control", part, CONTROLS) for part in parts))


def to_text(value: Axis, full: bool = False) -> str:
    """Text that parses back to an equal value; `full` also writes the settings left at default.

    UsageError for a value whose class is in no registry.
    """
    if isinstance(value, Combined):
        return "+".join(to_text(part, full) for part in value.parts)
    head = _name_of(value)
    settings: dict[str, str] = {}
    for entry in fields(value):
        setting = getattr(value, entry.name)
        if entry.metadata.get("open"):
            settings |= {key: _write(part) for key, part in setting}
        elif full or entry.default is MISSING or setting != entry.default:
            settings[entry.name] = _write(setting)
    if value.shorthand and not full:
        head = value.shorthand.format_map(vars(value))
        settings = {k: v for k, v in settings.items() if f"{{{k}}}" not in value.shorthand}
    listed = ",".join(f"{key}={text}" for key, text in settings.items())
    return f"{head}:{listed}" if listed else head


def _name_of(value: Any) -> str:
    for registry in (SCHEDULES, ALLOCATIONS, PATTERNS, CONTROLS):
        for name, cls in registry.items():
            if type(value) is cls:
                return name
    raise UsageError(
        f"value has no text form: got {value!r}, expected a schedule, allocation, pattern or control."
    )


def _write(setting: Any) -> str:
    return str(setting).lower() if setting is None or isinstance(setting, bool) else str(setting)


def _parse(kind: str, text: str, registry: Mapping[str, type[AxisT]]) -> AxisT:
    if not isinstance(text, str):
        raise UsageError(f"{kind} is not text: got {text!r}, expected one of {', '.join(registry)}.")
    for name, cls in registry.items():
        match = cls.shorthand and re.fullmatch(_regex(cls.shorthand), text.strip())
        if match:
            given = match.groupdict()
            return _build(kind, name, cls, _settings(kind, name, cls, given.pop("rest"), given))
    head, colon, rest = text.strip().partition(":")
    name = head.strip()
    if name not in registry:
        raise unknown_name(kind, name, registry)
    cls = registry[name]
    return _build(kind, name, cls, _settings(kind, name, cls, rest if colon else None, {}))


def _regex(shorthand: str) -> str:
    """A template such as {keep}:{of} as a pattern with one group per field and the settings."""
    parts = re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(shorthand))
    return rf"{parts}(?::(?P<rest>.*))?"


def _settings(
    kind: str, name: str, cls: type[Any], text: str | None, given: Mapping[str, str]
) -> dict[str, str]:
    """key=value pairs as text, after those `given` by a shorthand; a lone value is the first field's."""
    found = dict(given)
    if text is None:
        return found
    parts = [part.strip() for part in text.split(",")]
    names = [entry.name for entry in fields(cls) if not entry.metadata.get("open")]
    if len(parts) == 1 and parts[0] and "=" not in parts[0] and names and not given:
        return {names[0]: parts[0]}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or not equals or not value or key in found:
            raise UsageError(
                f"setting of {kind} {name!r} cannot be read: got {part!r}, expected key=value, each key once."
            )
        found[key] = value
    return found


def _build(kind: str, name: str, cls: type[AxisT], settings: Mapping[str, str]) -> AxisT:
    hints = get_type_hints(cls)
    known = {entry.name: entry for entry in fields(cls)}
    open_field = next((e.name for e in known.values() if e.metadata.get("open")), None)
    values: dict[str, Any] = {}
    for key, text in settings.items():
        what = f"setting {key!r} of {kind} {name!r}"
        if open_field is not None:
            values.setdefault(open_field, {})[key] = _read(what, text, float)
        elif key in known:
            values[key] = _read(what, text, hints[key])
        else:
            raise unknown_name(f"setting of {kind} {name!r}", key, known)
    return cls(**values)


def _read(what: str, text: str, hint: Any) -> Any:
    """`text` as the annotated type: int, float, bool or str, or none where that is allowed."""
    kinds = get_args(hint) or (hint,)
    if NoneType in kinds and text.lower() == "none":
        return None
    kind = next(k for k in kinds if k is not NoneType)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{what} is not a flag: got {text!r}, expected true or false.")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise UsageError(f"{what} cannot be read: got {text!r}, expected {wanted}.") from None
