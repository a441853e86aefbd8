"""Exact and bounded reading of binary files: any bytes give the array asked for or DataFormatError.

A reader states the sizes it expects, and every size is compared with what the file can hold before
memory is allocated for it. gzip (RFC 1952) is recognised by its first two bytes, not by the file's
name, and is unpacked piece by piece, so that a small file never expands beyond what was stated.
"""

import gzip
import os
import stat
import zlib
from contextlib import ExitStack
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minisparse.data.arguments import whole_number
from minisparse.errors import DataFormatError

CHUNK = 1 << 20
MAX_BYTES = 1 << 30
DEFLATE_RATIO = 1032  # deflate needs at least 2 bits for a run of 258 bytes


class BinaryFile:
    """A regular file read once, front to back; ``offset`` counts the (unpacked) bytes read so far.

    Neither the file nor what it unpacks to may exceed ``max_bytes``. Every method raises
    DataFormatError, naming file and offset, and nothing else. Zero bytes after the end of a gzip
    stream are padding and pass, as the gzip tools let them.
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> None:
        self.path = Path(path)
        self.max_bytes = whole_number("max_bytes", max_bytes, 1)
        self.offset = 0
        try:
            self._open()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataFormatError(
                f"data file {str(path)!r} cannot be read: got {reason}, expected a regular file."
            ) from error

    def _open(self) -> None:
        # looked at before opening: to open a named pipe would wait for a writer
        if not stat.S_ISREG(os.stat(self.path).st_mode):
            raise OSError("something else")
        with ExitStack() as opened:
            raw = opened.enter_context(open(self.path, "rb"))
            self.size = os.fstat(raw.fileno()).st_size
            self.zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            self._file: BinaryIO = raw
            if self.zipped:
                unzipping = opened.enter_context(gzip.GzipFile(fileobj=raw))
                self._file = cast(BinaryIO, unzipping)
            self._opened = opened.pop_all()

    def __enter__(self) -> "BinaryFile":
        if self.size > self.max_bytes:
            self.close()
            raise self.error(0, "is too large", f"{self.size} bytes", f"at most {self.max_bytes}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        self._opened.close()

    def error(self, offset: int, problem: str, got: object, expected: object) -> DataFormatError:
        """The error for what stands at ``offset``; the caller raises it."""
        place = f"byte {offset} of its unpacked content" if self.zipped else f"byte {offset}"
        return DataFormatError(
            f"data file {str(self.path)!r} {problem} at {place}: got {got}, expected {expected}. "
            "Replace the file by an intact copy."
        )

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes, at most a mebibyte; empty only at the end of the file.

        The checksum and length of a gzip stream are verified as soon as its end is reached.
        """
        try:
            piece = self._file.read(min(count, CHUNK))
        except (OSError, EOFError, zlib.error) as error:
            raise self.error(self.offset, "is damaged", f"'{error}'", "readable data") from error
        self.offset += len(piece)
        if self.offset > self.max_bytes:
            raise self.error(self.offset, "is too large", "more", f"at most {self.max_bytes} bytes")
        return piece

    def exactly(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes, or an error when the file ends before."""
        return self.array((count,), np.uint8, what).tobytes()

    def array(self, shape: tuple[int, ...], dtype: DTypeLike, what: str) -> NDArray[Any]:
        """The next bytes as an array of this shape and type, converted to native byte order."""
        kind = np.dtype(dtype)
        needed = prod(shape) * kind.itemsize
        self._check_room(needed, what)
        try:
            array = np.empty(shape, kind)
        except MemoryError as error:
            raise self.error(
                self.offset, f"is too large in its {what}", f"{needed} bytes", "what fits in memory"
            ) from error
        buffer = array.reshape(-1).view(np.uint8).data
        filled = 0
        while filled < needed:
            piece = self.read(needed - filled)
            if not piece:
                raise self.error(self.offset, f"ends within its {what}", filled, f"{needed} bytes")
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
        if not kind.isnative:
            array = array.byteswap(inplace=True).view(kind.newbyteorder("="))
        return array

    def _check_room(self, needed: int, what: str) -> None:
        """Refuse a size before memory is allocated for it."""
        if self.offset + needed > self.max_bytes:
            raise self.error(
                self.offset,
                f"declares too much for its {what}",
                f"{needed} bytes",
                f"at most {self.max_bytes} in all",
            )
        most = self.size * DEFLATE_RATIO if self.zipped else self.size
        if self.offset + needed > most:
            left = max(0, most - self.offset)
            raise self.error(
                self.offset, f"is too short for its {what}", f"at most {left}", f"{needed} bytes"
            )

    def finish(self) -> None:
        """Make sure that nothing follows, and that a gzip stream is complete and intact."""
        extra = self.read(1)
        if extra:
            raise self.error(self.offset - 1, "goes on after its end", "more data", "none")
