"""Mini-batches: a partition of the training set, fixed by (seed, epoch) alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisparse.data import Dataset
from minisparse.data import batches as module
from minisparse.data.batches import batches, probe, steps_per_epoch
from minisparse.errors import UsageError


def numbered(n, classes=3, width=2):
    """Row r holds the value r, so that every batch shows which rows it took."""
    x = np.repeat(np.arange(n, dtype=np.float32)[:, np.newaxis], width, axis=1)
    return Dataset("numbered", x, np.arange(n) % classes, x, np.arange(n) % classes, classes)


def rows_of(batch):
    return batch.x[:, 0].astype(int)


def epoch_rows(data, size, seed=0, epoch=0):
    return np.concatenate([rows_of(batch) for batch in batches(data, size, seed, epoch)])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), size=st.integers(1, 70), gather=st.sampled_from([1, 64, 1 << 20]))
def test_batches_partition_the_training_set(n, size, gather):
    data = numbered(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GATHER_BYTES", gather)
        parts = list(batches(data, size, seed=3, epoch=1))
    assert [len(part.x) for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert 1 <= len(parts[-1].x) <= size
    assert len(parts) == steps_per_epoch(n, size)
    rows = np.concatenate([rows_of(part) for part in parts])
    assert sorted(rows) == list(range(n))
    assert np.array_equal(np.concatenate([part.y for part in parts]), data.train_y[rows])


def test_batch_order_does_not_depend_on_how_rows_are_gathered(monkeypatch):
    expected = epoch_rows(numbered(50), 7)
    monkeypatch.setattr(module, "GATHER_BYTES", 1)
    assert np.array_equal(epoch_rows(numbered(50), 7), expected)


def test_order_is_a_function_of_seed_and_epoch_and_not_of_earlier_calls():
    data = numbered(40)
    first = epoch_rows(data, 8, seed=5, epoch=2)
    interleaved = batches(data, 8, seed=5, epoch=2)
    seen = []
    for batch, _ in zip(interleaved, batches(data, 8, seed=5, epoch=0), strict=True):
        probe(data, 1, seed=5)
        seen.append(rows_of(batch))
    assert np.array_equal(np.concatenate(seen), first)
    assert not np.array_equal(first, epoch_rows(data, 8, seed=5, epoch=3))
    assert not np.array_equal(first, epoch_rows(data, 8, seed=6, epoch=2))


def test_order_does_not_depend_on_the_batch_size():
    assert np.array_equal(epoch_rows(numbered(40), 3), epoch_rows(numbered(40), 40))


def test_batches_are_contiguous_writable_copies():
    data = numbered(10)
    for batch in batches(data, 4, 0, 0):
        assert batch.x.flags.c_contiguous
        batch.x[:] = -1
    assert data.train_x.min() == 0


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "8", float("nan")])
def test_bad_batch_size_is_refused_before_iterating(size):
    with pytest.raises(UsageError, match="batch size"):
        batches(numbered(5), size, 0, 0)


@pytest.mark.parametrize(("seed", "epoch"), [(-1, 0), (0, -1), (1.5, 0), (0, True)])
def test_bad_seed_or_epoch_is_refused(seed, epoch):
    with pytest.raises(UsageError, match="whole number"):
        batches(numbered(5), 2, seed, epoch)


@pytest.mark.parametrize(("n", "size", "steps"), [(1, 1, 1), (10, 5, 2), (11, 5, 3), (3, 100, 1)])
def test_steps_per_epoch(n, size, steps):
    assert steps_per_epoch(n, size) == steps


def test_probe_is_balanced_and_takes_all_of_a_short_class():
    y = np.array([0] * 20 + [1] * 2 + [2] * 9)
    x = np.arange(31, dtype=np.float32)[:, np.newaxis]
    batch = probe(Dataset("uneven", x, y, x, y, 4), per_class=5, seed=1)
    assert np.bincount(batch.y, minlength=4).tolist() == [5, 2, 5, 0]
    rows = rows_of(batch)
    assert len(set(rows)) == 12
    assert np.array_equal(batch.y, y[rows])
    assert np.any(np.diff(batch.y) < 0), "classes must be mixed"


def test_probe_depends_on_the_seed_alone():
    data = numbered(60)
    assert np.array_equal(probe(data, 4, seed=1).x, probe(data, 4, seed=1).x)
    assert not np.array_equal(probe(data, 4, seed=1).x, probe(data, 4, seed=2).x)


def test_probe_of_a_regression_takes_rows_per_output():
    x = np.arange(12, dtype=np.float32)[:, np.newaxis]
    data = Dataset("r", x, np.repeat(x, 2, axis=1), x, np.repeat(x, 2, axis=1), None)
    batch = probe(data, 3, seed=0)
    assert batch.x.shape == (6, 1) and len(set(rows_of(batch))) == 6
    assert np.array_equal(batch.y[:, 1], batch.x[:, 0])
    assert len(probe(data, 100, seed=0).x) == 12


@pytest.mark.parametrize("per_class", [0, True, 1.0])
def test_probe_refuses_bad_counts(per_class):
    with pytest.raises(UsageError, match="per class"):
        probe(numbered(6), per_class, 0)
