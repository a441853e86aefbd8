"""Kronecker factors and Gram matrices against explicit Fisher matrices and sums over loops."""

import numpy as np
import pytest

from minisparse.curvature import (
    Gram,
    KroneckerFactors,
    empirical_fisher_matrix,
    fisher_diagonal,
    ggn_matrix,
    input_grams,
    kfac,
    kfac_empirical,
    kfac_sampled,
    per_sample_gradients,
)
from minisparse.errors import NonFiniteError, ShapeError, UsageError
from minisparse.nn import EVAL, MSE, Activation, CrossEntropy, Network
from minisparse.nn.loss import softmax
from tests.curvature.nets import LOSSES, case, linear, mlp, small_cnn


def homogeneous_order(out: int, inputs: int) -> np.ndarray:
    """Positions in flat [W, b] of the row-major entries of the matrix [W | b]."""
    w = np.arange(out * inputs).reshape(out, inputs)
    return np.concatenate([w, out * inputs + np.arange(out)[:, None]], axis=1).ravel()


@pytest.mark.parametrize("loss", LOSSES)
def test_one_layer_one_sample_is_exact(loss):
    rng = np.random.default_rng(0)
    c = case(mlp([4, 3], "tanh", rng), loss(), 1, rng)
    order = homogeneous_order(3, 4)
    for factors, fisher in ((kfac(*c), ggn_matrix(*c)), (kfac_empirical(*c), empirical_fisher_matrix(*c))):
        np.testing.assert_allclose(factors["fc1"].matrix(), fisher[np.ix_(order, order)], atol=1e-15)


def test_one_sample_in_a_deeper_network_gives_each_layers_own_block():
    rng = np.random.default_rng(1)
    c = case(mlp([4, 5, 3], "tanh", rng), CrossEntropy(), 1, rng)
    whole = ggn_matrix(*c)
    order = homogeneous_order(5, 4)
    np.testing.assert_allclose(kfac(*c)["fc1"].matrix(), whole[np.ix_(order, order)], atol=1e-15)


def test_softmax_regression_with_independent_inputs_and_cotangents():
    """All pairs of 3 inputs and 2 logits shifts: x and p are independent, so S (x) A is exact."""
    rng = np.random.default_rng(2)
    layers = {"a": linear(3, 3, rng, bias=False)}
    network = Network(layers, (3,))
    null = np.eye(3)[:1]  # W x depends on x[0] only, the rest of x is free
    layers["a"].weight.param.value[:, 1:] = 0
    first, rest = rng.standard_normal(4), rng.standard_normal((5, 2))
    x = np.array([[f, *r] for f in first for r in rest])
    c_target = np.zeros(len(x), dtype=int)
    factors = kfac(network, CrossEntropy(), x, c_target)["a"]
    want = ggn_matrix(network, CrossEntropy(), x, c_target)
    block = np.array([o * 3 + i for o in range(3) for i in (1, 2)])
    np.testing.assert_allclose(factors.matrix()[np.ix_(block, block)], want[np.ix_(block, block)], atol=1e-14)
    # control: x[0] and p are dependent, and there the factors are only an approximation
    assert np.abs(factors.matrix() - want).max() > 1e-3
    assert null.shape == (1, 3)


