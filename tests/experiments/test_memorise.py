"""Random labels: what the data are, what counts as fitted, and that fewer weights fit fewer labels."""

import numpy as np
import pytest

from minisparse.data.digits import load
from minisparse.experiments.theory.memorise import CONTROL, METHODS, Curve, study, with_labels
from minisparse.sparsity.count import kept_count


def test_labels_are_drawn_by_lot_and_images_are_not_touched():
    data = load()
    lots, own, again = (with_labels(data, 1000, 3, true) for true in (False, True, False))
    np.testing.assert_array_equal(lots.train_x, own.train_x)
    np.testing.assert_array_equal(lots.train_y, again.train_y)
    np.testing.assert_array_equal(lots.test_x, lots.train_x)
    np.testing.assert_array_equal(lots.test_y, lots.train_y)
    images = {image.tobytes(): label for image, label in zip(data.train_x, data.train_y, strict=True)}
    assert all(images[x.tobytes()] == y for x, y in zip(own.train_x, own.train_y, strict=True))
    counts = np.bincount(lots.train_y, minlength=10)
    assert ((counts - 100) ** 2 / 100).sum() < 28  # chi squared, 9 degrees: 0.1 %
    agreement = (lots.train_y == own.train_y).mean()
    assert abs(agreement - 0.1) < 4 * np.sqrt(0.09 / 1000)
    assert (with_labels(data, 1000, 4).train_y != lots.train_y).any()


def test_needed_is_where_fitting_begins_for_good():
    assert Curve("a", {100: [1.0], 50: [1.0, 0.98], 20: [0.9]}).needed == 50
    assert Curve("a", {100: [1.0], 50: [0.5], 20: [1.0]}).needed == 100
    assert Curve("a", {100: [0.5]}).needed == float("inf")


def test_the_study_counts_weights_and_fewer_weights_fit_less():
    made = study((0, 1), samples=60, epochs=80, sparsities=(0.5, 0.98))
    size = 64 * 64 + 64 * 32 + 32 * 10
    assert [row["method"] for row in made.rows[::2]] == [*METHODS, CONTROL]
    for many, few in zip(made.rows[::2], made.rows[1::2], strict=True):
        assert (many["weights"], few["weights"]) == (kept_count(size, 0.5), kept_count(size, 0.98))
        assert many["weights_per_sample"] == pytest.approx(many["weights"] / 60)
        assert many["accuracy"] > few["accuracy"] + 0.2
    assert made.words[0].startswith("60 labels drawn by lot are 199 bits")
