"""A data set: training and test samples with their labels or targets, checked once and read-only.

Samples x are float arrays: images ``(n, c, h, w)`` or flat features ``(n, i)``. Real images are scaled
to [0, 1] by their largest possible pixel value (16, or 255) and by nothing else: no mean is
subtracted, so a method that needs standardised inputs says so and does it itself. y holds int64 class
labels ``(n,)`` for classification, or float targets ``(n, o)`` for regression (``classes`` is None).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minisparse.data.arguments import whole_number
from minisparse.errors import DataFormatError, ShapeError, UsageError

PRECISIONS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.complex128))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test samples of one problem. The arrays are read-only views, never copies.

    ``train_x``, ``test_x``: ``(n, i)`` or ``(n, c, h, w)``, float32, float64 or complex128.
    ``train_y``, ``test_y``: integer labels ``(n,)`` below ``classes``, or targets ``(n, o)`` when
    ``classes`` is None. Raises DataFormatError when empty, not finite or inconsistent.
    """

    name: str
    train_x: NDArray[Any]
    train_y: NDArray[Any]
    test_x: NDArray[Any]
    test_y: NDArray[Any]
    classes: int | None

    def __post_init__(self) -> None:
        if self.classes is not None:
            whole_number(f"number of classes of data set {self.name!r}", self.classes, 2)
        for part in ("train", "test"):
            title = f"data set {self.name!r}: {part}"
            x = _samples(f"{title} samples", getattr(self, f"{part}_x"))
            if self.classes is None:
                y = _targets(f"{title} targets", getattr(self, f"{part}_y"))
            else:
                y = _labels(f"{title} labels", getattr(self, f"{part}_y"), self.classes)
            if len(x) != len(y):
                raise DataFormatError(
                    f"{title} samples and answers do not pair up: "
                    f"got {len(x)} samples and {len(y)} answers, expected as many of each."
                )
            object.__setattr__(self, f"{part}_x", _read_only(x))
            object.__setattr__(self, f"{part}_y", _read_only(y))
        self._check_parts_agree()

    def _check_parts_agree(self) -> None:
        for array in ("x", "y"):
            train, test = getattr(self, f"train_{array}"), getattr(self, f"test_{array}")
            if (train.shape[1:], train.dtype) != (test.shape[1:], test.dtype):
                raise DataFormatError(
                    f"data set {self.name!r}: test_{array} does not fit train_{array}: got rows of "
                    f"shape {test.shape[1:]} {test.dtype}, expected {train.shape[1:]} {train.dtype}."
                )

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(i,)`` or ``(c, h, w)``."""
        return self.train_x.shape[1:]

    @property
    def outputs(self) -> int:
        """Outputs a network needs: the number of classes, or of targets per sample."""
        return self.train_y.shape[1] if self.classes is None else self.classes

    @property
    def n_train(self) -> int:
        """Number of training samples."""
        return len(self.train_x)

    @property
    def n_test(self) -> int:
        """Number of test samples."""
        return len(self.test_x)

    def flat(self) -> "Dataset":
        """The same samples as rows of features: ``(n, c, h, w)`` becomes ``(n, c*h*w)``."""
        if self.train_x.ndim == 2:
            return self
        train_x = self.train_x.reshape(self.n_train, -1)
        return replace(self, train_x=train_x, test_x=self.test_x.reshape(self.n_test, -1))

    def images(self) -> "Dataset":
        """This data set, provided its samples are images; raises ShapeError when they are flat."""
        if self.train_x.ndim != 4:
            raise ShapeError(
                f"data set {self.name!r} has no images: got samples of shape {self.sample_shape}, "
                "expected (c, h, w). Use a network for flat features."
            )
        return self

    def astype(self, dtype: DTypeLike) -> "Dataset":
        """Samples and regression targets in another precision; labels stay int64."""
        kind = np.dtype(dtype)
        if kind not in PRECISIONS:
            raise UsageError(
                f"precision of data set {self.name!r} is not usable: got {kind}, "
                f"expected one of {', '.join(str(known) for known in PRECISIONS)}."
            )
        if kind == self.train_x.dtype:
            return self
        labelled = self.classes is not None
        return replace(
            self,
            train_x=self.train_x.astype(kind),
            test_x=self.test_x.astype(kind),
            train_y=self.train_y if labelled else self.train_y.astype(kind),
            test_y=self.test_y if labelled else self.test_y.astype(kind),
        )

    def subset(self, n_train: int | None = None, n_test: int | None = None) -> "Dataset":
        """The first ``n_train`` and ``n_test`` samples, in the order they have (None: all).

        Raises UsageError when fewer than one or more samples than there are is asked for.
        """
        train = _row_count("train", n_train, self.n_train)
        test = _row_count("test", n_test, self.n_test)
        return replace(
            self,
            train_x=self.train_x[:train],
            train_y=self.train_y[:train],
            test_x=self.test_x[:test],
            test_y=self.test_y[:test],
        )


def _row_count(part: str, asked: int | None, present: int) -> int:
    if asked is None:
        return present
    count = whole_number(f"number of {part} samples", asked, 1)
    if count > present:
        raise UsageError(f"too many {part} samples: got {count}, expected at most {present}.")
    return count


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view


def _samples(title: str, x: object) -> NDArray[Any]:
    array = _array(title, x)
    if array.dtype not in PRECISIONS:
        raise DataFormatError(
            f"{title} have the wrong type: got {array.dtype}, "
            f"expected float32 or float64. Scale pixels to [0, 1] first."
        )
    if array.ndim not in (2, 4):
        raise DataFormatError(
            f"{title} have the wrong shape: got {array.shape}, expected (n, i) or (n, c, h, w)."
        )
    return _finite(title, array)


def _targets(title: str, y: object) -> NDArray[Any]:
    array = _array(title, y)
    if array.dtype not in PRECISIONS or array.ndim != 2:
        raise DataFormatError(
            f"{title} are not usable: got {array.dtype} of shape {array.shape}, "
            "expected float32 or float64 of shape (n, o)."
        )
    return _finite(title, array)


def _labels(title: str, y: object, classes: int) -> NDArray[np.int64]:
    array = _array(title, y)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataFormatError(
            f"{title} are not usable: got {array.dtype} of shape {array.shape}, "
            "expected integers of shape (n,)."
        )
    outside = (array < 0) | (array >= classes)
    if outside.any():
        first = int(outside.argmax())
        raise DataFormatError(
            f"{title} are out of range: got {int(array[first])} at row {first} "
            f"({int(outside.sum())} such), expected 0 <= label < {classes}."
        )
    return array.astype(np.int64, copy=False)


def _array(title: str, value: object) -> NDArray[Any]:
    """The array itself: a list or masked array is refused, as its meaning here would be a guess."""
    if type(value) is not np.ndarray:
        raise DataFormatError(
            f"{title} are not an array: got {type(value).__name__}, expected a NumPy array."
        )
    if value.size == 0:
        raise DataFormatError(f"{title} are empty: got shape {value.shape}, expected some values.")
    return value


def _finite(title: str, array: NDArray[Any]) -> NDArray[Any]:
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(axis) for axis in np.unravel_index(int(bad.argmax()), array.shape))
        raise DataFormatError(
            f"{title} are not finite: got {array[first]} at {first} "
            f"({int(bad.sum())} such), expected finite numbers."
        )
    return array
