"""IDX files, and the data sets stored in four of them: MNIST and those with its format.

Format: Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits, section "File
formats". All numbers are big-endian: two zero bytes, a type code, the number d of axes, d axis
lengths of 32 bits, then the values in row-major order.

    MNIST: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document
    recognition. Proceedings of the IEEE 86(11), 1998.
    Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST: a novel image dataset for
    benchmarking machine learning algorithms. arXiv:1708.07747, 2017.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisparse.data.binary import MAX_BYTES, BinaryFile
from minisparse.data.dataset import Dataset
from minisparse.errors import DataFormatError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_AXES = 8
CLASSES = 10
SIDE = 28
STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

# SHA-256 of the training labels (without header). Both data sets use the same file names, so a wrong
# folder would otherwise train on the wrong problem without a word.
TRAIN_LABELS = {
    "mnist": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "fashion-mnist": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
}


def read_idx(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """The array of an IDX file, gzip-compressed or not, in native byte order.

    Refused with DataFormatError, which names file and byte: a wrong magic number, type code or number
    of axes (1 to 8), an axis of length 0, too few or too many bytes, a broken gzip stream, a value
    that is NaN or infinite, and anything above ``max_bytes``, before memory is allocated for it.
    """
    with BinaryFile(path, max_bytes) as file:
        return _read(file)


def _read(file: BinaryFile) -> NDArray[Any]:
    magic = file.exactly(4, "magic number")
    if magic[:2] != b"\0\0":
        raise file.error(0, "is no IDX file", f"0x{magic[:2].hex()}", "0x0000")
    if magic[2] not in TYPES:
        known = ", ".join(f"0x{code:02x}" for code in TYPES)
        raise file.error(2, "has an unknown type code", f"0x{magic[2]:02x}", f"one of {known}")
    if not 1 <= magic[3] <= MAX_AXES:
        raise file.error(3, "has a bad number of axes", magic[3], f"1 to {MAX_AXES}")
    shape = tuple(int(length) for length in file.array((magic[3],), ">u4", "axis lengths"))
    if 0 in shape:
        raise file.error(4 + 4 * shape.index(0), "has an empty axis", 0, "a length of at least 1")
    start = file.offset
    array = file.array(shape, TYPES[magic[2]], "values")
    file.finish()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        first = int((~np.isfinite(array)).argmax())
        offset = start + first * array.itemsize
        raise file.error(offset, "holds a bad value", array.flat[first], "a finite number")
    return array


def load(folder: str | os.PathLike[str], name: str) -> Dataset:
    """The data set of the four files STEMS (each with or without ``.gz``) in ``folder``.

    Images ``(n, 1, 28, 28)`` float32, divided by 255; 10 classes. Raises DataFormatError as `read_idx`
    does, and for another image size or type, labels above 9, unequal numbers of images and labels, a
    missing file, or files that are known to belong to another data set than ``name``.
    """
    train_images, train_labels, test_images, test_labels = files(folder)
    train_y = _labels(train_labels)
    _check_identity(train_labels, train_y, name)
    train_x = _images(train_images, train_labels, len(train_y))
    test_y = _labels(test_labels)
    test_x = _images(test_images, test_labels, len(test_y))
    return Dataset(name, train_x, train_y.astype(np.int64), test_x, test_y.astype(np.int64), CLASSES)


def files(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The four files that `load` reads, in the order of STEMS; DataFormatError if one is missing."""
    found = []
    for stem in STEMS:
        path = next(filter(os.path.isfile, _paths(folder, stem)), None)
        if path is None:
            raise DataFormatError(
                f"data file '{stem}.gz' is missing: got neither it nor '{stem}' in {str(folder)!r}, "
                f"expected all of {', '.join(STEMS)}."
            )
        found.append(path)
    return tuple(found)


def present(folder: str | os.PathLike[str]) -> bool:
    """Whether at least one of the four files is in ``folder``."""
    return any(os.path.isfile(path) for stem in STEMS for path in _paths(folder, stem))


def _paths(folder: str | os.PathLike[str], stem: str) -> tuple[Path, Path]:
    return Path(folder, f"{stem}.gz"), Path(folder, stem)


def _labels(path: Path) -> NDArray[np.uint8]:
    with BinaryFile(path) as file:
        labels = _read(file)
        if labels.dtype != np.uint8 or labels.ndim != 1:
            raise file.error(2, "holds no labels", f"{labels.dtype} {labels.shape}", "uint8 (n,)")
        outside = labels >= CLASSES
        if outside.any():
            first = int(outside.argmax())
            raise file.error(8 + first, "has a bad label", labels[first], f"0 to {CLASSES - 1}")
        return labels


def _images(path: Path, label_path: Path, labels: int) -> NDArray[np.float32]:
    with BinaryFile(path) as file:
        images = _read(file)
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE):
            got = f"{images.dtype} {images.shape}"
            raise file.error(2, "holds no images", got, f"uint8 (n, {SIDE}, {SIDE})")
        if len(images) != labels:
            expected = f"{labels} as in {label_path.name!r}"
            raise file.error(4, "has another number of images", len(images), expected)
        return np.divide(images[:, np.newaxis], np.float32(255), dtype=np.float32)


def _check_identity(path: Path, labels: NDArray[np.uint8], name: str) -> None:
    digest = hashlib.sha256(labels.tobytes()).hexdigest()
    for other, known in TRAIN_LABELS.items():
        if digest == known and other != name:
            raise DataFormatError(
                f"data file {str(path)!r} belongs to another data set: got the labels of {other}, "
                f"expected those of {name}. Keep each data set in a folder of its own name."
            )
