"""Gradient flow and signals: by closed forms, by descent, and through sparse layers."""

import numpy as np
import pytest

from minisparse.curvature.flow import gradient_flow, signal
from minisparse.nn.loss import LOSSES
from minisparse.sparsity.sparse_init import fan_in_scale
from tests.methods.problems import chain, conv_net, mlp


def test_linear_regression_in_closed_form():
    """y = W x, mse: g = (W - W*) X'X / n."""
    rng = np.random.default_rng(0)
    x, w, best = rng.standard_normal((20, 4)), rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    network, target = chain(w), x @ best.T
    g = (w - best) @ x.T @ x / 20
    np.testing.assert_allclose(gradient_flow(network, LOSSES["mse"](), x, target), (g**2).sum(), rtol=1e-12)
    mask = rng.random(w.shape) < 0.5
    network.prunable()["fc1"].weight.rewire(mask)
    g = mask * ((w * mask - best) @ x.T @ x / 20)
    np.testing.assert_allclose(gradient_flow(network, LOSSES["mse"](), x, target), (g**2).sum(), rtol=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_it_is_the_rate_at_which_descent_lowers_the_loss(kind):
    rng = np.random.default_rng(1)
    network = conv_net(rng) if kind == "conv" else mlp((6, 9, 4, 3), rng)
    for layer in network.prunable().values():
        layer.weight.rewire(rng.random(layer.weight.shape) < 0.5)
    loss, x, target = (
        LOSSES["cross-entropy"](),
        rng.standard_normal((8, *network.input_shape)),
        np.arange(8) % 3,
    )
    flow = gradient_flow(network, loss, x, target)
    network.forward(x)
    loss.value(network.forward(x), target)
    network.backward(loss.grad(), need_dx=False)
    grads = {key: p.grad.copy() for key, p in network.params().items()}
    values, step = [], 1e-5
    for sign in (1, -1):
        moved = network.copy()
        for key, p in moved.params().items():
            p.value -= sign * step * grads[key]
        values.append(loss.value(moved.forward(x), target))
    np.testing.assert_allclose((values[1] - values[0]) / (2 * step), flow, rtol=1e-5)


def test_signal_is_the_mean_square_before_the_activation():
    rng = np.random.default_rng(2)
    a, b, x = rng.standard_normal((5, 4)), rng.standard_normal((3, 5)), rng.standard_normal((7, 4))
    z = x @ a.T
    found = signal(chain(a, b), x)
    np.testing.assert_allclose(found["fc1"], (z**2).mean(), rtol=1e-12)
    np.testing.assert_allclose(found["fc2"], ((np.maximum(z, 0) @ b.T) ** 2).mean(), rtol=1e-12)
    biased = chain(a, biases=True)
    biased.prunable()["fc1"].bias.set(np.full(5, 10.0))
    np.testing.assert_allclose(signal(biased, x)["fc1"], ((z + 10) ** 2).mean(), rtol=1e-12)


def test_a_sparse_deep_relu_network_keeps_its_signal_only_with_weights_for_its_fan_in():
    """Dense weights under a mask of density d: signal d per layer. Scaled by sqrt(n / f_i): 1 per layer."""
    rng, width, depth, density = np.random.default_rng(3), 500, 6, 0.1
    masks = [rng.random((width, width)) < density for _ in range(depth)]
    drawn = [rng.standard_normal((width, width)) * np.sqrt(2 / width) for _ in range(depth)]
    x = rng.standard_normal((50, width))
    plain = list(signal(chain(*(w * m for w, m in zip(drawn, masks, strict=True))), x).values())
    aware = list(
        signal(chain(*(w * m * fan_in_scale(m) for w, m in zip(drawn, masks, strict=True))), x).values()
    )
    slope = np.polyfit(np.arange(depth), np.log(plain), 1)[0]
    assert abs(slope - np.log(density)) < 0.1
    assert all(1.4 < value < 2.8 for value in aware)  # 2 at every depth, in expectation
