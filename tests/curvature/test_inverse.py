"""Woodbury recursions, removal from an inverse, and Cholesky with adaptive damping."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisparse.curvature import (
    cholesky_inverse,
    damped_cholesky,
    flatten,
    ggn_matrix,
    inverse_by_blocks,
    inverse_by_vectors,
    jacobian,
    remove,
)
from minisparse.errors import NonFiniteError, ShapeError, UsageError
from minisparse.nn import MSE
from tests.curvature.nets import case, mlp


def spd(d: int, rng: np.random.Generator) -> np.ndarray:
    q = rng.standard_normal((d, 2 * d))
    return q @ q.T / (2 * d) + 0.1 * np.eye(d)


def test_worked_example():
    """q = (1, 0), (1, 1), N = 2, alpha = 1/2: P_1 = diag(1, 2), P_2 = [[.8, -.4], [-.4, 1.2]]."""
    q = np.array([[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(inverse_by_vectors(q[:1], 0.5, count=2), [[1, 0], [0, 2]], atol=1e-15)
    want = [[0.8, -0.4], [-0.4, 1.2]]
    np.testing.assert_allclose(inverse_by_vectors(q, 0.5), want, atol=1e-15)
    np.testing.assert_allclose(inverse_by_blocks(q, 0.5), want, atol=1e-15)
    np.testing.assert_allclose(np.linalg.inv([[1.5, 0.5], [0.5, 1]]), want, atol=1e-15)


def test_diagonal_for_one_factor():
    """diag P = (1 - g^2 / (alpha + |g|^2)) / alpha."""
    p = inverse_by_blocks(np.array([[1.0, 2.0, 2.0]]), 0.5)
    np.testing.assert_allclose(np.diag(p), [1.789474, 1.157895, 1.157895], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(1, 12),
    st.sampled_from([1, 2, 7, 64]),
    st.sampled_from([1e-4, 0.3, 50.0]),
    st.integers(0, 2**32 - 1),
)
def test_vectors_blocks_and_direct_inverse_agree(m, d, block, alpha, seed):
    q = np.random.default_rng(seed).standard_normal((m, d))
    count = max(m, 1)
    direct = np.linalg.inv(alpha * np.eye(d) + q.T @ q / count)
    by_vectors, by_blocks = inverse_by_vectors(q, alpha), inverse_by_blocks(q, alpha, block=block)
    scale = np.abs(direct).max()
    np.testing.assert_allclose(by_vectors, direct, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(by_blocks, direct, rtol=0, atol=1e-10 * scale)
    np.testing.assert_array_equal(by_blocks, by_blocks.T)


def test_ggn_of_a_network_through_its_columns():
    """MSE: P from q = df_c/dw, N = n, is the inverse of alpha I + GGN."""
    rng = np.random.default_rng(0)
    c = case(mlp([3, 4, 2], "tanh", rng), MSE(), 6, rng)
    j = jacobian(c.network, c.x)
    q = np.stack([flatten({k: a[o, n] for k, a in j.items()}) for o in range(2) for n in range(6)])
    p = inverse_by_blocks(q, 0.01, count=6)
    np.testing.assert_allclose(p @ (ggn_matrix(*c) + 0.01 * np.eye(len(p))), np.eye(len(p)), atol=1e-11)


def test_inputs_are_not_changed_and_float32_is_worked_on_in_float64():
    q = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    kept = q.copy()
    p = inverse_by_blocks(q, 1e-6)
    assert p.dtype == np.float64
    np.testing.assert_array_equal(q, kept)
    p2 = p.copy()
    remove(p, 1)
    np.testing.assert_array_equal(p, p2)


@pytest.mark.parametrize("seed", range(5))
def test_removal_leaves_the_inverse_of_the_rest_in_any_order(seed):
    rng = np.random.default_rng(seed)
    h = spd(7, rng)
    p = np.linalg.inv(h)
    gone = rng.permutation(7)[:4]
    for q in gone:
        p = remove(p, int(q))
    rest = np.setdiff1d(np.arange(7), gone)
    np.testing.assert_allclose(p[np.ix_(rest, rest)], np.linalg.inv(h[np.ix_(rest, rest)]), rtol=1e-10)
    assert (p[gone] == 0).all() and (p[:, gone] == 0).all()


def test_removing_twice_is_an_error():
    p = remove(np.linalg.inv(spd(3, np.random.default_rng(0))), 1)
    with pytest.raises(UsageError, match="pivot 0"):
        remove(p, 1)


def test_cholesky_of_a_definite_matrix_needs_nothing():
    h = spd(6, np.random.default_rng(0))
    root, amount = damped_cholesky(h)
    assert amount == 0
    np.testing.assert_allclose(root @ root.T, h, atol=1e-14)
    np.testing.assert_allclose(cholesky_inverse(root), np.linalg.inv(h), rtol=1e-10)


def test_damping_is_relative_to_the_mean_of_the_diagonal():
    h = np.diag([1.0, 2.0, 6.0])
    root, amount = damped_cholesky(h, 0.01)
    assert amount == pytest.approx(0.03)
    np.testing.assert_allclose(root @ root.T, h + 0.03 * np.eye(3), atol=1e-15)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_singular_gram_is_damped_and_the_amount_reported(scale):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, 9))
    h = scale * (x.T @ x)
    root, amount = damped_cholesky(h)
    assert 0 < amount < 1e-5 * np.trace(h)
    np.testing.assert_allclose(root @ root.T, h + amount * np.eye(9), rtol=0, atol=1e-14 * np.abs(h).max())


def test_pivot_that_is_a_rounding_error_counts_as_singular():
    eps = np.finfo(np.float64).eps
    assert damped_cholesky(np.array([[1.0, 1.0], [1.0, 1.0 + eps]]))[1] > 0
    assert damped_cholesky(np.array([[1.0, 1.0], [1.0, 1.0 + 1e-10]]))[1] == 0


def test_matrix_that_is_slightly_indefinite_is_raised_until_it_works():
    h = np.diag([1.0, 1.0, -1e-6])
    root, amount = damped_cholesky(h, 1e-9)
    assert 1e-6 < amount < 2e-5
    assert np.isfinite(root).all()


def test_dead_inputs_and_zero_matrix():
    root, amount = damped_cholesky(np.diag([1.0, 0.0, 2.0]))
    assert amount > 0 and np.isfinite(root).all()
    root, amount = damped_cholesky(np.zeros((3, 3)), 0.5)
    assert amount == 0.5
    np.testing.assert_allclose(root, np.sqrt(0.5) * np.eye(3))


def test_bad_scaling_is_not_taken_for_singularity():
    d = 10.0 ** np.array([-100, -20, 0, 20, 100])
    h = spd(5, np.random.default_rng(3)) * np.outer(d, d)
    root, amount = damped_cholesky(h)
    assert amount == 0
    np.testing.assert_allclose((root @ root.T) / np.outer(d, d), h / np.outer(d, d), rtol=1e-12)


def test_errors_are_ours():
    with pytest.raises(UsageError, match="semidefinite"):
        damped_cholesky(-np.eye(3))
    with pytest.raises(NonFiniteError, match="2 NaN"):
        damped_cholesky(np.array([[1.0, np.nan], [np.inf, 1.0]]))
    for bad in (np.zeros((2, 3)), np.zeros(3), np.zeros((0, 0))):
        with pytest.raises(ShapeError):
            damped_cholesky(bad)
    for damping in (-1.0, np.nan, np.inf, True, "1"):
        with pytest.raises(UsageError, match="damping"):
            damped_cholesky(np.eye(2), damping)
    for inverse in (inverse_by_vectors, inverse_by_blocks):
        for damping in (0, -1.0, np.nan, np.inf, True):
            with pytest.raises(UsageError, match="damping"):
                inverse(np.ones((1, 2)), damping)
        for tiny in (1e-18, 1e-320):
            with pytest.raises(UsageError, match="Raise the damping"):
                inverse(np.ones((1, 2)), tiny)
        with pytest.raises(NonFiniteError):
            inverse(np.array([[np.nan, 1.0]]), 1.0)
        with pytest.raises(ShapeError):
            inverse(np.ones(3), 1.0)
        for count in (0, -1, True, 1.5):
            with pytest.raises(UsageError, match="count"):
                inverse(np.ones((1, 2)), 1.0, count=count)
    for block in (0, -2, True, 1.5):
        with pytest.raises(UsageError, match="block"):
            inverse_by_blocks(np.ones((1, 2)), 1.0, block=block)
