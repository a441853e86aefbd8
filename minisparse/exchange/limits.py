"""What a file of weights may hold; every limit is checked with Python's integers before memory is taken."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from math import prod

from minisparse.errors import DataFormatError

MAX_BYTES = 1 << 30
MAX_TENSORS = 10_000
MAX_AXES = 8
NAME = re.compile(r"[A-Za-z0-9_./-]{1,200}")
# dtype.str without the byte order
NUMBERS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])


def content(path: str | os.PathLike[str], most: int = MAX_BYTES) -> bytes:
    """All bytes of a regular file of at most `most`; DataFormatError otherwise."""
    try:
        about = os.stat(path)  # looked at before opening: to open a named pipe would wait for a writer
        if not stat.S_ISREG(about.st_mode):
            raise OSError("something else than a file")
        if about.st_size > most:
            raise damaged(path, f"{about.st_size:,} bytes", f"at most {most:,}")
        with open(path, "rb") as stream:
            return stream.read(most)
    except (OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataFormatError(
            f"weights file '{os.fspath(path)}' cannot be read: got {reason}, expected a readable file."
        ) from None


def damaged(where: object, got: str, expected: str) -> DataFormatError:
    """The error for a file that is not what its ending promises; the caller raises it."""
    return DataFormatError(
        f"weights file '{where}' is not usable: got {got}, expected {expected}. Save it again."
    )


def check_name(name: str, where: object) -> None:
    """DataFormatError unless a tensor's name is plain text that stays in its folder."""
    if not NAME.fullmatch(name) or ".." in name:
        shown = ascii(name[:40])
        raise damaged(where, f"tensor name {shown}", "letters, digits, '_', '-', '/' and single '.', <= 200")


def check_shape(shape: Sequence[object], name: str, where: object) -> None:
    """DataFormatError unless there are at most 8 axes, all of them whole numbers >= 0."""
    if len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise damaged(where, f"tensor '{name}' of shape {str(shape)[:80]}", f"at most {MAX_AXES} sizes >= 0")


def check_size(shape: Sequence[int], itemsize: int, present: int, name: str, where: object) -> None:
    """DataFormatError unless a tensor's numbers take exactly the bytes that are there for them."""
    needed = prod(shape) * itemsize
    if needed != present:
        raise damaged(where, f"{present:,} bytes for tensor '{name}'", f"{needed:,} by its shape and type")
