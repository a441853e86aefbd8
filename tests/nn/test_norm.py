"""BatchNorm in training: gradients by complex step, statistics by their definition."""

import numba
import numpy as np
import pytest

from minisparse.errors import UsageError
from minisparse.kernels.norm import BLOCK
from minisparse.nn import (
    EVAL,
    Activation,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    MaskedWeight,
    Mode,
    Network,
    Window,
)
from tests.architectures import random_norm
from tests.oracles.complex_step import Twin, jacobian

TRAIN = Mode(training=True)
TIGHT = {"rtol": 1e-12, "atol": 1e-13}
SHAPES = [(4,), (3, 2, 3)]


def lone(rng, shape):
    """One BatchNorm in a float64 network, with inputs far from standard."""
    network = Network({"norm": random_norm(rng, shape)}, shape)
    return network, 3 + 2 * rng.standard_normal((5, *shape))


def deep(rng, image):
    """Norms between weights: what one changes, the others see."""
    if not image:
        layers = {
            "fc1": Linear(MaskedWeight(rng.standard_normal((6, 4)), mask=rng.random((6, 4)) < 0.7)),
            "norm1": random_norm(rng, (6,)),
            "act": Activation("tanh"),
            "fc2": Linear(MaskedWeight(rng.standard_normal((3, 6))), rng.standard_normal(3)),
            "norm2": random_norm(rng, (3,)),
        }
        return Network(layers, (4,))
    geometry = (3, 2, 3, 3)
    layers = {
        "conv": Conv2d(MaskedWeight(rng.standard_normal((3, 18)), geometry), Window.of(3, 2, 1)),
        "norm": random_norm(rng, (3, 3, 3)),
        "act": Activation("gelu"),
        "flatten": Flatten(),
        "fc": Linear(MaskedWeight(rng.standard_normal((3, 27)) / 5), rng.standard_normal(3)),
    }
    return Network(layers, (2, 5, 5))


@pytest.mark.parametrize("shape", SHAPES)
def test_training_jacobian_is_the_complex_step(shape):
    rng = np.random.default_rng(0)
    network, x = lone(rng, shape)
    full = jacobian(lambda z: network.astype(np.complex128).forward(z, TRAIN), x)
    y = network.forward(x, TRAIN)
    dy = rng.standard_normal(y.shape)
    want = np.tensordot(dy, full, axes=dy.ndim)
    np.testing.assert_allclose(network.pull(dy), want, **TIGHT)
    np.testing.assert_allclose(network.backward(dy), want, **TIGHT)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("image", [False, True])
def test_training_gradients_are_the_complex_step(seed, image):
    rng = np.random.default_rng(seed)
    network = deep(rng, image)
    x, target = rng.standard_normal((5, *network.input_shape)), rng.integers(0, 3, 5)
    loss = CrossEntropy()
    loss.value(network.forward(x, TRAIN), target)
    dx = network.backward(loss.grad())
    grads = {k: p.grad.copy() for k, p in network.params().items()}
    twin = Twin(network, loss, x, target, TRAIN)
    largest = max(np.abs(g).max() for g in grads.values())
    for k, g in {**grads, "x": dx}.items():
        for i in range(min(g.size, 12)):
            one = np.zeros(g.size)
            one[i] = 1
            one = one.reshape(g.shape)
            want = twin.slope({}, one) if k == "x" else twin.slope({k: one})
            assert abs(g.flat[i] - want) <= 1e-12 * largest, (k, i)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_output_has_mean_beta_and_spread_gamma(shape):
    network, x = lone(np.random.default_rng(1), shape)
    norm = network.layers["norm"]
    axes = (0, *range(2, x.ndim))
    y = network.forward(x, TRAIN)
    np.testing.assert_allclose(y.mean(axis=axes), norm.beta.value, **TIGHT)
    var = x.var(axis=axes)
    want = norm.gamma.value**2 * var / (var + norm.eps)
    np.testing.assert_allclose(y.var(axis=axes), want, **TIGHT)


