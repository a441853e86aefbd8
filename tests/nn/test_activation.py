"""Activations: known values, both derivatives by complex step, kinks, NaN, extremes, types."""

import math

import numpy as np
import pytest

from minisparse.errors import UnknownNameError
from minisparse.nn import Activation, activation
from minisparse.nn.activation import SLOPE, TABLE
from tests.oracles.complex_step import derivative

GRID = np.concatenate([np.linspace(-6, 6, 41) + 0.01, [-25.0, 25.0, -1e-3, 1e-3]])
EXACT = {
    "identity": lambda z: z,
    "relu": lambda z: max(z, 0.0),
    "leaky-relu": lambda z: z if z > 0 else SLOPE * z,
    "tanh": math.tanh,
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "gelu": lambda z: z * 0.5 * math.erfc(-z / math.sqrt(2)),
    "softplus": lambda z: math.log1p(math.exp(-abs(z))) + max(z, 0.0),
}
every = pytest.mark.parametrize("name", TABLE)


def test_every_activation_has_a_closed_form_here():
    assert EXACT.keys() == TABLE.keys()


@every
def test_values(name):
    got = TABLE[name].f(GRID)
    np.testing.assert_allclose(got, [EXACT[name](z) for z in GRID], rtol=1e-14, atol=3e-16)


@every
def test_derivatives_are_the_complex_step(name):
    entry = TABLE[name]
    ones = np.ones_like(GRID)
    np.testing.assert_allclose(entry.df(GRID), derivative(entry.f, GRID, ones), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(entry.ddf(GRID), derivative(entry.df, GRID, ones), rtol=1e-12, atol=1e-15)


@every
def test_complex_functions_extend_the_real_ones(name):
    entry = TABLE[name]
    for f in (entry.f, entry.df, entry.ddf):
        np.testing.assert_allclose(f(GRID.astype(complex)), f(GRID), rtol=1e-14, atol=1e-14)


@every
def test_what_the_table_says_of_the_shape(name):
    entry = TABLE[name]
    assert entry.curved == bool(entry.ddf(GRID).any())
    scaled = all(np.allclose(entry.f(a * GRID), a * entry.f(GRID), rtol=1e-13) for a in (0.5, 3.0))
    positive = np.abs(GRID)
    assert entry.homogeneous == (scaled and np.array_equal(entry.f(positive), positive))


def test_conventions_at_the_kink():
    zeros = np.array([0.0, -0.0])
    for z in (zeros, zeros.astype(np.float32), zeros.astype(complex)):
        np.testing.assert_array_equal(TABLE["relu"].f(z), 0)
        np.testing.assert_array_equal(TABLE["relu"].df(z), 0)
        np.testing.assert_array_equal(TABLE["leaky-relu"].df(z), z.dtype.type(SLOPE))
        np.testing.assert_array_equal(TABLE["relu"].ddf(z), 0)
    layer = Activation("relu")
    layer.forward(zeros[None])
    np.testing.assert_array_equal(layer.backward(np.ones((1, 2))), 0)
    assert TABLE["relu"].f(np.array([0 + 1e-20j]))[0] == 0  # the step sees the convention too


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_nan_is_never_hidden(name, dtype):
    z = np.array([1.0, np.nan, -1.0], dtype=dtype)
    assert np.isnan(Activation(name).forward(z[None])[0]).tolist() == [False, True, False]


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_arguments(name, dtype):
    """No overflow (a warning is an error here), and the limits are right."""
    big = np.array([-1e4, -300, 300, 1e4], dtype=dtype)
    f, df, ddf = (g(big) for g in (TABLE[name].f, TABLE[name].df, TABLE[name].ddf))
    limits = {"tanh": [-1, -1, 1, 1], "sigmoid": [0, 0, 1, 1]}
    slopes = {"identity": 1, "leaky-relu": dtype(SLOPE)}
    left = {"identity": big[:2], "leaky-relu": dtype(SLOPE) * big[:2]}
    want = limits.get(name, [*left.get(name, [0, 0]), *big[2:]])
    np.testing.assert_allclose(f, np.array(want, dtype), rtol=1e-6, atol=1e-30)
    flat = name in limits
    np.testing.assert_allclose(df, [slopes.get(name, 0)] * 2 + [0 if flat else 1] * 2, atol=1e-30)
    np.testing.assert_allclose(ddf, 0, atol=1e-30)


@every
def test_extreme_arguments_of_complex_passes(name):
    z = np.array([-1e4, -300, 300, 1e4]) + 1e-20j
    entry = TABLE[name]
    for f in (entry.f, entry.df, entry.ddf):
        assert np.isfinite(f(z)).all()


@every
def test_types_and_memory(name):
    for dtype in (np.float32, np.float64, np.complex128):
        z = np.linspace(-2, 2, 6).astype(dtype)
        entry = TABLE[name]
        for f in (entry.f, entry.df, entry.ddf):
            out = f(z)
            assert out.dtype == dtype
            assert not np.shares_memory(out, z)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="Did you mean 'sigmoid'"):
        Activation("sigmoyd")


@pytest.mark.parametrize("few", [0, 1 << 15])
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
def test_backward_in_one_pass_has_the_same_bits(few, dtype, monkeypatch):
    monkeypatch.setattr(activation, "FEW", few)
    rng = np.random.default_rng(0)
    shape = (7, 5) if few == 0 else (190, 180)
    z, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    z[0, :4], dy[:4, 0] = (0, -0.0, np.inf, np.nan), (np.inf, -np.inf, np.nan, -0.0)
    for one, other in ((z, dy), (z.T, dy.T), (z.T, dy.T.copy()), (z[:, ::2], dy[:, ::2])):
        layer = Activation("relu")
        layer.forward(one)
        with np.errstate(invalid="ignore"):
            wanted = TABLE["relu"].df(one) * other
            found = layer.backward(other)
        assert np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(wanted, found.dtype).tobytes()
