"""The Walsh-Hadamard transform: its matrix, a NumPy twin, its own inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard

from minisparse.kernels.walsh import walsh_hadamard
from tests.strategies import SETTINGS, generators


def transformed(x):
    y = x.copy()
    walsh_hadamard(y)
    return y


def twin(x):
    """One axis of length 2 per bit of the index; each is replaced by sum and difference."""
    y = x.reshape((2,) * (x.size.bit_length() - 1))
    for axis in range(y.ndim):
        first, second = np.take(y, 0, axis), np.take(y, 1, axis)
        y = np.stack([first + second, first - second], axis)
    return y.reshape(-1)


@pytest.mark.parametrize("bits", range(9))
def test_it_is_its_matrix(bits):
    n = 1 << bits
    matrix = np.stack([transformed(e) for e in np.eye(n)], axis=1)
    np.testing.assert_array_equal(matrix, hadamard(n))
    common = [[bin(i & j).count("1") for j in range(n)] for i in range(n)]
    np.testing.assert_array_equal(matrix, (-1.0) ** np.array(common))


@SETTINGS
@given(st.integers(0, 11), generators, st.sampled_from([np.float32, np.float64]))
def test_it_is_the_twin_and_its_own_inverse(bits, rng, dtype):
    x = rng.standard_normal(1 << bits).astype(dtype)
    y = transformed(x)
    assert y.dtype == dtype
    eps = np.finfo(dtype).eps * (bits + 1) * np.abs(x).sum()
    np.testing.assert_allclose(y, twin(x), rtol=0, atol=eps)
    np.testing.assert_allclose(transformed(y) / x.size, x, rtol=0, atol=2 * eps)
    assert y @ y == pytest.approx(x.size * (x @ x), rel=1e-4)


def test_a_known_transform():
    x = np.array([1.0, 0, 1, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(transformed(x), [4, 2, 0, -2, 0, 2, 0, 2])
