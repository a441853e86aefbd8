"""GraSP: closed forms on quadratic losses, the sign, the temperature, and the gradient norm it speaks of."""

import numpy as np
import pytest
from hypothesis import given

from minisparse.curvature import gradient
from minisparse.errors import UsageError
from minisparse.methods.initial.grasp import GraSP, Tempered, gradient_flow, hessian_gradient
from minisparse.nn.loss import LOSSES
from minisparse.sparsity.select import top_k
from tests.methods.problems import chain, clusters, conv_net, mlp, state_of
from tests.strategies import SETTINGS, seeds

Array = np.ndarray
A = np.array([[2.0, 3, 0], [3, 5, 0], [0, 0, 1]])
W = np.array([1, -0.5, 0.7])


def quadratic_state(a: Array, w: Array):
    """A linear network with the mse loss w^T A w / 2: inputs are a root of n A, targets are 0."""
    root = np.linalg.cholesky(len(a) * a).T
    return state_of(chain([w]), root, np.zeros((len(a), 1)), loss="mse")


def removal_order(method: GraSP, state) -> list[int]:
    score = method.score(state)["fc1"][0]
    return list(np.argsort(score))


def positive(a: Array) -> Array:
    """The worked example's A has eigenvalue 0.146...: positive definite."""
    assert np.linalg.eigvalsh(a).min() > 0
    return a


def test_diagonal_quadratic():
    """A = diag(1, 2, 3), w = (3, -1, .5): S = -w A^2 w = (-9, -4, -2.25); index 2 leaves first."""
    w = np.array([3, -1, 0.5])
    state = quadratic_state(np.diag([1.0, 2, 3]), w)
    hg = hessian_gradient(state.network, state.loss, state.probe_x, state.probe_t)
    s = gradient_flow({"fc1": w[None]}, hg)["fc1"]
    np.testing.assert_allclose(s, [[-9, -4, -2.25]], rtol=1e-12)
    assert removal_order(GraSP(temperature=1), state) == [2, 1, 0]


def test_sign():
    """S = (-2.5, 2, -.49): GraSP removes index 1 first; by |S| it would be index 2, inverted index 0."""
    state = quadratic_state(positive(A), W)
    hg = hessian_gradient(state.network, state.loss, state.probe_x, state.probe_t)
    np.testing.assert_allclose(hg["fc1"], [[2.5, 4, 0.7]], rtol=1e-12)
    s = gradient_flow({"fc1": W[None]}, hg)["fc1"]
    np.testing.assert_allclose(s, [[-2.5, 2, -0.49]], rtol=1e-12)
    assert removal_order(GraSP(temperature=1), state) == [1, 2, 0]
    assert np.argmin(np.abs(s)) == 2 and np.argmin(s) == 0
    GraSP(1 / 3, temperature=1).setup(state)
    np.testing.assert_array_equal(state.network.prunable()["fc1"].weight.mask, [[True, False, True]])


@SETTINGS
@given(seeds)
def test_closed_form_on_any_quadratic_and_the_order_where_it_is_diagonal(seed):
    """S = -w (A A w), and for diagonal A the weights leave by |a w|, the smallest first."""
    rng = np.random.default_rng(seed)
    root, w = rng.standard_normal((5, 5)), rng.standard_normal(5)
    a = root @ root.T + np.eye(5)
    state = quadratic_state(a, w)
    np.testing.assert_allclose(GraSP(temperature=1).score(state)["fc1"][0], w * (a @ a @ w), rtol=1e-9)
    a = rng.uniform(0.2, 3, 5)
    assert removal_order(GraSP(temperature=1), quadratic_state(np.diag(a), w)) == list(
        np.argsort(np.abs(a * w))
    )


def test_at_the_published_temperature_the_loss_adds_no_curvature():
    """Equation (3): a linear network has only the first term, and H g shrinks like 1 / T^3."""
    assert GraSP().temperature == 200
    data = clusters(np.random.default_rng(3), (6,))
    x, t = data.train_x.astype(np.float64), data.train_y
    deep, flat = (mlp(widths, np.random.default_rng(4), biases=False) for widths in ((6, 8, 3), (6, 3)))
    ratios = []
    for network in (flat, deep):
        state = state_of(network, x, t)
        low, high = (GraSP(temperature=tau).score(state)["fc1"] for tau in (200.0, 2000.0))
        ratios.append(np.linalg.norm(low) / np.linalg.norm(high))
    np.testing.assert_allclose(ratios, [1e3, 1e2], rtol=0.1)


def test_shrinking_a_weight_changes_the_gradient_norm_by_twice_s():
    e = 1e-7
    g = A @ W
    for q, s in enumerate([-2.5, 2, -0.49]):
        less = W.copy()
        less[q] *= 1 - e
        change = np.sum((A @ less) ** 2) - np.sum(g**2)
        assert change / e == pytest.approx(2 * s, rel=1e-5)


