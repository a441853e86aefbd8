"""Flags that several commands share, and readers of their values."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import inf
from typing import Any

from minisparse.cli.arguments import Parser, Reader
from minisparse.errors import UsageError, unknown_name
from minisparse.sparsity.count import check_sparsity

DEFAULT_OUT = "minisparse-runs"


def add_global(parser: Parser) -> None:
    """The flags every verb has."""
    group = parser.add_argument_group("flags of every command")
    group.add_argument("--out", metavar="DIR", default=DEFAULT_OUT, help="folder of results (%(default)s)")
    parser.value("--seed", read=whole("seed", 0), group=group, metavar="N", default=0, help="first seed (0)")
    parser.value(
        "--threads", read=whole("threads", 1), group=group, metavar="N",
        help="threads of BLAS and of the kernels (default: left to the libraries)",
    )  # fmt: skip
    for flag, text in (
        ("--json", "results as JSON"),
        ("--no-color", "no colours; the variable NO_COLOR does the same"),
        ("--debug", "show the traceback of an error"),
        ("--strict", "exit with 1 when a run collapsed or diverged; warnings are errors"),
    ):
        group.add_argument(flag, action="store_true", help=text)
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes")


def add_training(parser: Parser) -> None:
    """The flags that describe a training; left out, each has the default of RunSpec."""
    group = parser.add_argument_group("training")
    for flag, text in (
        ("--model", "see: minisparse list models"),
        ("--data", "see: minisparse list data"),
        ("--optimizer", "e.g. sgd:momentum=0.9,weight_decay=0.0001; see: minisparse list optimizers"),
        ("--rate", "learning rate, e.g. cosine:lr=0.1,warmup=0.05; see: minisparse list rates"),
        ("--init", "see: minisparse list initializers"),
        ("--storage", "train sparse layers in this format, e.g. csr; see: minisparse list formats"),
    ):
        group.add_argument(flag, metavar="NAME", default=argparse.SUPPRESS, help=text)
    for name, text in (("epochs", "length of one training"), ("batch", "samples of a step")):
        read = whole(name, 1)
        parser.value(f"--{name}", read=read, group=group, metavar="N", default=argparse.SUPPRESS, help=text)
    parser.value(
        "--lr", read=positive("lr"), group=group, metavar="X",
        help="largest learning rate; short for --rate cosine:lr=X",
    )  # fmt: skip
    group.add_argument("--data-dir", metavar="DIR", help="folder of data sets (or MINISPARSE_DATA)")


def training_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a RunSpec that were given as flags."""
    names = ("model", "data", "optimizer", "rate", "init", "storage", "epochs", "batch")
    found = {name: getattr(args, name) for name in names if hasattr(args, name)}
    if args.lr is not None:
        kind = found.get("rate", "cosine")
        if "lr=" in kind:
            raise UsageError(
                f"learning rate given twice: got --lr {args.lr:g} and --rate {kind}, expected one."
            )
        found["rate"] = f"{kind}{',' if ':' in kind else ':'}lr={args.lr!r}"
    return found


def whole(name: str, least: int) -> Reader:
    """Reads a whole number of at least `least`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise UsageError(f"{name}: got {text!r}, expected a whole number >= {least}.")
        return number

    return read


def positive(name: str) -> Reader:
    """Reads a finite number above 0."""

    def read(text: str) -> float:
        number = _number(text)
        if number is None or not 0 < number < inf:
            raise UsageError(f"{name}: got {text!r}, expected a finite number > 0.")
        return number

    return read


def sparsity(text: str) -> float:
    """Reads a number in [0, 1); SparsityError otherwise."""
    number = _number(text)
    return check_sparsity(text if number is None else number)


def choice(kind: str, known: Sequence[str]) -> Reader:
    """Reads one of the known names; UnknownNameError, with the closest one, otherwise."""

    def read(text: str) -> str:
        if text not in known:
            raise unknown_name(kind, text, known)
        return text

    return read


def several(name: str, read: Reader) -> Reader:
    """Reads values joined by commas, each once, at least one."""

    def read_all(text: str) -> tuple[Any, ...]:
        values = tuple(read(part.strip()) for part in text.split(",") if part.strip())
        if not values:
            raise UsageError(f"{name}: got {text!r}, expected values joined by commas.")
        if len(set(values)) < len(values):
            raise UsageError(f"{name}: got {text!r}, expected each value once.")
        return values

    return read_all


def seeds(text: str) -> int | tuple[int, ...]:
    """Reads how many seeds ('3'), or which ('0,1,7'; one alone: '7,')."""
    return several("seeds", whole("seeds", 0))(text) if "," in text else whole("seeds", 1)(text)


def _number(text: str) -> float | None:
    """The number, whole where it is typed so: an error line shows it as it was typed."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None
