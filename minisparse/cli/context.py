"""What surrounds a command: the screen, thread limits, notes of the kernels, warnings as one line."""

from __future__ import annotations

import logging
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from typing import Any

from minisparse.cli.console import Screen
from minisparse.cli.threads import limited
from minisparse.errors import MinisparseWarning


class _Notes(logging.Handler):
    """Log records of minisparse as notes on the screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.INFO)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self.screen.note(f"minisparse: note: {record.getMessage()}")


@contextmanager
def context(args: Namespace) -> Iterator[None]:
    """Set `args.screen` and everything process-wide that the flags ask for; undo it at the end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a sign is no reason to stop
    args.screen = Screen(args.quiet, not args.no_color)
    with ExitStack() as stack:
        stack.enter_context(_logging(args.screen))
        stack.enter_context(_warnings(args.screen, args.strict))
        if args.threads is not None:
            stack.enter_context(limited(args.threads))
        yield


@contextmanager
def _logging(screen: Screen) -> Iterator[None]:
    log = logging.getLogger("minisparse")
    handler, level = _Notes(screen), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def _warnings(screen: Screen, strict: bool) -> Iterator[None]:
    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        kind = "" if issubclass(category, MinisparseWarning) else f"{category.__name__}: "
        screen.warn(kind + " ".join(str(message).split()))

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.simplefilter("error" if strict else "default", MinisparseWarning)
        # NumPy's floating-point warnings: training itself finds what is not finite, and says where
        warnings.filterwarnings("ignore", ".* encountered in ", RuntimeWarning)
        yield
