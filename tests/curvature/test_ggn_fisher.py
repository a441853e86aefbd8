"""Gauss-Newton and Fisher: explicit Jacobians, enumeration of classes, per-sample outer products."""

import numpy as np
import pytest

from minisparse.curvature import (
    empirical_fisher_blocks,
    empirical_fisher_diagonal,
    empirical_fisher_matrix,
    fisher_diagonal,
    fisher_diagonal_sampled,
    flatten,
    ggn_diagonal,
    ggn_matrix,
    ggn_vector_product,
    gradient,
    jacobian,
    per_sample_gradients,
    unflatten,
)
from minisparse.curvature.tree import values
from minisparse.errors import UsageError
from minisparse.nn import EVAL, MSE, BinaryCrossEntropy, CrossEntropy
from minisparse.nn.loss import softmax
from tests.curvature.nets import LOSSES, case, mlp, random_case, small_cnn
from tests.curvature.oracles import close
from tests.reliability.counts import examples


def loss_hessian(c) -> np.ndarray:
    """d2L/dy_n2 (n, o, o) of the mean loss from its formula, not from its square root."""
    y = c.network.forward(c.x, EVAL)
    n, o = y.shape
    p, s = softmax(y), 1 / (1 + np.exp(-y))
    formulas = {
        "mse": np.broadcast_to(np.eye(o), (n, o, o)),
        "cross-entropy": np.stack([np.diag(q) - np.outer(q, q) for q in p]),
        "bce": np.stack([np.diag(q * (1 - q)) for q in s]),
    }
    return formulas[c.loss.name] / n


def explicit_ggn(c) -> np.ndarray:
    """J^T H J with J from one complex step of the outputs per parameter."""
    network = c.network.astype(np.complex128)
    x = c.x.astype(np.complex128)
    columns = []
    for name, p in network.params().items():
        layer = network.prunable().get(name.removesuffix(".weight"))
        mask = np.ones(p.value.size) if layer is None else layer.weight.mask.ravel()
        for i in range(p.value.size):
            kept = p.value.flat[i]
            p.value.flat[i] = kept + 1e-30j * mask[i]
            columns.append(network.forward(x, EVAL).imag / 1e-30)
            p.value.flat[i] = kept
    j = np.stack(columns, axis=-1)
    return np.einsum("nop,noq,nqr->pr", j, loss_hessian(c), j)


