"""DCTWeight: the transform's numbers, equality with the explicit matrix, complex-step gradients."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.curvature import hvp
from minisparse.nn.conv import Conv2d
from minisparse.nn.linear import Linear
from minisparse.nn.loss import LOSSES
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD
from minisparse.nn.pool import Flatten
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.weights.csr import CSRWeight
from minisparse.weights.dct import DCTWeight, cosine_columns, cosine_rows
from tests.strategies import SETTINGS, generators
from tests.weights.checks import check, masked, modes


def explicit(out, inputs):
    """M (out, in) of equation (1), entry by entry."""
    n = max(out, inputs)
    i, k = np.arange(out)[:, None], np.arange(inputs)
    c = np.where(i == 0, np.sqrt(1 / n), np.sqrt(2 / n))
    return c * np.cos(np.pi * (2 * k + 1) * i / (2 * n))


def weight_of(out, inputs, rng, share=0.3, scale=0.7):
    sparse = MaskedWeight(rng.standard_normal((out, inputs)), mask=rng.random((out, inputs)) < share)
    return DCTWeight(sparse, scale)


def test_the_numbers_of_a_transform_of_four():
    a, b = 0.653281, 0.270598
    known = [[0.5, 0.5, 0.5, 0.5], [a, b, -b, -a], [0.5, -0.5, -0.5, 0.5], [b, -a, a, -b]]
    matrix = cosine_rows(np.eye(4), 4).T
    np.testing.assert_allclose(matrix, known, atol=1e-6)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-15)
    np.testing.assert_allclose(cosine_rows(np.ones((1, 4)), 4), [[2, 0, 0, 0]], atol=1e-15)
    row = cosine_rows(np.array([[1.0, 2, 3, 4]]), 4)
    np.testing.assert_allclose(row, [[5, -2.230442, 0, -0.158513]], atol=1e-6)


@SETTINGS
@given(st.integers(1, 20), st.integers(1, 20), generators)
def test_it_is_its_matrix(out, inputs, rng):
    weight = weight_of(out, inputs, rng)
    m, s = explicit(out, inputs), weight.sparse.dense()
    dense = 0.7 * m + s
    x, dy = rng.standard_normal((5, inputs)), rng.standard_normal((5, out))
    np.testing.assert_allclose(weight.dense(), dense, rtol=0, atol=1e-12)
    np.testing.assert_allclose(weight.apply(x, EVAL), x @ dense.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(weight.pull(dy), dy @ dense, rtol=0, atol=1e-12)
    weight.pullback(x, dy)
    dw = dy.T @ x
    np.testing.assert_allclose(weight.sparse.param.grad, dw * weight.sparse.mask, rtol=0, atol=1e-12)
    np.testing.assert_allclose(weight.scale.grad, [(dw * m).sum()], rtol=0, atol=1e-11)
    assert weight.mask.all() and weight.kept == np.count_nonzero(weight.sparse.mask)


@SETTINGS
@given(st.integers(1, 20), st.integers(1, 20), generators)
def test_lengths_are_kept_where_nothing_is_cut(out, inputs, rng):
    x, dy = rng.standard_normal((3, inputs)), rng.standard_normal((3, out))
    y, dx = cosine_rows(x, out), cosine_columns(dy, inputs)
    for before, after, fits in ((x, y, out >= inputs), (dy, dx, inputs >= out)):
        first, second = (np.linalg.norm(a, axis=1) for a in (before, after))
        assert (second <= first * (1 + 1e-12)).all()
        if fits:
            np.testing.assert_allclose(second, first, rtol=1e-12)
    assert (y * dy).sum() == pytest.approx((x * dx).sum(), abs=1e-11)


@pytest.mark.parametrize("image", [False, True])
def test_gradients_are_the_complex_step(image):
    rng = np.random.default_rng(0)
    weight = DCTWeight(masked(rng, 0.5), 0.6)
    weight.carrier = weight.sparse  # where the check finds the support
    check(weight, rng, modes(0)["evaluation"], image)


def test_a_convolution_is_that_of_the_explicit_matrix():
    rng = np.random.default_rng(1)
    sparse = MaskedWeight(rng.standard_normal((4, 18)), (4, 3, 3, 2), rng.random((4, 18)) < 0.4)
    weight, window = DCTWeight(sparse, -0.5), Window.of((3, 2), (2, 1), 1)
    plain = MaskedWeight(-0.5 * explicit(4, 18) + sparse.dense(), (4, 3, 3, 2))
    x = rng.standard_normal((2, 3, 5, 4))
    ours, theirs = Conv2d(weight, window), Conv2d(plain, window)
    y = theirs.forward(x)
    np.testing.assert_allclose(ours.forward(x), y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.backward(y), theirs.backward(y), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.dense_grad(), theirs.dense_grad(), rtol=0, atol=1e-12)


def test_the_sparse_part_may_be_stored_in_rows():
    rng = np.random.default_rng(2)
    masked_ = weight_of(9, 14, rng)
    stored = DCTWeight(CSRWeight.from_dense(masked_.sparse.dense(), masked_.sparse.mask), 0.7)
    x, dy = rng.standard_normal((6, 14)), rng.standard_normal((6, 9))
    np.testing.assert_allclose(stored.apply(x, EVAL), masked_.apply(x, EVAL), rtol=0, atol=1e-12)
    np.testing.assert_allclose(stored.pull(dy), masked_.pull(dy), rtol=0, atol=1e-12)
    for weight in (stored, masked_):
        weight.pullback(x, dy)
    grads = masked_.sparse.param.grad[masked_.sparse.mask]
    np.testing.assert_allclose(stored.sparse.param.grad, grads, rtol=0, atol=1e-12)
    np.testing.assert_allclose(stored.scale.grad, masked_.scale.grad, rtol=1e-12)


def test_hessian_vector_product_of_a_network():
    rng = np.random.default_rng(3)
    conv = Conv2d(DCTWeight(masked(rng, 0.5), 0.8), Window.of((3, 2)), rng.standard_normal(4))
    fc = Linear(weight_of(3, 24, rng), rng.standard_normal(3))
    network = Network({"conv": conv, "flatten": Flatten(), "fc": fc}, (2, 4, 4))
    x, y, loss = rng.standard_normal((7, 2, 4, 4)), rng.integers(0, 3, 7), LOSSES["cross-entropy"]()
    v = {}
    for k, p in network.params().items():
        support = network.prunable()[k.rpartition(".")[0]].weight.sparse.mask
        d = rng.standard_normal(p.value.shape)
        v[k] = d * support if d.shape == support.shape else d
    got = hvp(network, loss, x, y, v)
    twin = network.astype(np.complex128)
    for k, p in twin.params().items():
        p.value += 1e-30j * v[k]
    loss.value(twin.forward(x.astype(complex)), y)
    twin.backward(loss.grad(), need_dx=False)
    for k, p in twin.params().items():
        np.testing.assert_allclose(got[k], p.grad.imag / 1e-30, rtol=1e-10, atol=1e-12, err_msg=k)


def test_a_full_support_spans_every_matrix():
    rng = np.random.default_rng(4)
    weight, wanted = DCTWeight(MaskedWeight(np.zeros((5, 8)))), rng.standard_normal((5, 8))
    weight.assign(wanted)
    np.testing.assert_allclose(weight.dense(), wanted, atol=1e-14)
    np.testing.assert_allclose(weight.sparse.dense(), wanted - explicit(5, 8), atol=1e-14)


def test_rewiring_moves_the_support_and_the_full_mask_leaves_it():
    rng = np.random.default_rng(5)
    weight = weight_of(6, 7, rng)
    before, old = weight.sparse.dense().copy(), weight.sparse.mask
    np.testing.assert_array_equal(weight.rewire(weight.mask)["weight"] >= 0, old.ravel())
    np.testing.assert_array_equal(weight.sparse.dense(), before)
    new = rng.random((6, 7)) < 0.3
    source = weight.rewire(new)["weight"].reshape(6, 7)
    np.testing.assert_array_equal(source >= 0, old & new)
    np.testing.assert_array_equal(weight.sparse.dense(), np.where(old & new, before, 0))
    np.testing.assert_allclose(weight.dense() - weight.sparse.dense(), 0.7 * explicit(6, 7), atol=1e-14)


def test_restoring_a_network_and_copies():
    rng = np.random.default_rng(6)
    network = Network({"fc": Linear(weight_of(4, 6, rng))}, (6,))
    saved, x = network.state(), rng.standard_normal((3, 6))
    y = network.forward(x)
    twin = copy.deepcopy(network)
    for p in network.params().values():
        p.value[...] = 3
    np.testing.assert_array_equal(twin.forward(x), y)
    network.restore(saved)
    np.testing.assert_array_equal(network.forward(x), y)
    small = network.astype(np.float32).forward(x.astype(np.float32))
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, y, atol=1e-5)


def test_the_scale_does_not_decay():
    network = Network({"fc": Linear(weight_of(4, 6, np.random.default_rng(7)))}, (6,))
    before = network.state()
    SGD(0.0, weight_decay=0.5).step(network, 0.1)
    assert network.state()["fc.scale"] == before["fc.scale"]
    np.testing.assert_allclose(network.state()["fc.weight"], 0.95 * before["fc.weight"])