@pytest.mark.parametrize("shape", SHAPES)
def test_running_statistics(shape):
    """running <- (1 - m) running + m batch, the variance with divisor count - 1."""
    network, x = lone(np.random.default_rng(2), shape)
    norm = network.layers["norm"]
    mean, var = norm.running_mean.copy(), norm.running_var.copy()
    axes = (0, *range(2, x.ndim))
    network.forward(x, TRAIN)
    np.testing.assert_allclose(norm.running_mean, 0.9 * mean + 0.1 * x.mean(axis=axes), **TIGHT)
    np.testing.assert_allclose(norm.running_var, 0.9 * var + 0.1 * x.var(axis=axes, ddof=1), **TIGHT)
    kept = norm.running_mean.copy(), norm.running_var.copy()
    network.forward(x, EVAL)
    np.testing.assert_array_equal((norm.running_mean, norm.running_var), kept)


@pytest.mark.parametrize("rows", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_sums_over_many_rows(rows):
    """Statistics are merged from blocks: batches around the block size, with an offset that cancels."""
    rng = np.random.default_rng(7)
    network, _ = lone(rng, (3,))
    norm = network.layers["norm"]
    norm.momentum = 1.0
    x = 1e3 + rng.standard_normal((rows, 3)) + np.linspace(0, 5, rows)[:, None]
    y = network.forward(x, TRAIN)
    np.testing.assert_allclose(norm.running_mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(norm.running_var, x.var(axis=0, ddof=1), rtol=1e-11)
    dy = rng.standard_normal(y.shape)
    dx = network.backward(dy)
    xhat = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + norm.eps)
    np.testing.assert_allclose(norm.gamma.grad, (dy * xhat).sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(norm.beta.grad, dy.sum(axis=0), rtol=1e-11)
    # what training removes from a gradient: its mean, and its part along xhat
    np.testing.assert_allclose(dx.sum(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose((dx * xhat).sum(axis=0), 0, atol=1e-3)  # eps keeps it from being exact


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_change_a_bit(dtype):
    rng = np.random.default_rng(8)
    network = lone(rng, (3, 2, 3))[0].astype(dtype)
    x = rng.standard_normal((700, 3, 2, 3)).astype(dtype)
    seen = []
    for threads in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
        numba.set_num_threads(threads)
        y = network.copy().forward(x, TRAIN)
        network.forward(x, TRAIN)
        seen.append([y, network.backward(y), *(p.grad.copy() for p in network.params().values())])
    numba.set_num_threads(1)
    for a, b in zip(seen[0], seen[-1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_running_statistics_of_a_complex_pass_are_real():
    network, x = lone(np.random.default_rng(3), (4,))
    twin = network.astype(np.complex128)
    twin.forward(x + 1j, TRAIN)
    network.forward(x, TRAIN)
    for k, buffer in twin.buffers().items():
        assert buffer.dtype == np.float64
        if "mean" in k:
            np.testing.assert_allclose(buffer, network.buffers()[k], **TIGHT)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_uses_the_running_statistics(shape):
    network, x = lone(np.random.default_rng(4), shape)
    n = network.layers["norm"]
    last = np.moveaxis(x, 1, -1)
    want = n.gamma.value * (last - n.running_mean) / np.sqrt(n.running_var + n.eps) + n.beta.value
    np.testing.assert_allclose(np.moveaxis(network.forward(x), 1, -1), want, **TIGHT)


def test_a_constant_channel_gives_beta_and_finite_gradients():
    network, x = lone(np.random.default_rng(5), (4,))
    x[:, 2] = 7
    y = network.forward(x, TRAIN)
    np.testing.assert_allclose(y[:, 2], network.layers["norm"].beta.value[2], **TIGHT)
    assert np.isfinite(network.backward(np.ones_like(y))).all()


def test_one_value_per_channel_cannot_be_normalised():
    with pytest.raises(UsageError, match="at least 2"):
        BatchNorm1d(3).forward(np.ones((1, 3), np.float32), TRAIN)
    y = BatchNorm2d(3).forward(np.ones((1, 3, 1, 2), np.float32), TRAIN)
    assert y.shape == (1, 3, 1, 2)


def test_second_order_in_training_is_refused():
    network, x = lone(np.random.default_rng(6), (4,))
    network.forward(x, TRAIN)
    with pytest.raises(UsageError, match="evaluation mode"):
        network.rforward(np.zeros_like(x))