@pytest.mark.parametrize("seed", range(40))
def test_diagonal_matrix_and_product_against_explicit_jacobians(seed):
    rng = np.random.default_rng(seed)
    c = random_case(rng, most=60)
    want = explicit_ggn(c)
    scale = max(np.abs(want).max(), 1e-300)
    np.testing.assert_allclose(ggn_matrix(*c), want, rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(flatten(ggn_diagonal(*c)), np.diag(want), rtol=0, atol=1e-11 * scale)
    v = rng.standard_normal(len(want))
    got = flatten(ggn_vector_product(*c, unflatten(v, values(c.network))))
    reach = 1e-11 * scale * np.abs(v).sum()
    np.testing.assert_allclose(got, want @ v, rtol=0, atol=reach)


def test_trace_identity_and_jacobian_shape():
    """Sum of the diagonal = sum over columns of |J^T S|^2."""
    rng = np.random.default_rng(0)
    c = case(small_cnn("gelu", rng), CrossEntropy(), 4, rng)
    j = jacobian(c.network, c.x)
    assert j["conv1.weight"].shape == (3, 4, 3, 18)
    h = loss_hessian(c)
    trace = sum(np.einsum("onp,noq,qnp->", a, h, a) for a in (a.reshape(3, 4, -1) for a in j.values()))
    assert flatten(ggn_diagonal(*c)).sum() == pytest.approx(trace, rel=1e-12)


@pytest.mark.parametrize("seed", range(examples(20, 100, 1_000)))
def test_diagonals_of_squares_are_not_negative(seed):
    c = random_case(np.random.default_rng(seed))
    for engine in (ggn_diagonal, fisher_diagonal, empirical_fisher_diagonal):
        assert all((a >= 0).all() for a in engine(*c).values())


@pytest.mark.parametrize("seed", range(20))
def test_empirical_fisher_is_the_mean_of_outer_products(seed):
    c = random_case(np.random.default_rng(seed))
    g = per_sample_gradients(*c)
    n = len(c.x)
    close(
        empirical_fisher_diagonal(*c), {k: (a**2).mean(axis=0) for k, a in g.items()}, rtol=1e-12, atol=1e-20
    )
    rows = np.stack([flatten({k: a[i] for k, a in g.items()}) for i in range(n)])
    np.testing.assert_allclose(
        empirical_fisher_matrix(*c), sum(np.outer(r, r) for r in rows) / n, rtol=1e-12, atol=1e-20
    )


def test_fisher_of_the_mean_gradient_is_something_else():
    rng = np.random.default_rng(1)
    c = case(mlp([4, 5, 3], "tanh", rng), CrossEntropy(), 8, rng)
    wrong = {k: a**2 for k, a in gradient(*c).items()}
    right = empirical_fisher_diagonal(*c)
    assert all((right[k] > 1.01 * wrong[k]).any() for k in right)


@pytest.mark.parametrize("block", [1, 3, None])
def test_blocks_are_blocks_of_the_whole(block):
    rng = np.random.default_rng(2)
    c = case(mlp([3, 4, 2], "tanh", rng), MSE(), 6, rng)
    whole = empirical_fisher_matrix(*c)
    at = 0
    for name, blocks in empirical_fisher_blocks(*c, block=block).items():
        sizes = [len(b) for b in blocks]
        size = c.network.params()[name].value.size
        assert sum(sizes) == size and set(sizes[:-1]) <= {block}
        for b in blocks:
            np.testing.assert_allclose(b, whole[at : at + len(b), at : at + len(b)], rtol=1e-12)
            at += len(b)
    assert at == len(whole)


def enumerated_fisher(c) -> dict[str, np.ndarray]:
    """E over classes (cross-entropy) or over all 0/1 patterns (bce) of the squared gradient."""
    y = c.network.forward(c.x, EVAL)
    n, o = y.shape
    total = {k: np.zeros(p.value.shape) for k, p in c.network.params().items()}
    if c.loss.name == "cross-entropy":
        draws = [(np.full(n, k), softmax(y)[:, k]) for k in range(o)]
    else:
        s = 1 / (1 + np.exp(-y))
        patterns = [np.array([(b >> k) & 1 for k in range(o)], dtype=float) for b in range(2**o)]
        draws = [(np.tile(t, (n, 1)), np.prod(np.where(t, s, 1 - s), axis=1)) for t in patterns]
    for target, weight in draws:
        g = per_sample_gradients(c.network, c.loss, c.x, target)
        for k in total:
            total[k] += np.einsum("n,n...->...", weight, g[k] ** 2) / n
    return total


@pytest.mark.parametrize("loss", [CrossEntropy, BinaryCrossEntropy])
def test_true_fisher_is_the_expectation_over_the_models_targets_and_the_ggn(loss):
    rng = np.random.default_rng(3)
    for network in (mlp([4, 5, 3], "tanh", rng), small_cnn("relu", rng)):
        c = case(network, loss(), 4, rng)
        want = enumerated_fisher(c)
        close(fisher_diagonal(*c), want, rtol=1e-12)
        close(ggn_diagonal(*c), want, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_sampled_fisher_is_unbiased(loss):
    rng = np.random.default_rng(4)
    c = case(mlp([3, 4, 3], "tanh", rng), loss(), 5, rng)
    runs = [flatten(fisher_diagonal_sampled(*c, rng=rng, draws=5)) for _ in range(120)]
    error = np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    gap = np.abs(np.mean(runs, axis=0) - flatten(fisher_diagonal(*c)))
    assert (gap <= 4.5 * error).all()
    assert (gap > 0).any()


def test_empirical_fisher_vanishes_at_a_perfect_fit_and_the_true_one_does_not():
    rng = np.random.default_rng(5)
    c = case(mlp([3, 4, 2], "tanh", rng), MSE(), 5, rng)
    c.target = c.network.forward(c.x, EVAL)
    assert all((a == 0).all() for a in empirical_fisher_diagonal(*c).values())
    assert flatten(fisher_diagonal(*c)).max() > 0.1


def test_linear_regression_residual_variance_times_hessian():
    """MSE with residuals of variance s2 independent of x: empirical Fisher = s2 * GGN, to sampling error."""
    rng = np.random.default_rng(6)
    c = case(mlp([3, 1], "tanh", rng), MSE(), 40_000, rng)
    c.target = c.network.forward(c.x, EVAL) + 0.5 * rng.standard_normal((40_000, 1))
    ratio = flatten(empirical_fisher_diagonal(*c)) / flatten(ggn_diagonal(*c))
    np.testing.assert_allclose(ratio, 0.25, rtol=0.06)


def test_errors():
    rng = np.random.default_rng(7)
    c = case(mlp([3, 2], "tanh", rng), MSE(), 4, rng)
    for bad in (0, -1, True, 1.5, "3"):
        with pytest.raises(UsageError, match="block"):
            empirical_fisher_blocks(*c, block=bad)
        with pytest.raises(UsageError, match="draws"):
            fisher_diagonal_sampled(*c, rng=rng, draws=bad)
