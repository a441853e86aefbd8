"""The exact diagonal of the Hessian against complex steps, closed forms and its own invariances."""

from dataclasses import replace

import numpy as np
import pytest

from minisparse.curvature import exact_diagonal, ggn_diagonal, hessian, hessian_diagonal, lecun_diagonal
from minisparse.curvature import hessian_diagonal as modes_function
from minisparse.errors import MethodError, NonFiniteError, UnknownNameError, UsageError
from minisparse.nn import (
    EVAL,
    MSE,
    Activation,
    BatchNorm1d,
    CrossEntropy,
    Dropout,
    Linear,
    LinearLayer,
    MaskedWeight,
    Network,
    Residual,
    Sequence,
)
from tests.architectures import PIECEWISE_LINEAR, SMALL
from tests.curvature.nets import CURVED, LOSSES, Case, batch_norm, case, linear, mlp, random_case, small_cnn
from tests.curvature.oracles import close, diagonal_by_complex_step
from tests.reliability.counts import examples

ALL_CURVED = replace(SMALL, activations=tuple(CURVED), norm=0.5)
BLOCKS = replace(ALL_CURVED, residual=0.8, depth=4, width=3)


@pytest.mark.parametrize("space", [SMALL, ALL_CURVED, BLOCKS], ids=["any", "curved", "blocks"])
@pytest.mark.parametrize("seed", range(examples(50, 50, 334)))
def test_exact_equals_complex_step_on_random_networks(seed, space):
    c = random_case(np.random.default_rng(seed), space)
    want = diagonal_by_complex_step(c)
    # in one network of a thousand the terms of a small array cancel
    largest = max(np.abs(a).max(initial=0) for a in want.values())
    floor = examples(1e-16, 1e-16, max(1e-16, 1e-12 * largest))
    close(exact_diagonal(*c), want, rtol=1e-10, atol=floor)


def contents(network):
    """Class names of all layers, names of activations, and what shortcuts consist of."""
    for _, layer in network.walk():
        yield type(layer).__name__
        if isinstance(layer, Activation):
            yield layer.name
        if isinstance(layer, Residual):
            inside = [type(child).__name__ for child in layer.shortcut.layers.values()]
            yield f"shortcut {inside[0] if inside else 'identity'}"
        if isinstance(layer, LinearLayer) and not layer.weight.mask.all():
            yield "masked"


def test_the_random_networks_contain_everything():
    seen = set()
    for space in (SMALL, ALL_CURVED, BLOCKS):
        for seed in range(50):
            c = random_case(np.random.default_rng(seed), space)
            seen |= {c.loss.name, *contents(c.network)}
    assert seen >= {
        "Conv2d", "Linear", "BatchNorm1d", "BatchNorm2d", "MaxPool2d", "AvgPool2d", "GlobalAvgPool",
        "Flatten", "Dropout", "Residual", "shortcut identity", "shortcut SubsamplePad", "shortcut Linear",
        "shortcut Conv2d", "masked", "tanh", "gelu", "sigmoid", "softplus", "relu", "leaky-relu",
        "mse", "cross-entropy", "bce",
    }  # fmt: skip


def test_chain_in_closed_form():
    """f = w2 tanh(w1 x), L = (f - t)^2 / 2 at x = 1, w1 = 0.5, w2 = 2, t = 1."""
    layers = {
        "a": Linear(MaskedWeight(np.array([[0.5]]))),
        "tanh": Activation("tanh"),
        "b": Linear(MaskedWeight(np.array([[2.0]]))),
    }
    c = Case(Network(layers, (1,)), MSE(), np.array([[1.0]]), np.array([[1.0]]))
    t = np.tanh(0.5)
    slope, curve = 1 - t**2, -2 * t * (1 - t**2)
    ggn = (2 * slope) ** 2
    exact = ggn + (2 * t - 1) * 2 * curve
    assert ggn_diagonal(*c)["a.weight"][0, 0] == pytest.approx(ggn, rel=1e-13)
    assert exact_diagonal(*c)["a.weight"][0, 0] == pytest.approx(exact, rel=1e-13)
    assert (round(ggn, 7), round(exact, 7)) == (2.4740001, 2.5841425)
    for engine in (exact_diagonal, ggn_diagonal, lecun_diagonal):
        assert engine(*c)["b.weight"][0, 0] == pytest.approx(t**2, rel=1e-13)


