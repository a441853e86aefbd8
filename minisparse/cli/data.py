"""Data sets: list them, fetch the public ones, verify what is on disk."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from minisparse.cli.arguments import Parser
from minisparse.cli.console import Meter, scaled
from minisparse.cli.flags import choice
from minisparse.data import available, registry
from minisparse.data.download import REMOTES, get, verify
from minisparse.errors import DataFormatError, UsageError

ACTIONS = ("list", "get", "verify")


def add_arguments(parser: Parser) -> None:
    """What to do, and with which data sets."""
    parser.value(
        "action", read=choice("action", ACTIONS), nargs="?", default="list",
        metavar="ACTION", help="list (the default), get or verify",
    )  # fmt: skip
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="data sets; verify: default all that are found"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder of data sets (or MINISPARSE_DATA)")


def run(args: Namespace) -> int:
    """Do it for each name."""
    rows = {"list": list_, "get": fetch, "verify": check}[args.action](args)
    if args.json:
        args.screen.json(rows)
    else:
        columns = list(rows[0])
        args.screen.table(columns, [[str(row[name]) for name in columns] for row in rows])
    return 0


def list_(args: Namespace) -> list[dict[str, Any]]:
    """Every data set (or those named): what it is and where it is."""
    known = available()
    for name in args.names:
        choice("data set", list(known))(name)
    names = args.names or list(known)
    return [{"name": name, "idea": known[name], "where": where(name, args.data_dir)} for name in names]


def where(name: str, data_dir: str | None) -> str:
    """Folder of a data set, 'in the package' for one that needs no files, or 'not found'."""
    if name not in registry.FILES:
        return "in the package"
    try:
        return str(registry.find(name, data_dir))
    except DataFormatError:
        return "not found"


def fetch(args: Namespace) -> list[dict[str, Any]]:
    """Download what is missing of each data set named."""
    if not args.names:
        raise UsageError(f"data set to fetch: got none, expected one of {', '.join(REMOTES)}.")
    rows = []
    for name in args.names:
        total = sum(remote.size for remote in REMOTES.get(name, ()))
        with args.screen.meter(max(1, total)) as meter:
            folder = get(name, args.data_dir, _Received(meter))
        rows.append({"name": name, "folder": str(folder), "size": scaled(total, "B")})
    return rows


class _Received:
    """Adds the bytes of one file after the other."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.sizes: dict[str, int] = {}

    def __call__(self, name: str, so_far: int, size: int) -> None:
        self.sizes[name] = so_far
        self.meter.move(sum(self.sizes.values()), name)


def check(args: Namespace) -> list[dict[str, Any]]:
    """Read each data set completely; DataFormatError at the first that is missing or damaged."""
    names = args.names or [n for n in available() if where(n, args.data_dir) != "not found"]
    rows = []
    for name in names:
        found = verify(name, args.data_dir)
        same = all(file.published for file in found.files)
        rows.append(
            {
                "name": name,
                "train": found.n_train,
                "test": found.n_test,
                "files": len(found.files),
                "bytes": sum(file.size for file in found.files),
                "state": "intact" if same else "intact, compressed anew",
            }
        )
    return rows
