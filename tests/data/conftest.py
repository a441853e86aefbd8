"""Writers of tiny data files, independent of the readers under test."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def encode(array):
    """IDX bytes of an array, straight from the format's description."""
    head = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim])
    lengths = b"".join(struct.pack(">I", length) for length in array.shape)
    return head + lengths + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_quadruple(folder, train, test, suffix=""):
    """Write the four MNIST-like files for (images, labels) pairs; returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in (("train", train), ("t10k", test)):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = encode(array)
            if suffix == ".gz":
                content = gzip.compress(content, mtime=0)
            (folder / f"{part}-{kind}-ubyte{suffix}").write_bytes(content)
    return folder


def random_digits(seed, n):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    return images, rng.integers(0, 10, n, dtype=np.uint8)


@pytest.fixture(scope="session")
def idx_bytes():
    return encode


@pytest.fixture(scope="session")
def quadruple():
    return write_quadruple


@pytest.fixture(scope="session")
def tiny_mnist():
    """A training and a test part: (images (n, 28, 28), labels (n,)) of 5 and 3 samples."""
    return random_digits(1, 5), random_digits(2, 3)
