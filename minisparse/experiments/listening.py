"""What a method's functions do while it runs, heard through the interpreter's profile hook.

The interpreter calls `sys.setprofile`'s function wherever a Python function begins or ends. Nothing that is
computed changes; what is heard are names, and three kinds of numbers:

    functions of minisparse.methods and minisparse.weights, and of the method's own module: how often they ran
    what the method's `score` returned
    `sparsity.count.kept_count` asked for the whole network: a sparsity, and the count it means

Functions that kernels compile are not Python functions any more and are not heard.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import numpy as np

from minisparse.methods.base import Method
from minisparse.nn.param import Array
from minisparse.sparsity.count import kept_count

PLACES = ("minisparse.methods.", "minisparse.weights.")
SCAFFOLD = ("minisparse.methods.base", "minisparse.methods.registry", "minisparse.weights.reparametrised")
EQUATIONS = re.compile(r"[Ee]quations?\s+(\(\d+\)(?:(?:,| and| or| to|-)\s*\(\d+\))*)")


@dataclass(frozen=True)
class Line:
    """A function that ran: its name in its module, and the equations its docstring names."""

    name: str
    module: str
    code: CodeType
    equations: str

    @property
    def place(self) -> str:
        """'rigl.py:39'."""
        return f"{Path(self.code.co_filename).name}:{self.code.co_firstlineno}"


@dataclass(frozen=True)
class Asked:
    """A sparsity of the whole network, and the number of weights it leaves."""

    sparsity: float
    kept: int


def equations_of(docstring: str) -> str:
    """'(1), (2)': the numbers behind the first 'equation' of a docstring; '' if there are none."""
    found = EQUATIONS.search(" ".join(docstring.split()))
    return found[1] if found else ""


@dataclass
class Heard:
    """What was heard in one stretch: functions in the order of their first call, last scores, last count."""

    ran: dict[CodeType, None] = field(default_factory=dict)
    scores: dict[str, Array] = field(default_factory=dict)
    asked: Asked | None = None

    def then(self, later: Heard) -> Heard:
        """Both stretches as one; scores and count are those that led to what happened: the earlier ones."""
        return Heard(self.ran | later.ran, self.scores or later.scores, self.asked or later.asked)


class Listener:
    """Hears one method on a network of `size` prunable weights, inside `with listener.listening()`."""

    def __init__(self, method: Method, size: int) -> None:
        self.method = method
        self.size = size
        self.calls: dict[CodeType, int] = {}
        self.modules: dict[CodeType, str] = {}
        self.deaf = 0
        self.scoring = _codes(type(method), "score")
        self.forget()

    def forget(self) -> None:
        """Begin a new stretch."""
        self.heard = Heard()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what runs in this thread; whoever listened before does so again afterwards."""
        before = sys.getprofile()
        sys.setprofile(self._hear)
        try:
            yield
        finally:
            sys.setprofile(before)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Hear nothing for a while."""
        self.deaf += 1
        try:
            yield
        finally:
            self.deaf -= 1

    def _hear(self, frame: FrameType, event: str, value: Any) -> None:
        if self.deaf:
            return
        code = frame.f_code
        if event == "call":
            module = frame.f_globals.get("__name__", "")
            if self._concerns(module) and "<" not in code.co_qualname and code.co_name[0] != "_":
                self.calls[code] = self.calls.get(code, 0) + 1
                self.modules[code] = module
                self.heard.ran[code] = None
        elif event == "return" and code is kept_count.__code__:
            given = frame.f_locals
            if given["size"] == self.size and value is not None:
                self.heard.asked = Asked(float(given["sparsity"]), int(value))
        elif event == "return" and code in self.scoring and isinstance(value, dict):
            self._hear_scores(frame, value)

    def _hear_scores(self, frame: FrameType, value: Mapping[Any, Array]) -> None:
        if frame.f_locals.get("self") is self.method:
            self.heard.scores = {getattr(k, "name", k): np.array(v) for k, v in value.items()}

    def _concerns(self, module: str) -> bool:
        own = module == type(self.method).__module__
        return own or (module.startswith(PLACES) and module not in SCAFFOLD)

    def line(self, code: CodeType) -> Line:
        """What is known of a function that ran."""
        module = self.modules[code]
        held: Any = sys.modules.get(module)
        try:
            docstring = reduce(getattr, code.co_qualname.split("."), held).__doc__ or ""
        except AttributeError:  # made on the fly, by no name of the module
            docstring = ""
        numbers = equations_of(docstring)
        return Line(code.co_qualname, module, code, numbers)


def _codes(cls: type, name: str) -> set[CodeType]:
    """The functions of this name in a class and its bases."""
    found = (vars(base).get(name) for base in cls.__mro__)
    return {f.__code__ for f in found if isinstance(f, FunctionType)}