@SETTINGS
@given(seeds)
def test_s_is_the_derivative_of_the_gradient_norm_of_any_network(seed):
    """Central difference of |g|^2 / 2 over the weights along -w_q e_q, all other parameters fixed."""
    rng = np.random.default_rng(seed)
    network = mlp((3, 4, 2), rng, activation="tanh")
    x, t, loss = rng.standard_normal((6, 3)), rng.integers(0, 2, 6), LOSSES["cross-entropy"]()
    weights = {n: layer.weight.dense().copy() for n, layer in network.prunable().items()}
    s = gradient_flow(weights, hessian_gradient(network, loss, x, t))

    def half_norm() -> float:
        g = gradient(network, loss, x, t)
        return sum(float(np.sum(g[f"{n}.weight"] ** 2)) for n in weights) / 2

    name = ("fc1", "fc2")[rng.integers(2)]
    q = tuple(rng.integers(k) for k in weights[name].shape)
    value, e, ends = network.prunable()[name].weight.param.value, 1e-5, []
    for sign in (1, -1):
        value[q] = weights[name][q] * (1 - sign * e)
        ends.append(half_norm())
    value[q] = weights[name][q]
    assert (ends[0] - ends[1]) / (2 * e) == pytest.approx(s[name][q], rel=1e-6, abs=1e-9)


def test_sum_is_minus_w_h_g_and_a_scaled_loss_scales_by_its_square():
    rng = np.random.default_rng(0)
    network = mlp((4, 5, 3), rng)
    x, t, loss = rng.standard_normal((8, 4)), rng.integers(0, 3, 8), LOSSES["cross-entropy"]()
    weights = {n: layer.weight.dense() for n, layer in network.prunable().items()}
    hg = hessian_gradient(network, loss, x, t)
    s = gradient_flow(weights, hg)
    assert sum(a.sum() for a in s.values()) == pytest.approx(-sum((weights[n] * hg[n]).sum() for n in hg))

    class Triple(Tempered):
        def grad(self):
            return 3 * super().grad()

        def rgrad(self, ry):
            return 3 * super().rgrad(ry)

    tripled = gradient_flow(weights, hessian_gradient(network, Triple(loss, 1.0), x, t))
    for name in s:
        np.testing.assert_allclose(tripled[name], 9 * s[name], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_tempered_loss_is_the_loss_of_divided_outputs(name):
    rng = np.random.default_rng(1)
    y, t = (
        rng.standard_normal((5, 3)),
        rng.integers(0, 3, 5) if name == "cross-entropy" else rng.random((5, 3)),
    )
    loss, direction, h, tau = Tempered(LOSSES[name](), 7.0), rng.standard_normal((5, 3)), 1e-20, 7.0
    assert loss.value(y, t) == LOSSES[name]().value(y / tau, t)
    grad, rgrad, root = loss.grad(), loss.rgrad(direction), loss.sqrt_hessian()
    assert loss.value(y + 1j * h * direction, t).imag / h == pytest.approx(np.sum(grad * direction))
    np.testing.assert_allclose(loss.grad().imag / h, rgrad, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(np.einsum("vno,vnp,np->no", root, root, direction), rgrad, atol=1e-14)
    loss.value(y, t)
    drawn = loss.sample(np.random.default_rng(2))
    loss.loss.value(y / tau, t)
    np.testing.assert_allclose(drawn, loss.loss.sample(np.random.default_rng(2)) / tau)


def test_temperature_is_more_than_a_scale():
    """T^2 S converges as T grows, and ranks at T = 1 are others."""
    data = clusters(np.random.default_rng(3), (6,))
    state = state_of(mlp((6, 8, 3), np.random.default_rng(4)), data.train_x.astype(np.float64), data.train_y)

    def scores(t: float) -> Array:
        return t * t * np.concatenate([s.ravel() for s in GraSP(temperature=t).score(state).values()])

    size = np.abs(scores(200)).max()
    assert np.abs(scores(200) - scores(2000)).max() < 0.05 * size
    kept = [top_k(scores(t), 20) for t in (1.0, 200.0, 2000.0)]
    assert (kept[0] != kept[1]).any() and (kept[1] & kept[2]).sum() >= 19


def test_only_weights_take_part_and_precision_does_not_matter():
    """Scores of a float32 network are computed in float64; biases do not move along g."""
    data = clusters(np.random.default_rng(5), (2, 6, 6))
    network = conv_net(np.random.default_rng(6), np.float32)
    single = GraSP().score(state_of(network, data.train_x, data.train_y))
    double = GraSP().score(state_of(network.astype(np.float64), data.train_x, data.train_y))
    for name in single:
        assert single[name].dtype == np.float64
        np.testing.assert_allclose(single[name], double[name], rtol=1e-12)
    biased, bare = mlp((3, 2), np.random.default_rng(7)), mlp((3, 2), np.random.default_rng(7))
    bare.prunable()["fc1"].bias = None
    x, t = np.random.default_rng(8).standard_normal((6, 3)), np.zeros((6, 2))
    loss = LOSSES["mse"]()
    g = gradient(bare, loss, x, t)["fc1.weight"]
    np.testing.assert_allclose(hessian_gradient(bare, loss, x, t)["fc1"], g @ x.T @ x / 6, rtol=1e-12)
    g = gradient(biased, loss, x, t)["fc1.weight"]
    np.testing.assert_allclose(hessian_gradient(biased, loss, x, t)["fc1"], g @ x.T @ x / 6, rtol=1e-12)


def test_weights_behind_silent_inputs_score_zero():
    x = np.random.default_rng(9).standard_normal((8, 4))
    x[:, 2] = 0
    state = state_of(mlp((4, 5, 3), np.random.default_rng(10)), x, np.arange(8) % 3)
    assert not GraSP().score(state)["fc1"][:, 2].any()


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), "200", True])
def test_unusable_temperatures_are_refused(bad):
    with pytest.raises(UsageError):
        GraSP(temperature=bad)
