"""The recursion of Optimal Brain Damage: where it is exact, where it is not, and its rules by hand."""

import numpy as np
import pytest

from minisparse.curvature import exact_diagonal, lecun_diagonal
from minisparse.nn import (
    MSE,
    AvgPool2d,
    BinaryCrossEntropy,
    Conv2d,
    CrossEntropy,
    Flatten,
    GlobalAvgPool,
    Linear,
    MaskedWeight,
    MaxPool2d,
    Network,
    Window,
)
from tests.curvature.nets import CURVED, Case, case, mlp, random_case, small_cnn
from tests.curvature.oracles import close


def relative_gap(c, name):
    got, want = lecun_diagonal(*c)[name], exact_diagonal(*c)[name]
    return np.abs(got - want).max() / np.abs(want).max()


@pytest.mark.parametrize("activation", CURVED)
@pytest.mark.parametrize("loss", [MSE, BinaryCrossEntropy])
def test_exact_for_one_hidden_layer(activation, loss):
    rng = np.random.default_rng(0)
    c = case(mlp([4, 6, 3], activation, rng), loss(), 5, rng)
    close(lecun_diagonal(*c), exact_diagonal(*c), rtol=1e-12)


def test_exact_for_chains_of_width_one():
    rng = np.random.default_rng(1)
    c = case(mlp([1, 1, 1, 1, 1], "tanh", rng), MSE(), 5, rng)
    close(lecun_diagonal(*c), exact_diagonal(*c), rtol=1e-12)


def test_two_hidden_layers_exact_for_the_top_two_and_wrong_for_the_first():
    rng = np.random.default_rng(2)
    c = case(mlp([4, 5, 5, 3], "tanh", rng), MSE(), 5, rng)
    assert relative_gap(c, "fc3.weight") < 1e-12
    assert relative_gap(c, "fc2.weight") < 1e-12
    assert relative_gap(c, "fc1.weight") > 0.01


def test_softmax_is_wrong_below_the_last_layer():
    """Outgoing weights (1, -1, 2) at p = (.5, .3, .2): 1.24 exactly, 1.10 by the recursion."""
    layers = {
        "in": Linear(MaskedWeight(np.array([[1.0]]))),
        "out": Linear(MaskedWeight(np.array([[1.0], [-1.0], [2.0]])), np.log([0.5, 0.3, 0.2])),
    }
    c = Case(Network(layers, (1,)), CrossEntropy(), np.array([[1.0]]), np.array([0]))
    c.network.params()["out.bias"].value -= c.network.params()["out.weight"].value[:, 0]
    assert exact_diagonal(*c)["in.weight"][0, 0] == pytest.approx(1.24)
    assert lecun_diagonal(*c)["in.weight"][0, 0] == pytest.approx(1.10)
    assert relative_gap(c, "out.weight") < 1e-12


def test_shared_weights_sum_then_square_against_square_then_sum():
    """1-D convolution, kernel 2 on (1, 2, 3), output weights (1, 1): (9, 25) exactly, (5, 13) here."""
    layers = {
        "conv": Conv2d(MaskedWeight(np.array([[0.3, -0.2]]), (1, 1, 1, 2)), Window.of((1, 2))),
        "flatten": Flatten(),
        "out": Linear(MaskedWeight(np.ones((1, 2)))),
    }
    c = Case(Network(layers, (1, 1, 3)), MSE(), np.array([[[[1.0, 2.0, 3.0]]]]), np.array([[0.7]]))
    np.testing.assert_allclose(exact_diagonal(*c)["conv.weight"], [[9, 25]])
    np.testing.assert_allclose(lecun_diagonal(*c)["conv.weight"], [[5, 13]])


@pytest.mark.parametrize(
    "pool, share", [(AvgPool2d(Window.of(2, 2)), 4), (GlobalAvgPool(), 16), (MaxPool2d(Window.of(2, 2)), 1)]
)
def test_pooling_spreads_by_the_squared_mean_or_to_the_winner(pool, share):
    """A 1x1 convolution below a pool: sum over the places passed on of h x^2 / area^2."""
    rng = np.random.default_rng(3)
    layers = {
        "conv": Conv2d(MaskedWeight(np.array([[0.8]]), (1, 1, 1, 1)), Window.of(1)),
        "pool": pool,
        "flatten": Flatten(),
    }
    c = case(Network(layers, (1, 4, 4)), MSE(), 3, rng)
    squares = c.x**2
    if share == 1:
        windows = c.x.reshape(3, 1, 2, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(3, -1, 4)
        squares = windows.max(axis=2) ** 2
    want = squares.sum() / 3 / share**2
    assert lecun_diagonal(*c)["conv.weight"][0, 0] == pytest.approx(want)


@pytest.mark.parametrize("seed", range(10))
def test_levenberg_marquardt_form_is_not_negative(seed):
    c = random_case(np.random.default_rng(seed))
    assert all((a >= 0).all() for a in lecun_diagonal(*c, levenberg_marquardt=True).values())


def test_levenberg_marquardt_drops_the_second_derivative():
    rng = np.random.default_rng(4)
    c = case(mlp([1, 1, 1], "tanh", rng), MSE(), 1, rng)
    full, form = lecun_diagonal(*c), lecun_diagonal(*c, levenberg_marquardt=True)
    p = {k: q.value.item() for k, q in c.network.params().items()}
    x, t = c.x.item(), c.target.item()
    a = np.tanh(p["fc1.weight"] * x + p["fc1.bias"])
    error = p["fc2.weight"] * a + p["fc2.bias"] - t
    curve = -2 * a * (1 - a**2) * p["fc2.weight"] * error
    want = form["fc1.weight"] + curve * x**2
    np.testing.assert_allclose(full["fc1.weight"], want, rtol=1e-13)
    np.testing.assert_allclose(form["fc1.weight"], ((1 - a**2) * p["fc2.weight"] * x) ** 2, rtol=1e-13)


def test_goes_through_every_layer_of_a_convolutional_network():
    rng = np.random.default_rng(5)
    c = case(small_cnn("tanh", rng), CrossEntropy(), 4, rng)
    got = lecun_diagonal(*c)
    assert all(np.isfinite(a).all() and (a != 0).any() for a in got.values())
    assert relative_gap(c, "fc2.weight") < 1e-12
