"""A disk that fails: every system call of a save in turn, with every error that a disk gives."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minisparse.training import files

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EINTR, errno.EDQUOT)
# Of two files: the sync of the folder comes when the new manifest is in its place.
AT_THE_END = ("os.open 1", "os.fsync 3")
OPEN, FSYNC, REPLACE, MKDIR = os.open, os.fsync, os.replace, Path.mkdir


def failing(function: Callable[..., Any], at: int, error: int | BaseException) -> Callable[..., Any]:
    """`function`, but its call number `at` (from 0) raises this, or the OSError of this number."""
    calls = iter(range(10**6))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise OSError(error, os.strerror(error)) if isinstance(error, int) else error
        return function(*args, **kwargs)

    return wrapped


class Stream:
    """A file whose `write` or `flush` fails, after a part of the content was written."""

    def __init__(self, real: Any, name: str, number: int) -> None:
        self.real, self.name, self.number = real, name, number

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *rest: object) -> None:
        self.real.close()

    def __getattr__(self, name: str) -> Any:
        def fail(*args: bytes) -> None:
            for content in args:
                self.real.write(content[: len(content) // 2])
            raise OSError(self.number, os.strerror(self.number))

        return fail if name == self.name else getattr(self.real, name)


def breaking(name: str, at: int, number: int) -> Callable[..., Any]:
    """`open`, but what it gives the call number `at` (from 0) is a Stream."""
    calls = iter(range(10))

    def wrapped(path: Path, mode: str) -> Any:
        stream = open(path, mode)  # noqa: SIM115 - its user closes it
        return Stream(stream, name, number) if next(calls) == at else stream

    return wrapped


def call_sites(patch: pytest.MonkeyPatch, number: int, written: int = 2) -> Iterator[str]:
    """Every system call of writing so many files to a folder, failing in turn with this error."""
    for name, calls in {"open": written, "fsync": 2 * written, "replace": written}.items():
        for at in range(calls):
            with patch.context() as own:
                own.setattr(files.os, name, failing(getattr(os, name), at, number))
                yield f"os.{name} {at}"
    with patch.context() as own:
        own.setattr(Path, "mkdir", failing(Path.mkdir, 0, number))
        yield "mkdir"
    for at in range(written):
        with patch.context() as own:
            own.setitem(files.__dict__, "open", failing(open, at, number))
            yield f"open {at}"
        for name in ("write", "flush"):
            with patch.context() as own:
                own.setitem(files.__dict__, "open", breaking(name, at, number))
                yield f"{name} {at}"


@contextmanager
def a_disk_that_works() -> Iterator[None]:
    """Within `call_sites`, all calls as they are."""
    with pytest.MonkeyPatch.context() as whole:
        whole.setattr(files.os, "open", OPEN)
        whole.setattr(files.os, "fsync", FSYNC)
        whole.setattr(files.os, "replace", REPLACE)
        whole.setattr(Path, "mkdir", MKDIR)
        whole.setitem(files.__dict__, "open", open)
        yield