def test_softmax_regression_in_closed_form():
    """H_(k,i) = 1/N sum_n p_nk (1 - p_nk) x_ni^2, by every engine but the random one."""
    c = case(mlp([4, 3], "tanh", np.random.default_rng(0)), CrossEntropy(), 6, np.random.default_rng(1))
    y = c.x @ c.network.params()["fc1.weight"].value.T + c.network.params()["fc1.bias"].value
    p = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    want = {"fc1.weight": (p * (1 - p)).T @ c.x**2 / 6, "fc1.bias": (p * (1 - p)).mean(axis=0)}
    for engine in (exact_diagonal, ggn_diagonal, lecun_diagonal):
        close(engine(*c), want, rtol=1e-13)


@pytest.mark.parametrize("seed", range(examples(20, 100, 1_000)))
def test_piecewise_linear_networks_have_no_curvature_of_their_own(seed):
    c = random_case(np.random.default_rng(seed), PIECEWISE_LINEAR)
    exact, ggn = exact_diagonal(*c), ggn_diagonal(*c)
    for name in exact:
        np.testing.assert_array_equal(exact[name], ggn[name])
        assert (ggn[name] >= 0).all()


@pytest.mark.parametrize("seed", range(examples(10, 100, 1_000)))
def test_sum_of_per_sample_diagonals(seed):
    c = random_case(np.random.default_rng(seed), ALL_CURVED)
    n = len(c.x)
    parts = [exact_diagonal(c.network, c.loss, c.x[k : k + 1], c.target[k : k + 1]) for k in range(n)]
    close(exact_diagonal(*c), {k: sum(p[k] for p in parts) / n for k in parts[0]}, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("limit", [1, 3000, 40000])
def test_memory_bound_does_not_change_the_result(limit):
    rng = np.random.default_rng(2)
    for network in (mlp([5, 6, 4, 3], "tanh", rng), small_cnn("gelu", rng)):
        c = case(network, CrossEntropy(), 7, rng)
        close(exact_diagonal(*c, chunk_bytes=limit), exact_diagonal(*c), rtol=1e-12)
        close(ggn_diagonal(*c, chunk_bytes=limit), ggn_diagonal(*c), rtol=1e-12)


def test_negative_entries_occur_and_are_kept():
    c = case(mlp([3, 5, 4, 2], "tanh", np.random.default_rng(5)), MSE(), 4, np.random.default_rng(6))
    assert min(d.min() for d in exact_diagonal(*c).values()) < 0


def test_residual_factors_of_a_branch_do_not_pass_the_shortcut():
    """y = x + tanh(w x) below by x = u in: closed form of the second derivative with respect to u."""
    w, u, x, t = 0.7, 0.9, 1.3, -0.4
    branch = Sequence({"l": Linear(MaskedWeight(np.array([[w]]))), "f": Activation("tanh")})
    layers = {"in": Linear(MaskedWeight(np.array([[u]]))), "block": Residual(branch)}
    c = Case(Network(layers, (1,)), MSE(), np.array([[x]]), np.array([[t]]))
    z = u * x
    s = 1 - np.tanh(w * z) ** 2
    y, dy = z + np.tanh(w * z), 1 + w * s
    ddy = -2 * np.tanh(w * z) * s * w**2
    assert exact_diagonal(*c)["in.weight"][0, 0] == pytest.approx(x**2 * (dy**2 + (y - t) * ddy), rel=1e-13)


@pytest.mark.parametrize("seed", range(5))
def test_curved_activations_on_both_paths_and_in_nested_blocks(seed):
    rng = np.random.default_rng(seed)
    inner = Residual(Sequence({"l": linear(3, 3, rng), "f": Activation("gelu")}))
    branch = Sequence(
        {"a": linear(3, 3, rng), "f": Activation("tanh"), "inner": inner, "b": linear(3, 3, rng)}
    )
    shortcut = Sequence({"s": linear(3, 3, rng), "f": Activation("sigmoid"), "t": linear(3, 3, rng)})
    layers = {"in": linear(2, 3, rng), "f": Activation("softplus"), "block": Residual(branch, shortcut)}
    layers |= {"g": Activation("tanh"), "out": linear(3, 2, rng)}
    c = case(Network(layers, (2,)), CrossEntropy(), 3, rng)
    close(exact_diagonal(*c), diagonal_by_complex_step(c), rtol=1e-10)


def test_cross_term_of_the_two_paths_is_present():
    """Linear block y = x + w x: (1 + w)^2, not 1 + w^2."""
    branch = Sequence({"l": Linear(MaskedWeight(np.array([[3.0]])))})
    layers = {"in": Linear(MaskedWeight(np.array([[1.0]]))), "block": Residual(branch)}
    c = Case(Network(layers, (1,)), MSE(), np.array([[1.0]]), np.array([[0.0]]))
    assert exact_diagonal(*c)["in.weight"][0, 0] == pytest.approx(16)
    assert lecun_diagonal(*c)["in.weight"][0, 0] == pytest.approx(10)


def test_relu_rescaling_leaves_h_w2_unchanged():
    """Incoming weights of a hidden unit times a, outgoing divided by a: h w^2 is invariant."""
    rng = np.random.default_rng(8)
    c = case(mlp([4, 5, 3], "relu", rng, bias=False), CrossEntropy(), 6, rng)
    before = exact_diagonal(*c)
    saliency = {k: before[k] * p.value**2 for k, p in c.network.params().items()}
    c.network.params()["fc1.weight"].value[2] *= 7
    c.network.params()["fc2.weight"].value[:, 2] /= 7
    after = exact_diagonal(*c)
    close({k: after[k] * p.value**2 for k, p in c.network.params().items()}, saliency, rtol=1e-12)


def test_absent_weights_have_no_curvature_and_present_ones_that_of_the_masked_network():
    rng = np.random.default_rng(9)
    layers = {"a": linear(4, 5, rng, density=0.5), "f": Activation("tanh"), "b": linear(5, 2, rng)}
    c = case(Network(layers, (4,)), MSE(), 5, rng)
    d = exact_diagonal(*c)["a.weight"]
    mask = layers["a"].weight.mask
    assert (d[~mask] == 0).all() and (d[mask] != 0).all()


def test_evaluation_mode_is_used_and_state_is_untouched():
    rng = np.random.default_rng(10)
    layers = {
        "a": linear(3, 4, rng),
        "bn": batch_norm(BatchNorm1d, 4, rng),
        "f": Activation("tanh"),
        "drop": Dropout(0.5),
        "b": linear(4, 2, rng),
    }
    c = case(Network(layers, (3,)), MSE(), 5, rng)
    c.loss.value(c.network.forward(c.x, EVAL), c.target)
    c.network.backward(c.loss.grad())
    state, grads = c.network.state(), {k: p.grad.copy() for k, p in c.network.params().items()}
    x = c.x.copy()
    exact_diagonal(*c)
    for k, value in c.network.state().items():
        np.testing.assert_array_equal(value, state[k])
    for k, p in c.network.params().items():
        np.testing.assert_array_equal(p.grad, grads[k])
    np.testing.assert_array_equal(c.x, x)


def test_float32_network_gives_float64_sums():
    c = random_case(np.random.default_rng(3), ALL_CURVED)
    small = Case(c.network.astype(np.float32), c.loss, c.x.astype(np.float32), c.target)
    got, want = exact_diagonal(*small), exact_diagonal(*c)
    assert all(a.dtype == np.float64 for a in got.values())
    scale = max(np.abs(a).max() for a in want.values())
    close(got, want, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("loss", LOSSES)
def test_modes_agree_with_the_full_hessian(loss):
    rng = np.random.default_rng(11)
    c = case(mlp([3, 4, 2], "tanh", rng), loss(), 5, rng)
    full = np.diag(hessian(*c))
    flat = {m: np.concatenate([a.ravel() for a in modes_function(*c, mode=m).values()]) for m in ("exact",)}
    np.testing.assert_allclose(flat["exact"], full, rtol=1e-11, atol=1e-14)
    sampled = hessian_diagonal(*c, mode="hutchinson", rng=np.random.default_rng(0), probes=400)
    estimate = np.concatenate([a.ravel() for a in sampled.values()])
    assert np.corrcoef(estimate, full)[0, 1] > 0.9


def test_errors():
    c = case(mlp([2, 2], "tanh", np.random.default_rng(0)), MSE(), 2, np.random.default_rng(1))
    with pytest.raises(UnknownNameError, match="exact"):
        hessian_diagonal(*c, mode="exakt")
    with pytest.raises(UsageError, match="generator"):
        hessian_diagonal(*c, mode="hutchinson")
    with pytest.raises(UsageError, match="0 samples"):
        exact_diagonal(c.network, c.loss, c.x[:0], c.target[:0])
    with pytest.raises(NonFiniteError, match="loss"):
        exact_diagonal(c.network, c.loss, c.x * np.nan, c.target)


def test_weights_that_are_not_entries_are_refused():
    class Scaled(MaskedWeight):
        def entries(self, a):
            return super(MaskedWeight, self).entries(a)

    network = Network({"a": Linear(Scaled(np.eye(2)))}, (2,))
    with pytest.raises(MethodError, match="Scaled"):
        exact_diagonal(network, MSE(), np.ones((1, 2)), np.ones((1, 2)))
