"""LASSO: soft threshold, the conditions of its optimum, least squares without a penalty, exact counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import NonFiniteError, ShapeError, UsageError
from minisparse.methods.structured.lasso import (
    choose,
    largest_penalty,
    lasso,
    soft_threshold,
    violation,
)
from tests.strategies import SETTINGS, seeds

Array = np.ndarray


def problem(rng: np.random.Generator, samples: int, size: int, noise: float = 0.3) -> tuple[Array, Array]:
    """G and g of a correlated design with a sparse truth."""
    z = rng.standard_normal((samples, size)) @ (np.eye(size) + 0.3 * rng.standard_normal((size, size)) / size)
    truth = rng.standard_normal(size) * (rng.random(size) < 0.5)
    y = z @ truth + noise * rng.standard_normal(samples)
    return z.T @ z / samples, z.T @ y / samples


def objective(beta: Array, gram: Array, target: Array, penalty: float) -> float:
    return float(beta @ gram @ beta / 2 - target @ beta + penalty * np.abs(beta).sum())


def test_worked_example_with_orthogonal_columns():
    """y = sum of columns of energies 1, 1/4 and 4, lambda = .3: beta = max(0, 1 - lambda / energy)."""
    gram = np.diag([1.0, 0.25, 4.0])
    np.testing.assert_allclose(lasso(gram, np.diag(gram), 0.3), [0.7, 0.0, 0.925], rtol=1e-15)


@SETTINGS
@given(st.integers(1, 12), seeds)
def test_on_an_orthonormal_design_it_is_the_soft_threshold_of_the_projections(size, seed):
    rng = np.random.default_rng(seed)
    z = np.sqrt(30) * np.linalg.qr(rng.standard_normal((30, size)))[0]
    y = rng.standard_normal(30)
    target, penalty = z.T @ y / 30, 0.2 * rng.random()
    found = lasso(z.T @ z / 30, target, penalty)
    np.testing.assert_allclose(found, soft_threshold(target, penalty), atol=1e-12)


@SETTINGS
@given(st.integers(1, 15), st.floats(0, 1.2), seeds)
def test_the_conditions_of_the_optimum_hold_and_no_neighbour_is_better(size, share, seed):
    rng = np.random.default_rng(seed)
    gram, target = problem(rng, 4 * size + 5, size)
    penalty = share * largest_penalty(target)
    beta = lasso(gram, target, penalty, sweeps=20000)
    assert violation(beta, gram, target, penalty) <= 1e-9 * largest_penalty(target)
    best = objective(beta, gram, target, penalty)
    for scale in (1e-3, 1.0):
        near = beta + scale * rng.standard_normal(size)
        assert objective(near, gram, target, penalty) >= best - 1e-12


def test_violation_sees_what_is_not_optimal():
    gram, target = problem(np.random.default_rng(0), 40, 6)
    beta = lasso(gram, target, 0.1)
    active, idle = np.flatnonzero(beta)[0], np.zeros(6)
    moved = beta.copy()
    moved[active] += 0.1
    assert violation(moved, gram, target, 0.1) > 1e-2
    assert violation(idle, gram, target, 0.1) == pytest.approx(largest_penalty(target) - 0.1)


@SETTINGS
@given(st.integers(1, 10), seeds)
def test_without_a_penalty_it_is_least_squares(size, seed):
    gram, target = problem(np.random.default_rng(seed), 10 * size + 20, size)
    np.testing.assert_allclose(
        lasso(gram, target, 0.0, sweeps=50000), np.linalg.solve(gram, target), rtol=1e-6, atol=1e-8
    )


@SETTINGS
@given(st.integers(1, 10), seeds)
def test_everything_is_zero_from_the_largest_penalty_on_and_not_before(size, seed):
    gram, target = problem(np.random.default_rng(seed), 40, size)
    top = largest_penalty(target)
    assert not lasso(gram, target, top).any()
    assert np.flatnonzero(lasso(gram, target, 0.999 * top)).tolist() == [np.abs(target).argmax()]


def test_a_start_changes_the_way_but_not_the_end():
    rng = np.random.default_rng(3)
    gram, target = problem(rng, 60, 8)
    start = rng.standard_normal(8)
    kept = start.copy()
    np.testing.assert_allclose(lasso(gram, target, 0.1, start), lasso(gram, target, 0.1), atol=1e-12)
    np.testing.assert_array_equal(start, kept)


def test_a_variable_that_is_always_zero_has_no_coefficient():
    gram, target = problem(np.random.default_rng(1), 30, 5)
    gram[2], gram[:, 2], target[2] = 0, 0, 0
    assert lasso(gram, target, 0.0, start=np.ones(5))[2] == 0
    assert not choose(gram, target, 4)[2]


@SETTINGS
@given(st.integers(1, 14), st.data(), seeds)
def test_exactly_as_many_stay_as_asked_of_those_that_are_live(size, data, seed):
    rng = np.random.default_rng(seed)
    gram, target = problem(rng, 3 * size, size)
    live = rng.random(size) < 0.8
    keep = data.draw(st.integers(0, int(live.sum())))
    chosen = choose(gram, target, keep, live)
    assert chosen.sum() == keep and not (chosen & ~live).any()


@SETTINGS
@given(st.integers(2, 10), seeds)
def test_what_is_chosen_is_the_support_of_a_lasso_where_one_has_that_size(size, seed):
    gram, target = problem(np.random.default_rng(seed), 5 * size, size)
    for keep in range(1, size):
        chosen = choose(gram, target, keep)
        penalties = np.linspace(0, largest_penalty(target), 400)
        supports = [lasso(gram, target, p) != 0 for p in penalties]
        sizes = [int(s.sum()) for s in supports]
        if keep in sizes:
            assert any((chosen == s).all() for s in supports if s.sum() == keep)


def test_on_an_orthogonal_design_those_of_largest_projection_stay_and_ties_go_to_the_lower_index():
    target = np.array([0.1, -3.0, 2.0, 0.5, 2.0, 0.0])
    gram = np.eye(6)
    assert np.flatnonzero(choose(gram, target, 1)).tolist() == [1]
    assert np.flatnonzero(choose(gram, target, 2)).tolist() == [1, 2]
    assert np.flatnonzero(choose(gram, target, 3)).tolist() == [1, 2, 4]
    assert choose(gram, target, 6).all() and not choose(gram, target, 0).any()


def test_where_the_count_jumps_the_larger_contribution_at_the_jump_stays():
    """Both leave 0 at lambda = 2, where beta = (2 - lambda) / G: the first contributes twice as much."""
    gram, target = np.diag([1.0, 4.0, 1.0]), np.array([2.0, 2.0, 0.5])
    assert np.flatnonzero(choose(gram, target, 1)).tolist() == [0]
    assert np.flatnonzero(choose(gram, target, 2)).tolist() == [0, 1]


def test_of_two_copies_one_is_enough():
    """Without noise, one of each pair explains everything: the pair never stays before another variable."""
    rng = np.random.default_rng(5)
    z = rng.standard_normal((100, 4))
    z = np.concatenate([z, z[:, :2]], axis=1)
    y = z[:, :4] @ np.array([1.0, 1.5, 2.0, 2.5])
    chosen = choose(z.T @ z / 100, z.T @ y / 100, 4)
    assert chosen[2] and chosen[3] and chosen[[0, 4]].sum() == 1 and chosen[[1, 5]].sum() == 1


def test_what_is_no_such_problem_is_refused():
    gram, target = np.eye(3), np.ones(3)
    with pytest.raises(ShapeError):
        lasso(np.eye(2), target, 0.1)
    with pytest.raises(NonFiniteError):
        lasso(gram, np.array([1, np.nan, 0]), 0.1)
    for bad in (-0.1, float("nan"), True, "0.1"):
        with pytest.raises(UsageError):
            lasso(gram, target, bad)
    for keep in (-1, 4):
        with pytest.raises(UsageError):
            choose(gram, target, keep)
