"""NumPy's npz format, read strictly: arrays of plain numbers, none of which takes more memory than announced.

Before a member is unpacked its name and type are looked at, and the bytes that all members promise to unpack
to: no more than ROOM, or RATIO times the archive. None unpacks to more than it promises, and its shape must
take exactly those bytes. Pickled objects, records, complex numbers and text are refused by type.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy

from minisparse.exchange.limits import (
    MAX_BYTES,
    MAX_TENSORS,
    NUMBERS,
    check_name,
    check_shape,
    check_size,
    damaged,
)
from minisparse.nn.param import Array

ENDING = ".npy"
RATIO = 200
ROOM = 256 << 20
ENCRYPTED = 1
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# What zipfile, zlib and NumPy's reader raise for bytes that are not what they expect.
FAILURES = (
    zipfile.BadZipFile, zlib.error, struct.error, TokenError, ValueError, SyntaxError, TypeError, KeyError,
    IndexError, EOFError, OSError, NotImplementedError, RuntimeError, OverflowError, MemoryError,
)  # fmt: skip


def parse(content: bytes, where: object) -> dict[str, Array]:
    """The arrays by name, in the order of the archive. DataFormatError for anything else."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            _check_members(members, len(content), where)
            found = {}
            for member in members:
                name = member.filename.removesuffix(ENDING)
                with archive.open(member) as stream:
                    found[name] = _array(stream, name, where)
            return found
    except FAILURES as error:
        raise damaged(where, f"{type(error).__name__} '{str(error)[:80]}'", "an npz file") from None


def encode(tensors: Mapping[str, Array], about: Mapping[str, str] | None = None) -> bytes:
    """An npz file of these arrays; it has no place for texts about them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in tensors.items():
            # one date for all: equal arrays give equal bytes
            about_member = zipfile.ZipInfo(name + ENDING)
            about_member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(about_member, "w", force_zip64=True) as member:
                npy.write_array(member, np.asarray(array), allow_pickle=False)
    return stream.getvalue()


def _check_members(members: list[zipfile.ZipInfo], size: int, where: object) -> None:
    names = [member.filename for member in members]
    if len(names) > MAX_TENSORS or len(set(names)) < len(names):
        raise damaged(where, f"{len(names):,} members", f"at most {MAX_TENSORS:,} of different names")
    for member in members:
        check_name(member.filename.removesuffix(ENDING), where)
        plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not member.filename.endswith(ENDING) or not plain or member.flag_bits & ENCRYPTED:
            raise damaged(where, f"member '{member.filename[:40]}'", "arrays, stored or deflated")
    total = sum(member.file_size for member in members)
    most = min(MAX_BYTES, max(ROOM, RATIO * size))
    if total > most:
        raise damaged(where, f"{total:,} bytes once unpacked", f"at most {most:,}")


def _array(stream: IO[bytes], name: str, where: object) -> Array:
    """The array of an open member."""
    version = npy.read_magic(stream)
    if version not in HEADERS:
        raise damaged(where, f"array '{name}' of version {version}", "1.0 or 2.0")
    shape, by_columns, dtype = HEADERS[version](stream)
    if dtype.str[1:] not in NUMBERS:
        raise damaged(where, f"array '{name}' of type {str(dtype)[:40]}", "whole or floating-point numbers")
    check_shape(shape, name, where)
    raw = stream.read()  # to the end of the member: only there is its checksum compared
    check_size(shape, dtype.itemsize, len(raw), name, where)
    values: Array = np.frombuffer(raw, dtype=dtype)
    native = np.float32 if dtype.str[1:] == "f2" else dtype.newbyteorder("=")
    return values.astype(native).reshape(shape, order="F" if by_columns else "C")
