"""All-ReLU: known values, the alternation, derivatives, and a network of it."""

import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.nn.activation import TABLE
from minisparse.nn.all_relu import AllReLU, left_sloped
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.weight import MaskedWeight
from tests.oracles.complex_step import derivative

GRID = np.concatenate([np.linspace(-6, 6, 41) + 0.01, [-1e4, 1e4]])


@pytest.mark.parametrize(("depth", "value"), [(1, 1.2), (2, -1.2), (3, 1.2), (4, -1.2)])
def test_the_worked_values_alternate(depth, value):
    layer = AllReLU(depth, 0.6)
    np.testing.assert_allclose(layer.forward(np.array([[-2.0, 0.0, 3.0]])), [[value, 0.0, 3.0]])
    slope = -0.6 if depth % 2 else 0.6
    np.testing.assert_allclose(layer.pull(np.ones((1, 3))), [[slope, slope, 1.0]])


@pytest.mark.parametrize("slope", [-0.6, 0.6, 0.0])
def test_derivatives_are_the_complex_step(slope):
    entry = left_sloped(slope)
    ones = np.ones_like(GRID)
    np.testing.assert_allclose(entry.df(GRID), derivative(entry.f, GRID, ones), rtol=1e-12)
    np.testing.assert_array_equal(entry.ddf(GRID), 0)
    np.testing.assert_allclose(entry.f(3 * GRID), 3 * entry.f(GRID), rtol=1e-13)
    np.testing.assert_array_equal(entry.f(np.abs(GRID)), np.abs(GRID))


def test_without_slope_it_is_relu():
    np.testing.assert_array_equal(AllReLU(1, 0.0).forward(GRID[None]), TABLE["relu"].f(GRID)[None])


def deep(rng):
    layers = {}
    for k, (out, width) in enumerate(((5, 4), (6, 5), (3, 6)), 1):
        layers[f"fc{k}"] = Linear(MaskedWeight(rng.standard_normal((out, width))), rng.standard_normal(out))
        if k < 3:
            layers[f"act{k}"] = AllReLU(k)
    return Network(layers, (4,))


def test_the_gradient_of_a_network_is_the_complex_step():
    rng = np.random.default_rng(0)
    network = deep(rng)
    x, dy = rng.standard_normal((7, 4)), rng.standard_normal((7, 3))
    network.forward(x)
    assert (network.layers["fc1"].weight.dense() @ x.T + network.layers["fc1"].bias.value[:, None] < 0).any()
    network.backward(dy, need_dx=False)
    twin = network.astype(np.complex128)
    for key, p in network.params().items():
        other = twin.params()[key]
        for i in np.ndindex(p.value.shape):
            other.value[i] += 1e-30j
            slope = (twin.forward(x.astype(complex)) * dy).sum().imag / 1e-30
            other.value[i] -= 1e-30j
            assert slope == pytest.approx(p.grad[i], rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_types_nan_and_copies(dtype):
    z = np.array([[1.0, np.nan, -1.0]], dtype=dtype)
    y = AllReLU(2).forward(z)
    assert y.dtype == dtype and np.isnan(y).tolist() == [[False, True, False]]
    assert not np.shares_memory(y, z)
    network = deep(np.random.default_rng(0))
    x = np.ones((1, 4))
    np.testing.assert_array_equal(network.copy().forward(x), network.forward(x))


@pytest.mark.parametrize(
    "settings", [{"depth": 0}, {"depth": True}, {"depth": 1.0}, {"depth": 1, "alpha": -1}]
    + [{"depth": 1, "alpha": float("nan")}, {"depth": 1, "alpha": "0.6"}],
)  # fmt: skip
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        AllReLU(**settings)
