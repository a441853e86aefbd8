"""The two forms of a damped inverse, and coordinates leaving them."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import MethodError
from minisparse.methods.reconstruct.block_inverse import (
    BlockSum,
    DenseInverse,
    LowRankInverse,
    check_memory,
    gigabytes,
    invert_blocks,
    is_low_rank,
)
from tests.strategies import SETTINGS, seeds

sizes = st.integers(1, 9)


def both(n: int, k: int, alpha: float, seed: int):
    """Dense and low-rank inverse of alpha I + F F^T, and that matrix."""
    f = np.random.default_rng(seed).standard_normal((n, k))
    h = alpha * np.eye(n) + f @ f.T
    return DenseInverse(np.linalg.inv(h)), LowRankInverse(f.copy(), alpha), h


@SETTINGS
@given(sizes, sizes, st.sampled_from([0.1, 0.5, 40.0]), seeds)
def test_both_forms_are_the_inverse(n, k, alpha, seed):
    """1 - f^T M f costs the low-rank form about (H_qq / alpha)^2 roundings."""
    dense, low, h = both(n, k, alpha, seed)
    p, at = np.linalg.inv(h), np.arange(n)[::2]
    v = np.random.default_rng(seed).standard_normal(n)
    for form in (dense, low):
        np.testing.assert_allclose(form.diagonal, np.diag(p), rtol=1e-9)
        np.testing.assert_allclose(form.submatrix(at), p[np.ix_(at, at)], rtol=0, atol=1e-10 / alpha)
        np.testing.assert_allclose(form.times(v), p @ v, rtol=0, atol=1e-9 / alpha)


@SETTINGS
@given(st.integers(2, 9), sizes, st.sampled_from([1e-2, 0.5]), seeds)
def test_after_leaving_what_remains_is_the_inverse_of_the_smaller_matrix(n, k, alpha, seed):
    rng = np.random.default_rng(seed)
    order, values = rng.permutation(n)[: n - 1], rng.standard_normal(n)
    cut = rng.integers(0, n)
    for form in both(n, k, alpha, seed)[:2]:
        h = both(n, k, alpha, seed)[2]
        gone: list[int] = []
        for at in (order[:cut], order[cut:]):
            if not len(at):
                continue
            left = [q for q in range(n) if q not in gone]
            p = np.zeros((n, n))
            p[np.ix_(left, left)] = np.linalg.inv(h[np.ix_(left, left)])
            expected = p[:, at] @ np.linalg.solve(p[np.ix_(at, at)], values[at])
            np.testing.assert_allclose(form.leave(at, values[at])[left], expected[left], rtol=1e-7, atol=1e-8)
            gone += list(at)
        left = [q for q in range(n) if q not in gone]
        rest = np.linalg.inv(h[np.ix_(left, left)])
        np.testing.assert_allclose(form.diagonal[left], np.diag(rest), rtol=1e-8)
        np.testing.assert_allclose(form.submatrix(np.array(left)), rest, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(form.times(values)[left], rest @ values[left], rtol=1e-7, atol=1e-8)
        assert not form.diagonal[gone].any()


def test_the_diagonal_keeps_its_digits_under_tiny_damping():
    """1 - f^T M f cancels where the data determine a weight; 1 / H_qq bounds what is left."""
    f = np.array([[1e6], [1.0]])
    low = LowRankInverse(f, 1e-8)
    assert (low.diagonal >= 1 / (1e-8 + f[:, 0] ** 2)).all()


def test_the_smaller_form_is_chosen():
    """n k + k^2 against n^2: 50,200 weights and 1,280 factors are 0.5 GB instead of 20 GB."""
    assert is_low_rank(10, 5) and not is_low_rank(10, 7) and not is_low_rank(4, 100)
    assert BlockSum(10, 5).array.shape == (10, 5) and BlockSum(10, 7).array.shape == (10, 10)
    assert gigabytes([50_200], 1280) == pytest.approx(0.527, abs=1e-3)
    assert gigabytes([50_200], 10**6) == pytest.approx(20.16, abs=1e-2)


@SETTINGS
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 12), seeds, st.booleans())
def test_blocks_are_inverses_of_diagonal_blocks(widths, factors, seed, relative):
    q = np.random.default_rng(seed).standard_normal((factors, sum(widths)))
    parts = [q[:3], q[3:]] if factors > 3 else [q]
    blocks = invert_blocks(iter(parts), widths, factors, 0.3, relative)
    mean = np.mean(np.sum(q * q, axis=0))
    alpha = 0.3 * mean if relative else 0.3
    start = 0
    for block, width in zip(blocks, widths, strict=True):
        part = q[:, start : start + width]
        p = np.linalg.inv(part.T @ part + alpha * np.eye(width))
        np.testing.assert_allclose(block.submatrix(np.arange(width)), p, atol=1e-9)
        start += width


def test_factors_that_are_all_zero_give_the_identity():
    (block,) = invert_blocks(iter([np.zeros((2, 3))]), [3], 2, 0.5, relative=True)
    np.testing.assert_allclose(block.submatrix(np.arange(3)), 2 * np.eye(3))


def test_memory_is_said_and_bounded(caplog):
    with caplog.at_level(logging.INFO, "minisparse.methods.reconstruct"):
        check_memory("obs", [50_200], 1280, budget=1.0)
    assert "0.527 GB" in caplog.text and "20.2 GB" in caplog.text and "50,200 weights" in caplog.text
    with pytest.raises(MethodError, match=r"got 0\.527 GB, expected at most 0\.5 GB"):
        check_memory("obs", [50_200], 1280, budget=0.5)
