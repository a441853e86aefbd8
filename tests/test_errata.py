"""Mistakes that are met in print and in published code (docs/errata.md), made here and shown to be mistakes.

Each test computes what is right in an independent way, finds the library on its side and the mistake
elsewhere. Most errata are held by tests of their own method; what is here belongs to none.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisparse.curvature.full import hessian
from minisparse.curvature.inverse import inverse_by_vectors
from minisparse.methods.reconstruct.obs import compensation
from minisparse.methods.saliency.karnin import path_sensitivity
from minisparse.nn.activation import Activation
from minisparse.nn.linear import Linear
from minisparse.nn.loss import MSE
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.weight import MaskedWeight
from minisparse.sparsity.measure import dead_units
from minisparse.sparsity.sample import sample_distinct
from minisparse.sparsity.select import top_k
from minisparse.weights.condensed import CondensedWeight
from tests.methods.problems import chain
from tests.oracles.complex_step import derivative


def stationary(h: np.ndarray, w: np.ndarray, q: int, sign: float) -> np.ndarray:
    """u where u^T H u / 2 + m (e_q^T u + sign w_q) is stationary in u and m."""
    e = np.eye(len(w))[q]
    system = np.block([[h, e[:, None]], [e[None], np.zeros((1, 1))]])
    return np.linalg.solve(system, np.append(np.zeros(len(w)), -sign * w[q]))[:-1]


def positive_definite(n: int, rng: np.random.Generator) -> np.ndarray:
    a = rng.standard_normal((n, n))
    return a @ a.T + 0.1 * np.eye(n)


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_lagrangian_of_obs_has_plus_w(n, seed):
    rng = np.random.default_rng(seed)
    h, w, q = positive_definite(n, rng), rng.standard_normal(n), int(rng.integers(n))
    right, wrong = stationary(h, w, q, 1.0), stationary(h, w, q, -1.0)
    np.testing.assert_allclose(compensation(w, np.linalg.inv(h), np.array([q])), right, rtol=1e-6, atol=1e-9)
    assert (w + right)[q] == pytest.approx(0, abs=1e-9)
    assert (w + wrong)[q] == pytest.approx(2 * w[q])


def test_the_hessian_of_the_squared_error_adds_output_minus_target_times_curvature():
    """f = v tanh(w x), two parameters and three samples, every derivative by hand."""
    w, v = 0.7, -1.3
    x, y = np.array([[0.5], [-1.1], [2.0]]), np.array([[1.0], [0.2], [-0.4]])
    t = np.tanh(w * x[:, 0])
    s = 1 - t**2
    slope = np.stack([v * x[:, 0] * s, t])
    curvature = np.array([[-2 * v * x[:, 0] ** 2 * t * s, x[:, 0] * s], [x[:, 0] * s, 0 * t]])
    residual = v * t - y[:, 0]
    squares, rest = slope @ slope.T / 3, (curvature * residual).mean(axis=-1)
    found = hessian(chain([[w]], [[v]], activation="tanh"), MSE(), x, y)
    np.testing.assert_allclose(found, squares + rest, rtol=1e-12)
    assert np.abs(found - (squares - rest)).max() > 0.1


def test_the_inverse_recursion_needs_the_damping_as_its_start():
    """Fewer samples than weights: without H_0 = alpha I the sum has no inverse."""
    q, alpha = np.random.default_rng(0).standard_normal((4, 6)), 1e-3
    outer = q.T @ q / 4
    assert np.linalg.matrix_rank(outer) == 4
    found = inverse_by_vectors(q, alpha)
    np.testing.assert_allclose(found @ (alpha * np.eye(6) + outer), np.eye(6), atol=1e-9)


def test_karnin_does_not_remove_the_weight_that_moved_least():
    """L = sum h (w - a)^2 / 2 descended from 0: weight 0 hardly moves, and is worth ten times as much."""
    h, a, rate = np.array([1000.0, 1.0]), np.array([0.1, 1.0]), 1e-5
    w, shadow = np.zeros(2), np.zeros(2)
    for _ in range(2_000):
        step = -rate * h * (w - a)
        shadow -= h * (w - a) * step
        w += step
        # weight 1 is brought to its end as well, at a rate of its own
        other = -1e-2 * (w[1] - a[1])
        shadow[1] -= (w[1] - a[1]) * other
        w[1] += other
    moved, score = np.abs(w), path_sensitivity(shadow, np.zeros(2), w)
    np.testing.assert_allclose(score, h * a**2 / 2, rtol=1e-2)
    assert moved[0] < moved[1] and score[0] > score[1]


def test_the_slope_of_a_logistic_output_is_taken_at_its_argument_not_at_its_value():
    """One logistic layer under the squared error; the mean's 1/n belongs to the gradient as well."""
    rng = np.random.default_rng(1)
    weight, x, target = 3 * rng.standard_normal((2, 3)), rng.standard_normal((5, 3)), rng.random((5, 2))

    def logistic(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    def loss(w: np.ndarray) -> np.ndarray:
        return ((logistic(x @ w.T) - target) ** 2).sum() / (2 * len(x))

    network = Network({"fc": Linear(MaskedWeight(weight.copy())), "act": Activation("sigmoid")}, (3,))
    mse = MSE()
    mse.value(network.forward(x), target)
    network.backward(mse.grad())
    found = network.params()["fc.weight"].grad
    units = np.eye(6).reshape(6, 2, 3)
    right = np.array([derivative(loss, weight, unit) for unit in units]).reshape(2, 3)
    np.testing.assert_allclose(found, right, rtol=1e-12)

    y = logistic(x @ weight.T)
    twice = (y - target) * logistic(y) * (1 - logistic(y))
    assert np.abs(twice.T @ x / len(x) - right).max() > 0.1 * np.abs(right).max()


def test_drawing_edges_with_replacement_leaves_fewer_than_were_drawn():
    """k draws among n places hit n (1 - (1 - 1/n)^k) of them in the mean; what is asked for are k."""
    n, k, times = 400, 200, 200
    rng = np.random.default_rng(2)
    hit = [np.unique(rng.integers(0, n, k)).size for _ in range(times)]
    mean = n * (1 - (1 - 1 / n) ** k)
    assert abs(np.mean(hit) - mean) < 4 * np.std(hit) / np.sqrt(times)
    assert max(hit) < k
    assert all(np.unique(sample_distinct(k, n, rng)).size == k for _ in range(times))


def test_a_unit_whose_weights_sum_to_zero_is_alive():
    """Whether a unit has inputs is asked of its mask, never of the sum of its weights."""
    dense = np.array([[1.0, -1.0, 0.0], [0.0, 2.0, 0.5], [0.0, 0.0, 0.0]])
    weight = CondensedWeight.from_dense(dense, dense != 0)
    x = np.random.default_rng(3).standard_normal((4, 3))
    y = weight.apply(x, EVAL)
    np.testing.assert_allclose(y, x @ dense.T, rtol=1e-12)
    assert dense.sum(axis=1)[0] == 0 and y[:, 0].any()
    np.testing.assert_array_equal(dead_units(weight.mask)[1], [False, False, True])


def test_a_threshold_at_the_kth_value_prunes_one_more():
    """The k smallest of distinct values are below the sorted value of index k; 'not above' takes it too."""
    values = np.random.default_rng(4).permutation(10) + 1.0
    k = 2
    threshold = np.sort(values)[k]
    assert np.count_nonzero(~(values > threshold)) == k + 1
    np.testing.assert_array_equal(~top_k(values, len(values) - k), values < threshold)