def test_factors_by_their_definition_with_loops_over_samples_and_positions():
    rng = np.random.default_rng(3)
    c = case(small_cnn("tanh", rng), CrossEntropy(), 3, rng)
    factors = kfac_empirical(*c)
    network = c.network
    c.loss.value(network.forward(c.x, EVAL), c.target)
    network.backward(c.loss.grad() * len(c.x))
    for name, layer in network.prunable().items():
        rows, corows = layer.rows, layer.corows
        n, positions = rows.shape[:2]
        a, s = 0, 0
        for k in range(n):
            for p in range(positions):
                x = np.append(rows[k, p], 1)
                a = a + np.outer(x, x) / n
                s = s + np.outer(corows[k, p], corows[k, p]) / (n * positions)
        np.testing.assert_allclose(factors[name].a, a, rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(factors[name].s, s, rtol=1e-12, atol=1e-16)
        assert factors[name].bias


@pytest.mark.parametrize("make", [kfac, kfac_empirical])
def test_memory_bound_does_not_change_the_factors(make):
    rng = np.random.default_rng(10)
    c = case(small_cnn("tanh", rng), CrossEntropy(), 7, rng)
    whole, cut = make(*c), make(*c, chunk_bytes=3000)
    for name in whole:
        np.testing.assert_allclose(cut[name].a, whole[name].a, rtol=1e-12)
        np.testing.assert_allclose(cut[name].s, whole[name].s, rtol=1e-12, atol=1e-18)


def test_true_factor_is_the_expectation_over_classes():
    rng = np.random.default_rng(4)
    c = case(mlp([4, 5, 3], "tanh", rng), CrossEntropy(), 4, rng)
    p = softmax(c.network.forward(c.x, EVAL))
    s = 0
    for k in range(3):
        for n in range(4):
            one = per_sample_gradients(c.network, c.loss, c.x[n : n + 1], np.array([k]))["fc1.bias"][0]
            s = s + p[n, k] * np.outer(one, one) / 4
    np.testing.assert_allclose(kfac(*c)["fc1"].s, s, rtol=1e-12)


def test_sampled_factors_approach_the_true_ones():
    rng = np.random.default_rng(5)
    c = case(mlp([4, 5, 3], "tanh", rng), CrossEntropy(), 6, rng)
    true = kfac(*c)
    few = kfac_sampled(*c, rng=np.random.default_rng(0), draws=4)
    many = kfac_sampled(*c, rng=np.random.default_rng(0), draws=4000)
    for name in true:
        scale = np.abs(true[name].s).max()
        assert np.abs(many[name].s - true[name].s).max() < 0.06 * scale
        assert np.abs(few[name].s - true[name].s).max() > np.abs(many[name].s - true[name].s).max()
        np.testing.assert_array_equal(many[name].a, true[name].a)


def test_diagonal_and_quadratic_of_the_factors():
    rng = np.random.default_rng(6)
    a, s = (m @ m.T for m in (rng.standard_normal((3, 3)), rng.standard_normal((2, 2))))
    factors = KroneckerFactors(a, s, bias=False)
    d = rng.standard_normal((2, 3))
    np.testing.assert_allclose(factors.diagonal().ravel(), np.diag(factors.matrix()))
    assert factors.quadratic(d) == pytest.approx(d.ravel() @ factors.matrix() @ d.ravel(), rel=1e-12)


def test_layers_without_bias_and_one_sample_diagonal():
    rng = np.random.default_rng(7)
    layers = {"a": linear(3, 4, rng, bias=False), "f": Activation("tanh"), "b": linear(4, 2, rng)}
    c = case(Network(layers, (3,)), MSE(), 1, rng)
    factors = kfac(*c)
    assert factors["a"].a.shape == (3, 3) and not factors["a"].bias
    np.testing.assert_allclose(factors["a"].diagonal(), fisher_diagonal(*c)["a.weight"], rtol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_gram_is_the_mean_over_rows_whatever_the_batches(bias):
    rng = np.random.default_rng(8)
    network = small_cnn("relu", rng)
    x = rng.standard_normal((7, 2, 4, 4))
    whole = input_grams(network, [x], bias)
    parts = input_grams(network, [x[:3], x[3:4], x[4:]], bias)
    network.forward(x, EVAL)
    for name, layer in network.prunable().items():
        rows = [np.append(r, 1) if bias else r for r in layer.rows.reshape(-1, layer.rows.shape[-1])]
        want = sum(np.outer(r, r) for r in rows) / len(rows)
        np.testing.assert_allclose(whole[name], want, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(parts[name], want, rtol=1e-12, atol=1e-15)


def test_gram_is_the_hessian_of_the_reconstruction_error():
    rng = np.random.default_rng(9)
    c = case(mlp([4, 2], "tanh", rng, bias=False), MSE(), 6, rng)
    np.testing.assert_allclose(
        ggn_matrix(*c), np.kron(np.eye(2), input_grams(c.network, [c.x])["fc1"]), atol=1e-14
    )


def test_gram_of_float32_rows_is_summed_in_float64():
    rows = np.full((3000, 1), 1 / 3, dtype=np.float32)
    gram = Gram(1)
    gram.add(rows)
    assert gram.mean.dtype == np.float64
    assert gram.mean[0, 0] == pytest.approx(float(rows[0, 0]) ** 2, rel=1e-14)


def test_gram_errors():
    gram = Gram(2)
    with pytest.raises(UsageError, match="0 rows"):
        _ = gram.mean
    with pytest.raises(ShapeError, match="width 3"):
        gram.add(np.zeros((1, 3)))
    with pytest.raises(NonFiniteError, match="NaN"):
        gram.add(np.array([[1.0, np.nan]]))
