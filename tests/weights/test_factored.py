"""FactoredWeight: it is its dense matrix, with complex-step gradients of its core, which is all it trains."""

import numpy as np
import pytest

from minisparse.curvature import hvp
from minisparse.errors import MethodError, ShapeError
from minisparse.nn.conv import Conv2d
from minisparse.nn.linear import Linear
from minisparse.nn.loss import LOSSES
from minisparse.nn.mode import EVAL
from minisparse.nn.network import Network
from minisparse.nn.pool import Flatten
from minisparse.nn.weight import MaskedWeight
from minisparse.nn.window import Window
from minisparse.weights.factored import FactoredWeight

GEOMETRIES = {"linear": (5, 7, 1, 1), "conv": (4, 3, 3, 2)}


def factored(kind: str, rng: np.random.Generator, rows: int = 3, columns: int = 2) -> FactoredWeight:
    out, channels, kh, kw = GEOMETRIES[kind]
    left = np.linalg.qr(rng.standard_normal((out, rows)))[0]
    right = np.linalg.qr(rng.standard_normal((channels, columns)))[0]
    return FactoredWeight(
        left, rng.standard_normal((rows, kh * kw * columns)), right, (out, channels, kh, kw)
    )


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_it_acts_as_its_dense_matrix(kind):
    rng = np.random.default_rng(0)
    weight = factored(kind, rng)
    out, channels, kh, kw = weight.geometry
    core = weight.core.value.reshape(3, kh * kw, 2)
    dense = np.einsum("or,rtk,ck->otc", weight.left, core, weight.right).reshape(weight.shape)
    np.testing.assert_allclose(weight.dense(), dense, atol=1e-14)
    x, dy = rng.standard_normal((6, weight.shape[1])), rng.standard_normal((6, out))
    np.testing.assert_allclose(weight.apply(x, EVAL), x @ dense.T, atol=1e-13)
    np.testing.assert_allclose(weight.pull(dy), dy @ dense, atol=1e-13)
    assert weight.kept == weight.core.value.size == 3 * kh * kw * 2
    assert weight.mask.all() and weight.mask.shape == weight.shape


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_gradient_is_the_complex_step_derivative(kind):
    rng = np.random.default_rng(1)
    weight = factored(kind, rng)
    x, dy = rng.standard_normal((6, weight.shape[1])), rng.standard_normal((6, weight.shape[0]))
    weight.pullback(x, dy)
    for q in np.ndindex(weight.core.value.shape):
        core = weight.core.value.astype(complex)
        core[q] += 1e-30j
        other = FactoredWeight(weight.left, core, weight.right, weight.geometry)
        slope = np.sum(dy * other.apply(x.astype(complex), EVAL)).imag / 1e-30
        assert weight.core.grad[q] == pytest.approx(slope, rel=1e-12, abs=1e-13)


def test_hessian_vector_product_of_a_network_with_factored_layers():
    rng = np.random.default_rng(2)
    layers = {
        "conv": Conv2d(factored("conv", rng), Window.of((3, 2), padding=1), rng.standard_normal(4)),
        "flatten": Flatten(),
        "fc": Linear(MaskedWeight(rng.standard_normal((3, 4 * 4 * 5)) / 9)),
    }
    network, loss = Network(layers, (3, 4, 4)), LOSSES["cross-entropy"]()
    x, t = rng.standard_normal((5, 3, 4, 4)), rng.integers(0, 3, 5)
    core = layers["conv"].weight.core
    v = rng.standard_normal(core.value.shape)
    product = hvp(network, loss, x, t, {"conv.core": v})["conv.core"]
    old, ends = core.value.copy(), []
    for e in (1e-5, -1e-5):
        core.value[...] = old + e * v
        loss.value(network.forward(x), t)
        network.backward(loss.grad())
        ends.append(core.grad.copy())
    np.testing.assert_allclose(product, (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_assign_takes_the_nearest_core_and_all_of_it_when_nothing_is_missing(kind):
    rng = np.random.default_rng(3)
    out, channels, _, _ = GEOMETRIES[kind]
    full, target = factored(kind, rng, out, channels), rng.standard_normal(factored(kind, rng).shape)
    full.assign(target)
    np.testing.assert_allclose(full.dense(), target, atol=1e-13)
    weight = factored(kind, rng)
    weight.assign(target)
    best = np.sum((weight.dense() - target) ** 2)
    for _ in range(20):
        weight.core.value += 0.1 * rng.standard_normal(weight.core.value.shape)
        assert np.sum((weight.dense() - target) ** 2) > best
        weight.assign(target)


def test_entries_cannot_be_removed():
    weight = factored("linear", np.random.default_rng(4))
    source = weight.rewire(weight.mask)["core"]
    np.testing.assert_array_equal(source, np.arange(weight.core.value.size))
    mask = weight.mask
    mask[0, 0] = False
    with pytest.raises(MethodError):
        weight.rewire(mask)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError):
        FactoredWeight(np.eye(5, 2), np.ones((3, 2)), np.eye(7, 2), (5, 7, 1, 1))
    with pytest.raises(ShapeError):
        FactoredWeight(np.eye(4, 2), np.ones((2, 5)), np.eye(3, 1), (4, 3, 2, 1))
