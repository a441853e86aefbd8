"""Text <-> the settings of methods, optimisers and learning rates, for flags and canonical JSON.

Everything with settings is written ``name`` or ``name:key=value,key=value``; a lone value belongs to the
first setting. Numbers are written so that they read back equal, flags as true and false (yes and no are
read too), lists with slashes (``milestones=0.5/0.75``), schedules, allocations, patterns and controls as in
`minisparse.sparsity.parse`. The type of a setting is the annotation of its field or argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from minisparse.errors import UsageError, unknown_name
from minisparse.methods.base import Method
from minisparse.methods.registry import find
from minisparse.nn.lr import RATES, Rate
from minisparse.nn.optim import OPTIMIZERS, Optimizer
from minisparse.sparsity.allocation import Allocation
from minisparse.sparsity.control import Control
from minisparse.sparsity.parse import (
    parse_allocation,
    parse_control,
    parse_pattern,
    parse_schedule,
    to_text,
)
from minisparse.sparsity.pattern import Pattern
from minisparse.sparsity.schedule import Schedule

Value = str | int | float | bool | Schedule | Allocation | Pattern | Control | tuple[Any, ...] | None
FLAGS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Setting:
    """One field of a method: its annotation, its default, and a line of help."""

    name: str
    type: Any
    default: Any
    help: str

    @property
    def text(self) -> str:
        """The default as it would be typed."""
        return write(self.default)

    @property
    def expects(self) -> str:
        """What a value must be, in words."""
        return expects(self.type)


def fields_of(cls: type[Method]) -> list[Setting]:
    """The settings of a method class, in the order of its fields."""
    hints = get_type_hints(cls)
    found = [f for f in fields(cls) if f.init]
    return [Setting(f.name, hints[f.name], f.default, f.metadata.get("help", "")) for f in found]


def build_method(name: str, settings: Mapping[str, Value]) -> Method:
    """The method of this name with these settings, given as text or as values.

    UnknownNameError for a name or a setting that does not exist, UsageError for an unusable value.
    """
    cls = find(name).cls
    return _build(f"method '{name}'", cls, settings)


def settings_of(method: Method) -> dict[str, str]:
    """The settings that differ from their defaults, as text that `build_method` reads back."""
    return _changed(type(method), lambda key: getattr(method, key))


def parse_optimizer(text: str) -> Optimizer:
    """The optimiser of a text such as ``sgd:momentum=0.9,nesterov=true``; UsageError otherwise."""
    return _parse("optimizer", text, OPTIMIZERS)


def parse_rate(text: str) -> Rate:
    """The learning rate of a text such as ``cosine:lr=0.1,warmup=0.05``; UsageError otherwise."""
    return _parse("learning rate", text, RATES)


def canonical_optimizer(text: str) -> str:
    """The one text of this optimiser: its first setting, and the others that are not at default."""
    return _canonical("optimizer", text, OPTIMIZERS)


def canonical_rate(text: str) -> str:
    """The one text of this learning rate: as for optimisers."""
    return _canonical("learning rate", text, RATES)


def write(value: Value) -> str:
    """A setting's value as text. UsageError for a value that has none."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Schedule | Allocation | Pattern | Control):
        return to_text(value)
    if isinstance(value, tuple | list):
        return "/".join(write(part) for part in value)
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, str):
        return value
    raise UsageError(f"setting has no text form: got {value!r}, expected a number, flag or text.")


def expects(hint: Any) -> str:
    """An annotation in words."""
    if get_origin(hint) is tuple:
        return f"{expects(get_args(hint)[0])}, several joined by '/'"
    if get_args(hint):
        return " or ".join(expects(part) for part in get_args(hint))
    return WORDS.get(hint, "a value that cannot be typed")


def read(what: str, text: str, hint: Any) -> Any:
    """`text` as the annotated type; of a union, the first that can read it. UsageError, naming `what`."""
    if get_origin(hint) is tuple:
        part = get_args(hint)[0]
        return tuple(read(what, piece, part) for piece in text.replace(",", "/").split("/") if piece.strip())
    error: UsageError | None = None
    for kind in get_args(hint) or (hint,):
        try:
            return READERS[kind](text.strip())
        except UsageError as complaint:
            error = type(complaint)(f"{what}: {complaint}")
        except (ValueError, KeyError, OverflowError):
            pass
    raise error or UsageError(f"{what} cannot be read: got {text!r}, expected {expects(hint)}.")


def _number(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError
    return value + 0.0


READERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: _number,
    bool: lambda text: FLAGS[text.lower()],
    str: str,
    NoneType: lambda text: {"none": None}[text.lower()],
    Schedule: parse_schedule,
    Allocation: parse_allocation,
    Pattern: parse_pattern,
    Control: parse_control,
}
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "none",
    Schedule: "a schedule",
    Allocation: "an allocation",
    Pattern: "a pattern",
    Control: "a control",
}


def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls if is_dataclass(cls) else cls.__init__)  # type: ignore[misc]


def _arguments(cls: type) -> dict[str, Any]:
    """Names and defaults of what the class is called with."""
    return {name: p.default for name, p in inspect.signature(cls).parameters.items()}


def _build(what: str, cls: type, settings: Mapping[str, Value]) -> Any:
    known, hints = _arguments(cls), _hints(cls)
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise unknown_name(f"setting of {what}", key, known)
        values[key] = read(f"setting '{key}' of {what}", write(value), hints[key])
    return cls(**values)


def _changed(cls: type, value_of: Callable[[str], Any]) -> dict[str, str]:
    known = _arguments(cls)
    return {key: write(value_of(key)) for key in sorted(known) if value_of(key) != known[key]}


def _parts(kind: str, text: str, registry: Mapping[str, type]) -> tuple[str, dict[str, str]]:
    """Name and key=value pairs of ``name:key=value,key=value``."""
    if not isinstance(text, str):
        raise UsageError(f"{kind} is not text: got {text!r}, expected one of {', '.join(registry)}.")
    name, colon, rest = text.strip().partition(":")
    if name not in registry:
        raise unknown_name(kind, name, registry)
    if not colon:
        return name, {}
    if "=" not in rest and "," not in rest and rest.strip():
        return name, {next(iter(_arguments(registry[name]))): rest}
    found: dict[str, str] = {}
    for part in rest.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or not equals or not value or key in found:
            raise UsageError(
                f"setting of {kind} '{name}' cannot be read: got {part!r}, expected key=value, each key once."
            )
        found[key] = value
    return name, found


def _parse(kind: str, text: str, registry: Mapping[str, type]) -> Any:
    name, settings = _parts(kind, text, registry)
    return _build(f"{kind} '{name}'", registry[name], settings)


def _canonical(kind: str, text: str, registry: Mapping[str, type]) -> str:
    """The first setting always (it is the one people look for), the others where not at default."""
    name, _ = _parts(kind, text, registry)
    value, cls = _parse(kind, text, registry), registry[name]
    first = next(iter(_arguments(cls)))
    shown = {first: write(getattr(value, first))} | _changed(cls, lambda key: getattr(value, key))
    return f"{name}:{','.join(f'{key}={shown[key]}' for key in shown)}"
