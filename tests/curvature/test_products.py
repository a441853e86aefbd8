"""Gradients, per-sample gradients, Hessian-vector products, the full Hessian, and trees."""

import numpy as np
import pytest

from minisparse.curvature import (
    exact_diagonal,
    flatten,
    gradient,
    hessian,
    hessian_operator,
    hvp,
    hvps,
    inner,
    per_sample_gradients,
    unflatten,
)
from minisparse.curvature.full import asymmetry
from minisparse.curvature.tree import values
from minisparse.errors import ShapeError, UnknownNameError, UsageError
from minisparse.nn import EVAL, MSE, CrossEntropy
from tests.curvature.nets import LOSSES, Case, case, mlp, random_case, small_cnn
from tests.curvature.oracles import close, gradient_of_sample, product_by_complex_step
from tests.reliability.counts import examples


def random_tree(c: Case, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A direction that is 0 at absent weights."""
    masks = {f"{n}.weight": layer.weight.mask for n, layer in c.network.prunable().items()}
    return {k: rng.standard_normal(a.shape) * masks.get(k, 1) for k, a in values(c.network).items()}


@pytest.mark.parametrize("seed", range(40))
def test_gradient_and_per_sample_gradients(seed):
    c = random_case(np.random.default_rng(seed))
    g, each = gradient(*c), per_sample_gradients(*c)
    for k in range(len(c.x)):
        want = gradient_of_sample(c, k)
        close({name: a[k] for name, a in each.items()}, want, rtol=1e-12, atol=1e-15)
    close({name: a.mean(axis=0) for name, a in each.items()}, g, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("seed", range(examples(40, 100, 1_000)))
def test_product_equals_complex_step(seed):
    rng = np.random.default_rng(seed)
    c = random_case(rng)
    v = random_tree(c, rng)
    close(hvp(*c, v), product_by_complex_step(c, v), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("seed", range(examples(40, 100, 1_000)))
def test_product_is_symmetric(seed):
    rng = np.random.default_rng(seed)
    c = random_case(rng)
    u, v = random_tree(c, rng), random_tree(c, rng)
    hu, hv = hvps(*c, [u, v])
    scale = np.sqrt(inner(u, u) * inner(hv, hv))
    flat = 1e-3 * np.sqrt(inner(u, u) * inner(v, v))  # where there is no curvature rounding errors are left
    assert abs(inner(u, hv) - inner(v, hu)) <= 1e-12 * max(scale, flat)


@pytest.mark.parametrize("loss", LOSSES)
def test_full_hessian_product_and_diagonal_agree(loss):
    rng = np.random.default_rng(0)
    for network in (mlp([3, 4, 2], "gelu", rng), small_cnn("tanh", rng)):
        c = case(network, loss(), 3, rng)
        full = hessian(*c)
        v = rng.standard_normal(len(full))
        product = flatten(hvp(*c, unflatten(v, values(c.network))))
        np.testing.assert_allclose(full @ v, product, rtol=0, atol=1e-12 * np.abs(product).max())
        np.testing.assert_allclose(np.diag(full), flatten(exact_diagonal(*c)), rtol=1e-10, atol=1e-13)


def test_columns_are_symmetric_before_they_are_symmetrised():
    rng = np.random.default_rng(1)
    c = case(mlp([3, 4, 2], "tanh", rng), CrossEntropy(), 4, rng)
    operator = hessian_operator(*c)
    raw = operator @ np.eye(operator.shape[0])
    assert asymmetry(raw) < 1e-14
    np.testing.assert_allclose(raw, hessian(*c), atol=1e-14)
    assert asymmetry(np.array([[1.0, 2.0], [0.0, 1.0]])) == 1
    assert asymmetry(np.zeros((2, 2))) == 0


def test_quadratic_loss_in_closed_form():
    """One linear layer, MSE: H = I (x) X^T X / n, whatever the weights."""
    rng = np.random.default_rng(2)
    c = case(mlp([3, 2], "tanh", rng, bias=False), MSE(), 5, rng)
    np.testing.assert_allclose(hessian(*c), np.kron(np.eye(2), c.x.T @ c.x / 5), atol=1e-15)


def test_missing_names_are_zero_directions():
    rng = np.random.default_rng(3)
    c = case(mlp([3, 4, 2], "tanh", rng), MSE(), 4, rng)
    v = random_tree(c, rng)
    part = {"fc2.weight": v["fc2.weight"]}
    padded = {k: a if k in part else np.zeros_like(a) for k, a in v.items()}
    close(hvp(*c, part), hvp(*c, padded), rtol=0)


def test_nothing_of_the_network_is_left_changed():
    rng = np.random.default_rng(4)
    c = case(mlp([3, 4, 2], "tanh", rng), MSE(), 4, rng)
    c.loss.value(c.network.forward(c.x, EVAL), c.target)
    c.network.backward(c.loss.grad())
    before = {k: (p.value.copy(), p.grad.copy()) for k, p in c.network.params().items()}
    gradient(c.network, c.loss, 2 * c.x, c.target)
    hvp(*c, random_tree(c, rng))
    for k, p in c.network.params().items():
        np.testing.assert_array_equal(p.value, before[k][0])
        np.testing.assert_array_equal(p.grad, before[k][1])
        assert p.direction is None and p.rgrad.size == 0


def test_directions_are_cleared_after_an_error():
    rng = np.random.default_rng(5)
    c = case(mlp([3, 4, 2], "tanh", rng), MSE(), 4, rng)

    def fail(ry):
        raise RuntimeError("stop")

    c.loss.rgrad = fail
    with pytest.raises(RuntimeError, match="stop"):
        hvp(*c, random_tree(c, rng))
    assert all(p.direction is None for p in c.network.params().values())


def test_errors():
    rng = np.random.default_rng(6)
    c = case(mlp([3, 2], "tanh", rng), MSE(), 4, rng)
    with pytest.raises(UnknownNameError, match="fc1.weight"):
        hvp(*c, {"fc1.wieght": np.zeros((2, 3))})
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        hvp(*c, {"fc1.weight": np.zeros((3, 2))})
    with pytest.raises(UsageError, match="8 parameters"):
        hessian(*c, limit=7)
    with pytest.raises(ShapeError, match="flat"):
        unflatten(np.zeros(7), values(c.network))


def test_flatten_round_trip():
    rng = np.random.default_rng(7)
    c = case(small_cnn("relu", rng), MSE(), 1, rng)
    tree = random_tree(c, rng)
    close(unflatten(flatten(tree), tree), tree, rtol=0)


def test_float32_products_have_the_parameters_type():
    rng = np.random.default_rng(8)
    c = case(small_cnn("tanh", rng), CrossEntropy(), 3, rng)
    small = Case(c.network.astype(np.float32), c.loss, c.x.astype(np.float32), c.target)
    v = random_tree(c, rng)
    got = hvp(*small, v)
    assert all(a.dtype == np.float32 for a in got.values())
    close(got, hvp(*c, v), rtol=1e-4)
