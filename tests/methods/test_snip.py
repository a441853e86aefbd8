"""SNIP: the derivative with respect to the gates, one ranking over the network."""

import numpy as np
import pytest

from minisparse.methods.initial.snip import SNIP, connection_sensitivity
from minisparse.nn.loss import LOSSES
from minisparse.sparsity import kept_count
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, conv_net, descend, identity_problem, mlp, state_of

H = 1e-30


def problem(kind, seed=0):
    rng = np.random.default_rng(seed)
    network = conv_net(rng) if kind == "conv" else mlp((7, 6, 5, 3), rng)
    return network, rng.standard_normal((9, *network.input_shape)), rng.integers(0, 3, 9)


def test_linear_regression_on_white_inputs():
    # g = w - w* = (1, -3, 0.5), |w g| = (2, 3, 0.5)
    x, target = identity_problem((1, 4, -1.5))
    state = state_of(chain([[2.0, 1.0, -1.0]]), x, target, "mse")
    np.testing.assert_allclose(SNIP().score(state)["fc1"], np.array([[2, 3, 0.5]]) / 5.5, rtol=1e-12)
    np.testing.assert_allclose(SNIP().score(state)["fc1"], [[0.363636, 0.545455, 0.090909]], atol=1e-6)
    SNIP(2 / 3).setup(state)
    assert state.network.masks()["fc1"].tolist() == [[False, True, False]]


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_scores_are_derivatives_by_the_gates(kind):
    network, x, target = problem(kind)
    scores = SNIP().score(state_of(network, x, target))
    complex_net, gates, found = network.astype(complex), [], []
    for name, layer in complex_net.prunable().items():
        full = layer.weight.dense().copy()
        for entry in list(np.ndindex(full.shape))[::9]:
            gated = full.copy()
            gated[entry] *= 1 + 1j * H
            layer.weight.assign(gated)
            value = LOSSES["cross-entropy"]().value(complex_net.forward(x.astype(complex)), target)
            gates.append(abs(value.imag / H))
            found.append(scores[name][entry])
        layer.weight.assign(full)
    # the scores are these derivatives up to one common factor, their sum over all weights
    assert np.count_nonzero(gates) > 3
    np.testing.assert_allclose(np.array(found) * np.sum(gates), np.array(gates) * np.sum(found), rtol=1e-8)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_scores_sum_to_one_and_do_not_depend_on_the_unit_of_the_loss(kind):
    network, x, target = problem(kind)
    state = state_of(network, x, target)
    grads = state.probe_gradients()
    weights = {n: layer.weight.dense() for n, layer in network.prunable().items()}
    scores = connection_sensitivity(weights, grads)
    assert abs(sum(s.sum() for s in scores.values()) - 1) < 1e-12
    scaled = connection_sensitivity(weights, {n: -8.0 * g for n, g in grads.items()})
    for name, score in scores.items():
        np.testing.assert_array_equal(score, scaled[name])


def test_every_layers_signed_sum_is_logits_times_their_gradient():
    rng = np.random.default_rng(1)
    network = mlp((7, 6, 5, 3), rng, biases=False)
    state = state_of(network, rng.standard_normal((9, 7)), rng.integers(0, 3, 9))
    descend(state)
    euler = (network.forward(state.train_x) * state.loss.grad()).sum()
    for layer in network.prunable().values():
        np.testing.assert_allclose((layer.weight.dense() * layer.dense_grad()).sum(), euler, rtol=1e-9)


def test_without_any_sensitivity_scores_are_zero_and_counts_exact():
    x, target = np.zeros((4, 5)), np.zeros((4, 2))
    network = mlp((5, 4, 2), np.random.default_rng(0), biases=False)
    state = state_of(network, x, target, "mse")
    assert all((s == 0).all() for s in SNIP().score(state).values())
    SNIP(0.7).setup(state)
    assert sum(int(m.sum()) for m in network.masks().values()) == kept_count(28, 0.7)


def test_scoring_leaves_running_statistics_and_weights_alone():
    network, x, target = problem("conv")
    before = network.state()
    SNIP().score(state_of(network, x, target))
    for key, value in network.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_the_kept_weights_train_from_where_they_were_scored():
    data = clusters(np.random.default_rng(0), (7,))
    network = mlp((7, 6, 3), np.random.default_rng(1), dtype=np.float32)
    seen = []

    def watch(state):
        if state.step == 0:
            seen.append(state.network.state())

    run = train(network, data, SNIP(0.8), epochs=1, batch=16, progress=watch)
    masks = run.network.masks()
    for name, layer in network.prunable().items():
        np.testing.assert_array_equal(seen[0][f"{name}.weight"], layer.weight.dense() * masks[name])
