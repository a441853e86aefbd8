"""Random subsets: uniform over subsets, exact counts, memory of their own size."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import ShapeError, SparsityError, UsageError
from minisparse.sparsity import ERK, FirstDense, Global, LayerShape, Uniform, kept_count
from minisparse.sparsity.sample import (
    free_positions,
    sample_counts,
    sample_distinct,
    sample_layers,
    sample_rows,
)
from tests.methods.spy import peak_bytes


def chi_square(counts):
    """Of equally likely outcomes; its mean is the degrees of freedom, its variance twice that."""
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize(
    ("count", "size", "excluded"),
    [(2, 6, []), (4, 6, []), (3, 6, []), (1, 5, [0, 4]), (2, 8, [1, 2, 5]), (4, 8, [0, 7, 3])],
)
def test_every_subset_is_equally_likely(count, size, excluded):
    rng, draws = np.random.default_rng(0), 300
    excluded = np.sort(np.array(excluded, dtype=np.int64))
    free = [i for i in range(size) if i not in excluded]
    index = {subset: k for k, subset in enumerate(combinations(free, count))}
    seen = np.zeros(len(index))
    for _ in range(draws * len(index)):
        seen[index[tuple(sample_distinct(count, size, rng, excluded).tolist())]] += 1
    freedom = len(index) - 1
    assert len(index) == comb(len(free), count)
    assert abs(chi_square(seen) - freedom) < 5 * np.sqrt(2 * freedom)


@given(st.integers(0, 60), st.sets(st.integers(0, 59)), st.integers(0, 2**32 - 1), st.data())
def test_a_sample_is_ascending_free_and_of_the_size_asked(size, barred, seed, data):
    excluded = np.array(sorted(i for i in barred if i < size), dtype=np.int64)
    count = data.draw(st.integers(0, size - excluded.size))
    found = sample_distinct(count, size, np.random.default_rng(seed), excluded)
    assert found.dtype == np.int64 and found.size == count
    assert (np.diff(found) > 0).all() and not set(found) & set(excluded)
    assert count == 0 or 0 <= found[0] <= found[-1] < size
    again = sample_distinct(count, size, np.random.default_rng(seed), excluded)
    np.testing.assert_array_equal(found, again)


@given(st.sets(st.integers(0, 39)))
def test_ranks_count_what_is_free(barred):
    excluded = np.array(sorted(barred), dtype=np.int64)
    free = np.setdiff1d(np.arange(40), excluded)
    np.testing.assert_array_equal(free_positions(np.arange(free.size), excluded), free)


@pytest.mark.parametrize(("count", "columns"), [(2, 5), (3, 5), (0, 3), (3, 3)])
def test_rows_are_sampled_uniformly_and_one_by_one(count, columns):
    rng, draws, rows = np.random.default_rng(0), 3000, 3
    seen, together = np.zeros((rows, columns)), 0.0
    for _ in range(draws):
        flat = sample_rows(count, rows, columns, rng)
        mask = np.bincount(flat, minlength=rows * columns).reshape(rows, columns)
        assert (np.diff(flat) > 0).all() and (mask.sum(axis=1) == count).all()
        seen += mask
        together += mask[0, 0] * mask[1, 0]
    p = count / columns
    assert np.abs(seen / draws - p).max() <= 5 * np.sqrt(p * (1 - p) / draws)
    assert abs(together / draws - p**2) <= 5 * np.sqrt(p**2 * (1 - p**2) / draws)


def test_counts_over_layers_are_multivariate_hypergeometric():
    rooms, total, draws = {"a": 4, "b": 10, "c": 6}, 8, 4000
    found = np.array(
        [list(sample_counts(total, rooms, np.random.default_rng(s)).values()) for s in range(draws)]
    )
    n, sizes = 20, np.array([4, 10, 6])
    assert (found.sum(axis=1) == total).all() and (found <= sizes).all()
    variance = total * sizes / n * (1 - sizes / n) * (n - total) / (n - 1)
    assert (np.abs(found.mean(axis=0) - total * sizes / n) < 5 * np.sqrt(variance / draws)).all()
    np.testing.assert_allclose(found.var(axis=0), variance, rtol=0.15)


SHAPES = {"a": LayerShape(5, 8), "b": LayerShape(4, 3, 3, 3), "c": LayerShape(2, 9)}


@pytest.mark.parametrize("allocation", [ERK(), Uniform(), FirstDense()])
def test_layers_have_the_allocations_counts(allocation):
    flats = sample_layers(SHAPES, 0.7, allocation, np.random.default_rng(0))
    assert {name: flat.size for name, flat in flats.items()} == allocation.counts(SHAPES, 0.7)
    for name, flat in flats.items():
        assert (np.diff(flat) > 0).all() and flat[-1] < SHAPES[name].size


def test_under_one_ranking_every_entry_is_as_likely_whatever_its_layer():
    size, draws = sum(shape.size for shape in SHAPES.values()), 2000
    seen = {name: np.zeros(shape.size) for name, shape in SHAPES.items()}
    for seed in range(draws):
        flats = sample_layers(SHAPES, 0.7, Global(), np.random.default_rng(seed))
        assert sum(flat.size for flat in flats.values()) == kept_count(size, 0.7)
        for name, flat in flats.items():
            seen[name][flat] += 1
    p = kept_count(size, 0.7) / size
    shares = np.concatenate(list(seen.values())) / draws
    assert np.abs(shares - p).max() < 5 * np.sqrt(p * (1 - p) / draws)


def test_memory_is_that_of_the_sample_whatever_the_size():
    rng = np.random.default_rng(0)
    few = np.arange(0, 10**12, 10**7)
    assert peak_bytes(lambda: sample_distinct(10_000, 10**12, rng, few)) < 10**7
    # nearly everything excluded: what is left has to be found, not hit
    rest = np.delete(np.arange(10**5), [17, 99_998])
    assert sample_distinct(2, 10**5, rng, rest).tolist() == [17, 99_998]


@pytest.mark.parametrize(
    ("count", "size"), [(3, 2), (-1, 2), (True, 2), (1.0, 2), (1, -1), (1, 2.0), (2, True), ("1", 2)]
)
def test_counts_are_checked(count, size):
    with pytest.raises(UsageError):
        sample_distinct(count, size, np.random.default_rng(0))
    with pytest.raises(UsageError):
        sample_rows(count, 3, size, np.random.default_rng(0))


@pytest.mark.parametrize(
    "excluded",
    [np.array([2, 1]), np.array([1, 1]), np.array([-1]), np.array([9]), np.array([0.0]), np.array([[1]])],
)
def test_excluded_positions_are_checked(excluded):
    with pytest.raises(ShapeError):
        sample_distinct(1, 9, np.random.default_rng(0), excluded)


def test_more_than_is_free_and_sparsities_outside_are_refused():
    with pytest.raises(UsageError, match="at most 2"):
        sample_distinct(3, 4, np.random.default_rng(0), np.array([0, 3]))
    for sparsity in (1.0, -0.1, float("nan")):
        with pytest.raises(SparsityError):
            sample_layers(SHAPES, sparsity, ERK(), np.random.default_rng(0))
        with pytest.raises(SparsityError):
            sample_layers(SHAPES, sparsity, Global(), np.random.default_rng(0))
