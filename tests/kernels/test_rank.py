"""Selection and sorting by digits against NumPy's sort, which compares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.kernels import rank

SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf]


@pytest.fixture(autouse=True, scope="module")
def digits_for_any_size():
    before, rank.FEW = rank.FEW, 0
    yield
    rank.FEW = before


@given(
    st.lists(st.floats(width=32, allow_nan=False) | st.sampled_from(SPECIAL), min_size=1, max_size=60),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 59),
)
def test_smallest_is_what_sorting_finds(numbers, dtype, k):
    values = np.array(numbers, dtype=dtype)
    k %= values.size
    found = rank.smallest(values, k)
    assert found.dtype == dtype and found == np.sort(values)[k]
    assert values.tobytes() == np.array(numbers, dtype=dtype).tobytes()  # the input is left alone


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keys_that_differ_in_one_bit_of_any_digit(dtype):
    bits = 8 * dtype().itemsize
    one = np.ones(1, dtype=dtype).view(f"u{bits // 8}")
    values = np.array([one[0] ^ one.dtype.type(1 << b) for b in range(bits - 2)]).view(dtype)
    values = np.concatenate([values, -values, values])
    values = values[np.isfinite(values)]
    assert [rank.smallest(values, k) for k in range(values.size)] == np.sort(values).tolist()


def test_smallest_among_ties_of_many():
    values = np.zeros(10_000, dtype=np.float32)
    values[::3] = np.random.default_rng(0).standard_normal(3334)
    for k in (0, 1111, 5000, 9999):
        assert rank.smallest(values, k) == np.sort(values)[k]


def test_smallest_of_views_and_of_other_types():
    values = np.random.default_rng(1).standard_normal(64)
    for view in (values[::2], values[::-1], values.astype(">f4"), values.astype(np.float16)):
        assert rank.smallest(view, 7) == np.sort(view)[7]
    whole = np.array([5, -3, 9, 9, 2**40])
    assert [rank.smallest(whole, k) for k in range(5)] == sorted(whole.tolist())


@given(st.lists(st.integers(0, 2**40), max_size=60), st.integers(0, 41))
def test_ascending_is_sorted(numbers, bits):
    limit = 1 << bits
    given_ = np.array([n % limit for n in numbers], dtype=np.int64)
    assert rank.ascending(given_.copy(), limit).tolist() == sorted(given_.tolist())


def test_ascending_of_a_limit_that_is_no_power_of_two():
    numbers = np.random.default_rng(2).integers(12_288_000, size=5000)
    assert rank.ascending(numbers.copy(), 12_288_000).tolist() == np.sort(numbers).tolist()
