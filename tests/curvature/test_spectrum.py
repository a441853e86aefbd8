"""Lanczos against dense eigenvalues; the spectral density against its exact form."""

import numpy as np
import pytest

from minisparse.curvature import hessian, hessian_eigenpairs, lanczos, spectral_density, top_eigenpairs
from minisparse.errors import NonFiniteError, UsageError
from minisparse.nn import CrossEntropy
from tests.curvature.nets import case, mlp


def symmetric(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return (q * values) @ q.T


def test_basis_is_orthonormal_and_tridiagonalises():
    rng = np.random.default_rng(0)
    m = symmetric(10.0 ** np.linspace(-8, 4, 40), rng)
    alpha, beta, q = lanczos(lambda v: m @ v, rng.standard_normal(40), 40, rng)
    np.testing.assert_allclose(q @ q.T, np.eye(40), atol=1e-13)
    t = np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1)
    np.testing.assert_allclose(q @ m @ q.T, t, atol=1e-9)


def test_top_eigenpairs_of_a_known_matrix_with_signs_and_repetitions():
    rng = np.random.default_rng(1)
    values = np.concatenate([[9.0, -8.0, 5.0, 5.0, -4.0], rng.uniform(-1, 1, 45)])
    m = symmetric(values, rng)
    theta, vectors = top_eigenpairs(lambda v: m @ v, 50, 5, rng)
    np.testing.assert_allclose(theta, [9, -8, 5, 5, -4], atol=1e-9)
    np.testing.assert_allclose(m @ vectors.T, vectors.T * theta, atol=1e-7)


@pytest.mark.parametrize("m", [np.eye(6), np.zeros((6, 6)), np.diag([3.0, 3, 3, -1, -1, 0])])
def test_exhausted_krylov_spaces(m):
    rng = np.random.default_rng(2)
    theta, vectors = top_eigenpairs(lambda v: m @ v, 6, 6, rng)
    np.testing.assert_allclose(np.sort(theta), np.sort(np.diag(m)), atol=1e-12)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(6), atol=1e-12)
    assert len(lanczos(lambda v: m @ v, rng.standard_normal(6), 6)[0]) < 6


@pytest.mark.parametrize("seed", range(3))
def test_hessian_of_a_network(seed):
    rng = np.random.default_rng(seed)
    c = case(mlp([4, 6, 3], "tanh", rng), CrossEntropy(), 8, rng)
    values = np.linalg.eigvalsh(hessian(*c))
    best = values[np.argsort(-np.abs(values))][:4]
    theta, vectors = hessian_eigenpairs(*c, k=4, rng=rng)
    np.testing.assert_allclose(theta, best, rtol=1e-9)
    assert vectors.shape == (4, len(values))


def test_density_integrates_to_one_and_has_the_trace_as_its_mean():
    rng = np.random.default_rng(3)
    c = case(mlp([3, 4, 2], "tanh", rng), CrossEntropy(), 8, rng)
    values = np.linalg.eigvalsh(hessian(*c))
    grid = np.linspace(values.min() - 1, values.max() + 1, 2000)
    step = grid[1] - grid[0]
    sigma = 0.05
    estimate = spectral_density(*c, grid=grid, sigma=sigma, rng=rng, probes=200, steps=40)
    assert estimate.sum() * step == pytest.approx(1, abs=1e-6)
    assert (estimate * grid).sum() * step == pytest.approx(values.mean(), rel=0.1)
    kernel = np.exp(-(((grid[:, None] - values) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))
    exact = kernel.mean(axis=1)
    assert np.abs(estimate - exact).sum() * step < 0.15


def test_errors():
    rng = np.random.default_rng(4)
    with pytest.raises(UsageError, match="at most 3"):
        top_eigenpairs(lambda v: v, 3, 4, rng)
    with pytest.raises(UsageError, match="eigenvalues"):
        top_eigenpairs(lambda v: v, 3, 0, rng)
    with pytest.raises(NonFiniteError, match="Lanczos"):
        lanczos(lambda v: v * np.nan, np.ones(3), 2)
    c = case(mlp([3, 2], "tanh", rng), CrossEntropy(), 2, rng)
    with pytest.raises(UsageError, match="sigma"):
        spectral_density(*c, grid=np.zeros(1), sigma=0.0, rng=rng)
