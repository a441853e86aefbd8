"""CIFAR-10 in its binary version, as six .bin files or as the archive they are published in.

A. Krizhevsky: Learning Multiple Layers of Features from Tiny Images. Technical report, University of
Toronto, 2009. Format: section "Binary version" of the CIFAR-10 page. A record has 3,073 bytes: the
label, then 32x32 red, 32x32 green and 32x32 blue values; a file has 10,000 records and nothing else.

The archive is read in memory as a stream. No member is ever written to disk, so no name in it can
reach outside a folder. The Python version of CIFAR-10 consists of pickles and is not read.
"""

import os
import tarfile
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from minisparse.data.arguments import whole_number
from minisparse.data.binary import CHUNK, BinaryFile
from minisparse.data.dataset import Dataset
from minisparse.errors import DataFormatError

ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
TEST = "test_batch.bin"
FILES = (*TRAIN, TEST)
IMAGE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
RECORDS = 10_000
CLASSES = 10
MEMBERS = frozenset(f"{FOLDER}/{name}" for name in FILES)
OTHER_BYTES = 1 << 20  # room for the archive's headers, read-me, list of class names and padding

Records = dict[str, NDArray[np.uint8]]  # file name: its records (n, 3073)


def load(folder: str | os.PathLike[str], records: int = RECORDS) -> Dataset:
    """50,000 training and 10,000 test images ``(n, 3, 32, 32)`` float32, divided by 255; 10 classes.

    Read from the six .bin files in ``folder`` or in its sub-folder 'cifar-10-batches-bin', else from
    'cifar-10-binary.tar.gz'. ``records`` is the number of images every file must hold. Raises
    DataFormatError for a missing file, a wrong length, a label above 9 or a damaged archive.
    """
    whole_number("records per file", records, 1)
    paths = files(folder)
    read = _from_files if len(paths) == len(FILES) else _from_archive
    raw = read(paths, records)
    train = np.concatenate([raw.pop(name) for name in TRAIN])
    train_x, train_y = _split(train)
    test_x, test_y = _split(raw.pop(TEST))
    return Dataset("cifar-10", train_x, train_y, test_x, test_y, CLASSES)


def files(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files that `load` reads: the six, or else the archive; DataFormatError if none is there."""
    path = Path(folder)
    for place in (path, path / FOLDER):
        if any(os.path.isfile(place / name) for name in FILES):
            return tuple(place / name for name in FILES)
    if os.path.isfile(path / ARCHIVE):
        return (path / ARCHIVE,)
    raise DataFormatError(
        f"data set 'cifar-10' is missing: got none of its files in {str(folder)!r}, "
        f"expected {ARCHIVE} or all of {', '.join(FILES)}."
    )


def present(folder: str | os.PathLike[str]) -> bool:
    """Whether the archive or at least one of the six files is in ``folder``."""
    places = [Path(folder, name) for name in (ARCHIVE, *FILES)]
    return any(map(os.path.isfile, [*places, *(Path(folder, FOLDER, name) for name in FILES)]))


def _split(raw: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    images = raw[:, 1:].reshape(-1, *IMAGE)
    return np.divide(images, np.float32(255), dtype=np.float32), raw[:, 0].astype(np.int64)


def _from_files(paths: tuple[Path, ...], records: int) -> Records:
    raw = {}
    for path in paths:
        with BinaryFile(path, max_bytes=records * RECORD + OTHER_BYTES) as file:
            raw[path.name] = file.array((records, RECORD), np.uint8, "records")
            file.finish()
            _check_labels(file, raw[path.name], 0, path.name)
    return raw


def _from_archive(paths: tuple[Path, ...], records: int) -> Records:
    found: Records = {}
    with BinaryFile(paths[0], max_bytes=len(FILES) * records * RECORD + OTHER_BYTES) as file:
        try:
            # a pure stream: sizes in the headers cannot send the reader back and forth
            with tarfile.open(fileobj=cast(IO[bytes], _Stream(file)), mode="r|") as archive:
                for member in archive:
                    if member.name in MEMBERS:
                        _take_member(file, archive, member, records, found)
        except DataFormatError:
            raise
        except Exception as error:  # damaged headers make tarfile raise errors of many types
            got = f"{type(error).__name__} '{error}'"
            raise file.error(file.offset, "is no intact archive", got, "a tar file") from error
        while file.read(CHUNK):  # the checksum of the gzip stream is at its very end
            pass
        missing = [name for name in FILES if name not in found]
        if missing:
            got = f"no {', '.join(missing)}"
            raise file.error(file.offset, "ends without all its files", got, f"{len(FILES)} files")
    return found


class _Stream:
    """The archive as tarfile reads it, up to its end mark and never beyond the end of the file.

    tarfile would skip a member of 2^62 bytes by as many empty reads as that takes.
    """

    def __init__(self, file: BinaryFile) -> None:
        self.file = file

    def read(self, count: int) -> bytes:
        piece = self.file.read(count)
        if not piece:
            raise self.file.error(self.file.offset, "ends too early", "no more", "an end mark")
        return piece


def _take_member(
    file: BinaryFile,
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    records: int,
    found: Records,
) -> None:
    name = member.name.removeprefix(f"{FOLDER}/")
    if name in found or not member.isfile() or member.issparse():
        got = "a repeated or special member"
        raise file.error(member.offset, f"holds {name!r} wrongly", got, "one plain file")
    if member.size != records * RECORD:
        expected = f"{records * RECORD} bytes"
        raise file.error(member.offset, f"holds {name!r} wrongly", member.size, expected)
    stream = cast(IO[bytes], archive.extractfile(member))
    raw = np.frombuffer(stream.read(member.size), np.uint8).reshape(records, RECORD)
    _check_labels(file, raw, member.offset_data, name)
    found[name] = raw


def _check_labels(file: BinaryFile, raw: NDArray[np.uint8], start: int, name: str) -> None:
    outside = raw[:, 0] >= CLASSES
    if outside.any():
        first = int(outside.argmax())
        problem = f"has a bad label in {name!r}"
        raise file.error(start + first * RECORD, problem, raw[first, 0], f"0 to {CLASSES - 1}")
