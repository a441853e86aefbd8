"""The embedded digits: the published numbers, and a split that follows its written rule."""

import numpy as np
import pytest

from minisparse.data import digits
from minisparse.errors import DataFormatError

# class counts of the test set as published with the collection
PUBLISHED_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.fixture(scope="module")
def data():
    return digits.load()


def test_shapes_and_scale(data):
    assert (data.n_train, data.n_test) == (1438, 359)
    assert data.sample_shape == (1, 8, 8) and data.classes == 10
    assert data.train_x.dtype == np.float32
    sixteenths = np.concatenate([data.train_x, data.test_x]) * 16
    assert np.array_equal(sixteenths, np.round(sixteenths))
    assert (sixteenths.min(), sixteenths.max()) == (0, 16)


def test_class_counts_are_the_published_ones(data):
    assert np.bincount(np.concatenate([data.train_y, data.test_y])).tolist() == PUBLISHED_COUNTS


def test_first_image_is_the_published_first_row(data):
    assert data.train_y[0] == 0
    assert (data.train_x[0, 0, 0] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert (data.train_x[0, 0, 7] * 16).tolist() == [0, 0, 6, 13, 10, 0, 0, 0]


def test_every_fifth_image_of_a_class_is_a_test_image():
    labels = np.random.default_rng(0).integers(0, 10, 400)
    seen = dict.fromkeys(range(10), 0)
    for label, chosen in zip(labels, digits.test_rows(labels), strict=True):
        assert chosen == (seen[label] % 5 == 2)
        seen[label] += 1


def test_split_is_stratified(data):
    for train, test in zip(np.bincount(data.train_y), np.bincount(data.test_y), strict=True):
        assert abs(test - 0.2 * (train + test)) < 1


@pytest.mark.parametrize("position", [0, 100, 20_000, -1])
def test_damaged_file_is_refused(monkeypatch, tmp_path, position):
    content = bytearray(digits.FILE.read_bytes())
    content[position] ^= 1
    copy = tmp_path / "digits.npz"
    copy.write_bytes(content)
    monkeypatch.setattr(digits, "FILE", copy)
    with pytest.raises(DataFormatError, match="damaged"):
        digits.load()


def test_missing_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "FILE", tmp_path / "none.npz")
    with pytest.raises(DataFormatError, match="Reinstall"):
        digits.load()


def test_licence_travels_with_the_data():
    text = digits.FILE.with_name("DIGITS_LICENSE.txt").read_text(encoding="utf-8")
    assert "10.24432/C50P49" in text and "CC BY 4.0" in text
    assert digits.FILE.stat().st_size < 60_000
