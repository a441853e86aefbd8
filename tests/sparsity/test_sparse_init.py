"""Sparsity-aware initialisation: variances by each unit's fan-in; the dense initialiser for a full mask."""

import numpy as np
import pytest
from hypothesis import given

from minisparse.methods.random import Random
from minisparse.nn.init import INITIALIZERS, sparse_kaiming
from minisparse.nn.models import make
from minisparse.sparsity import parse_control, to_text
from minisparse.sparsity.sparse_init import SparseInit, fan_in_scale, initialise_for_masks
from tests.methods.problems import state_of
from tests.strategies import SETTINGS, generators, masks


def sparse(mask, init="kaiming-normal"):
    """One linear layer under this mask, float64."""
    network = make(f"mlp:{mask.shape[1]}-{mask.shape[0]}", (mask.shape[1],), mask.shape[0], init=init)
    network = network.astype(np.float64)
    network.prunable()["fc1"].weight.rewire(mask)
    return network


@SETTINGS
@given(masks(), generators)
def test_the_scale_is_the_root_of_inputs_over_present_inputs(mask, rng):
    scale = fan_in_scale(mask)
    assert scale.shape == (len(mask), 1)
    for row, value in zip(mask, scale[:, 0], strict=True):
        assert value == (np.sqrt(len(row) / row.sum()) if row.any() else 1)
    # exact second moment of w x over the draws, dense variance v / n: v times the mean present x^2
    x, n, v = rng.standard_normal(mask.shape[1]), mask.shape[1], 2.0
    moment = (mask * scale**2 * (v / n)) @ x**2
    for row, value in zip(mask, moment, strict=True):
        np.testing.assert_allclose(value, v * (x[row] ** 2).mean() if row.any() else 0.0, rtol=1e-12)


@SETTINGS
@given(masks(), generators)
def test_it_is_kaiming_for_present_inputs(mask, rng):
    network = sparse(mask)
    seed = int(rng.integers(1 << 30))
    initialise_for_masks(network, np.random.default_rng(seed))
    want = sparse_kaiming(mask, np.random.default_rng(seed))
    np.testing.assert_allclose(network.prunable()["fc1"].weight.dense(), want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("init", INITIALIZERS)
def test_of_a_full_mask_it_is_the_dense_initialiser_draw_for_draw(init):
    network, dense = (make("lenet-300-100", (1, 8, 8), 10, init=init) for _ in range(2))
    initialise_for_masks(network, np.random.default_rng(5))
    dense.reinitialise(np.random.default_rng(5))
    for key, value in dense.state().items():
        np.testing.assert_array_equal(network.state()[key], value)


@pytest.mark.parametrize("init", ["kaiming-normal", "kaiming-uniform"])
def test_every_unit_has_unit_gain_however_few_inputs_it_keeps(init):
    """Over 400 draws: variance of z is v mean x^2 = 2 for 2, 20 and 200 of 200 inputs."""
    mask = np.zeros((3, 200), dtype=bool)
    for row, count in zip(mask, (2, 20, 200), strict=True):
        row[:count] = True
    network, x, squares = sparse(mask, init), np.ones((1, 200)), []
    dense = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        initialise_for_masks(network, rng)
        squares.append(network.forward(x)[0] ** 2)
        network.reinitialise(np.random.default_rng(seed))
        dense.append(network.forward(x)[0] ** 2)
    error = 6 * 2 * np.sqrt(2 / 400)  # six standard errors of a mean of squared Gaussians
    np.testing.assert_allclose(np.mean(squares, axis=0), 2, atol=error)
    np.testing.assert_allclose(np.mean(dense, axis=0), [0.02, 0.2, 2], rtol=error / 2)


def test_a_convolution_counts_taps_of_all_channels():
    network = make("lenet-5", (1, 8, 8), 10)
    mask = np.zeros(network.prunable()["conv2"].weight.shape, dtype=bool)
    mask[:, :6] = True
    network.prunable()["conv2"].weight.rewire(mask)
    other = network.copy()
    initialise_for_masks(network, np.random.default_rng(0))
    other.reinitialise(np.random.default_rng(0))
    ours, plain = (net.prunable()["conv2"].weight.dense() for net in (network, other))
    np.testing.assert_allclose(ours, plain * np.sqrt(mask.shape[1] / 6), rtol=1e-6)


def test_as_a_control_it_keeps_masks_and_scores_and_starts_optimisers_anew():
    mask = np.random.default_rng(0).random((6, 9)) < 0.4
    network = sparse(mask)
    scores = {"fc1": np.arange(54.0).reshape(6, 9)}
    assert SparseInit().scores(scores)["fc1"] is scores["fc1"]
    assert SparseInit().weights(network, np.random.default_rng(1))
    np.testing.assert_array_equal(network.masks()["fc1"], mask)
    assert not network.prunable()["fc1"].weight.dense()[~mask].any()


def test_methods_take_it_by_name():
    assert parse_control("sparse-init") == SparseInit() and to_text(SparseInit()) == "sparse-init"
    network, x = make("mlp:9-6-3", (9,), 3), np.zeros((3, 9), dtype=np.float32)
    state = state_of(network, x, np.arange(3))
    Random(0.5, control=SparseInit()).setup(state)
    drawn = {name: layer.weight.dense().copy() for name, layer in network.prunable().items()}
    initialise_for_masks(network, state.rng("control: weights"))
    for name, layer in network.prunable().items():
        np.testing.assert_array_equal(layer.weight.dense(), drawn[name])
