"""Dataset: what it refuses, that it cannot be mutated, and its views."""

import numpy as np
import pytest

from minisparse.data import Dataset
from minisparse.errors import DataFormatError, ShapeError, UsageError


def parts(shape=(3,), dtype=np.float32):
    rng = np.random.default_rng(0)
    return {
        "name": "tiny",
        "train_x": rng.standard_normal((6, *shape)).astype(dtype),
        "train_y": np.array([0, 1, 2, 0, 1, 2]),
        "test_x": rng.standard_normal((4, *shape)).astype(dtype),
        "test_y": np.array([2, 2, 1, 0]),
        "classes": 3,
    }


def with_bad(value, dtype=np.float32):
    x = np.ones((6, 3), dtype)
    x[4, 1] = value
    return x


def test_sizes_and_outputs():
    data = Dataset(**parts((2, 4, 5)))
    assert (data.n_train, data.n_test, data.outputs) == (6, 4, 3)
    assert data.sample_shape == (2, 4, 5)
    assert data.train_y.dtype == np.int64


def test_regression_outputs_are_the_width_of_the_targets():
    fields = parts() | {"classes": None}
    fields |= {"train_y": np.ones((6, 2), np.float32), "test_y": np.ones((4, 2), np.float32)}
    assert Dataset(**fields).outputs == 2


@pytest.mark.parametrize("field", ["train_x", "train_y", "test_x", "test_y"])
def test_arrays_are_read_only_but_the_callers_stay_writable(field):
    fields = parts()
    data = Dataset(**fields)
    with pytest.raises(ValueError, match="read-only"):
        getattr(data, field)[0] = 0
    fields[field][0] = fields[field][0]
    assert fields[field].flags.writeable


def test_samples_are_not_copied():
    fields = parts()
    assert np.shares_memory(Dataset(**fields).train_x, fields["train_x"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_x": with_bad(np.nan)}, r"train samples are not finite: got nan at \(4, 1\) \(1 such"),
        ({"train_x": with_bad(-np.inf)}, "not finite: got -inf"),
        ({"train_x": np.ones((6, 3), np.uint8)}, "wrong type: got uint8"),
        ({"train_x": np.ones((6, 3), np.float16)}, "wrong type: got float16"),
        ({"train_x": np.ones((6, 3), bool)}, "wrong type: got bool"),
        ({"train_x": np.ones((6, 3), object)}, "wrong type: got object"),
        ({"train_x": [[1.0]]}, "not an array: got list"),
        ({"train_x": np.ones(6, np.float32)}, r"wrong shape: got \(6,\)"),
        ({"train_x": np.ones((6, 3, 3), np.float32)}, "wrong shape"),
        ({"train_x": np.ones((0, 3), np.float32)}, "empty"),
        ({"test_x": np.ones((4, 0), np.float32)}, "test samples are empty"),
        ({"train_x": np.ones((5, 3), np.float32)}, "got 5 samples and 6 answers"),
        ({"test_x": np.ones((4, 2), np.float32)}, "test_x does not fit"),
        ({"test_x": np.ones((4, 3))}, "test_x does not fit"),
        ({"train_y": np.array([0, 1, 2, 3, -1, 0])}, r"got 3 at row 3 \(2 such\), expected 0 <="),
        ({"train_y": np.zeros(6)}, "train labels are not usable: got float64"),
        ({"train_y": np.zeros(6, bool)}, "train labels are not usable: got bool"),
        ({"train_y": np.zeros((6, 1), int)}, "train labels are not usable"),
        ({"classes": None}, "train targets are not usable: got int64"),
    ],
)
def test_unusable_content_is_refused_in_one_line(change, words):
    with pytest.raises(DataFormatError, match=words) as caught:
        Dataset(**(parts() | change))
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("classes", [1, 0, -3, True, 3.0, "3", float("nan")])
def test_number_of_classes_is_a_whole_number_above_one(classes):
    with pytest.raises(UsageError, match="number of classes"):
        Dataset(**(parts() | {"classes": classes}))


def test_flat_and_images():
    data = Dataset(**parts((2, 4, 5)))
    flat = data.flat()
    assert flat.sample_shape == (40,)
    assert flat.train_x[3, 1 * 20 + 2 * 5 + 4] == data.train_x[3, 1, 2, 4]
    assert np.array_equal(flat.test_x.reshape(4, 2, 4, 5), data.test_x)
    assert flat.flat() is flat
    assert data.images() is data
    with pytest.raises(ShapeError, match="has no images"):
        flat.images()


def test_astype_converts_samples_and_targets_but_not_labels():
    data = Dataset(**parts()).astype(np.float64)
    assert (data.train_x.dtype, data.test_x.dtype) == (np.float64, np.float64)
    assert data.train_y.dtype == np.int64
    assert data.astype("float64") is data
    fields = parts() | {"classes": None}
    fields |= {"train_y": np.ones((6, 1), np.float32), "test_y": np.ones((4, 1), np.float32)}
    assert Dataset(**fields).astype(np.complex128).test_y.dtype == np.complex128
    with pytest.raises(UsageError, match="float16"):
        data.astype(np.float16)


def test_subset_takes_the_first_rows():
    data = Dataset(**parts())
    small = data.subset(n_train=2, n_test=3)
    assert np.array_equal(small.train_x, data.train_x[:2])
    assert np.array_equal(small.test_y, data.test_y[:3])
    assert data.subset(n_test=1).n_train == 6


@pytest.mark.parametrize("count", [0, 7, -1, 2.0, True])
def test_subset_refuses_impossible_counts(count):
    with pytest.raises(UsageError, match="train samples"):
        Dataset(**parts()).subset(n_train=count)
