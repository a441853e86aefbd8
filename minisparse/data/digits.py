"""The 8x8 handwritten digits that come with the package.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning Repository,
1998. doi:10.24432/C50P49. Licence CC BY 4.0 (see DIGITS_LICENSE.txt).

1,797 images of 8x8 pixels: the test set of that collection. A pixel counts the black points, 0 to 16,
in one 4x4 field of a 32x32 bitmap; it is divided by 16 here.

The collection's own training set is not included, so this file splits the 1,797 images: counting the
images of each class in file order as k = 0, 1, 2, ..., those with k mod 5 = 2 are the test set. The
rule depends on no seed. It ignores who wrote an image, so accuracies are not comparable with results on
the collection's own split, where the writers of the test set are new.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minisparse.data.dataset import Dataset
from minisparse.errors import DataFormatError

FILE = Path(__file__).with_name("digits.npz")
SHA256 = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"
CLASSES = 10


def load() -> Dataset:
    """1,438 training and 359 test images ``(n, 1, 8, 8)`` float32 in [0, 1], 10 classes.

    Raises DataFormatError when the embedded file is missing or not the one that was shipped.
    """
    images, labels = _embedded(FILE)
    test = test_rows(labels)
    x = images[:, np.newaxis].astype(np.float32) / np.float32(16)
    y = labels.astype(np.int64)
    return Dataset("digits", x[~test], y[~test], x[test], y[test], CLASSES)


def test_rows(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """True for the rows of the test set: every fifth of its class, starting with the third."""
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for k in range(CLASSES):
        chosen[np.flatnonzero(labels == k)[2::5]] = True
    return chosen


def _embedded(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataFormatError(
            f"data file {str(path)!r} cannot be read: got {error.strerror}, "
            "expected the file installed with minisparse. Reinstall minisparse."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise DataFormatError(
            f"data file {str(path)!r} is damaged: got SHA-256 {digest}, "
            f"expected {SHA256}. Reinstall minisparse."
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"]
