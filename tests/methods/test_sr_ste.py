"""SR-STE: groups of N in M at every step, gradients that pass, and absent weights that fade."""

from itertools import combinations

import numpy as np
import pytest

from minisparse import data as datasets
from minisparse.errors import ShapeError, UsageError
from minisparse.methods.dense import Dense
from minisparse.methods.learned.sr_ste import SRSTE
from minisparse.nn import models
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, descend, identity_problem, mlp, state_of


def problem(method, start, target, rate=0.1):
    x, y = identity_problem(target)
    state = state_of(chain([start]), x, y, loss="mse", optimizer=SGD(0.0))
    state.rate = Constant(rate)
    method.setup(state)
    return state, state.network.prunable()["fc1"].weight


def steps(state, method, count):
    for _ in range(count):
        descend(state)
        method.update(state)
        state.step += 1
        method.after_update(state)


@pytest.mark.parametrize(("keep", "of"), [(1, 2), (2, 4), (1, 4), (4, 8)])
def test_every_group_has_n_of_the_largest_at_every_step(keep, of):
    network = mlp((16, 16, 3), np.random.default_rng(0), dtype=np.float32)
    data = clusters(np.random.default_rng(1), (16,))

    def watch(state):
        for layer in state.network.prunable().values():
            mask = layer.weight.mask.reshape(-1, of)
            assert (mask.sum(axis=1) == keep).all()
            theta = np.abs(layer.weight.params()["weight"].value).reshape(-1, of)
            for row, kept in zip(theta, mask, strict=True):
                assert row[kept].min() >= row[~kept].max()

    run = train(network, data, SRSTE(keep, of), epochs=3, batch=16, progress=watch)
    assert run.sparsity == 1 - keep / of


def test_the_mask_is_the_nearest_matrix_of_its_pattern():
    w = np.random.default_rng(0).standard_normal((2, 8))
    network = chain(w)
    SRSTE(2, 4).setup(state_of(network, np.zeros((2, 8)), np.zeros(2, dtype=int)))
    mask = network.masks()["fc1"]
    for row, kept in zip(w.reshape(-1, 4), mask.reshape(-1, 4), strict=True):
        rest = min((row[list(out)] ** 2).sum() for out in combinations(range(4), 2))
        np.testing.assert_allclose((row[~kept] ** 2).sum(), rest, rtol=1e-14)


def test_an_absent_weight_without_gradient_fades_geometrically():
    method = SRSTE(1, 2, decay=0.3)
    state, weight = problem(method, [2.0, 1.0], [2.0, 0.0], rate=0.1)  # dL/dW = (0, 0) with W = (2, 0)
    steps(state, method, 25)
    np.testing.assert_allclose(weight.theta.value[0], [2.0, (1 - 0.1 * 0.3) ** 25], rtol=1e-12)
    assert weight.dense().tolist() == [[2.0, 0.0]]


def test_an_absent_weight_trains_straight_through_and_takes_over():
    state, weight = problem(SRSTE(1, 2, decay=0.0), [1.0, 0.5], [1.0, 3.0], rate=0.1)
    method = SRSTE(1, 2, decay=0.0)
    # masked, its gradient is W - w* = -3 whatever theta is
    steps(state, method, 1)
    np.testing.assert_allclose(weight.theta.value[0], [1.0, 0.5 + 0.3], rtol=1e-14)
    assert weight.mask.tolist() == [[True, False]]
    steps(state, method, 1)
    np.testing.assert_allclose(weight.theta.value[0], [1.0, 0.5 + 0.6], rtol=1e-14)
    assert weight.mask.tolist() == [[False, True]]


def flips(decay):
    """How often masks change in the last half of a run."""
    network, seen = mlp((16, 24, 3), np.random.default_rng(2), dtype=np.float32), []
    data = clusters(np.random.default_rng(3), (16,))
    masks = lambda s: np.concatenate([m.ravel() for m in s.network.masks().values()])  # noqa: E731
    train(
        network, data, SRSTE(2, 4, decay=decay), epochs=20, batch=16, rate=Constant(0.05),
        progress=lambda s: seen.append(masks(s)),
    )  # fmt: skip
    return sum(int((a != b).sum()) for a, b in zip(seen[30:], seen[31:], strict=False))


def test_the_pull_on_absent_weights_steadies_the_masks():
    assert flips(0.2) < flips(0.0)


def test_columns_left_over_stay_or_are_refused():
    state = state_of(chain(np.arange(1.0, 11.0)[None, :]), np.zeros((2, 10)), np.zeros(2, dtype=int))
    SRSTE(1, 4).setup(state)
    assert np.flatnonzero(state.network.masks()["fc1"]).tolist() == [3, 7, 8, 9]
    state = state_of(chain(np.ones((1, 10))), np.zeros((2, 10)), np.zeros(2, dtype=int))
    with pytest.raises(ShapeError, match="does not divide"):
        SRSTE(1, 4, remainder="error").setup(state)


def test_half_of_the_weights_are_enough_on_the_digits():
    data = datasets.load("digits")
    network = models.build("mlp:64-60-10", data, seed=0)
    dense, sparse = (train(network, data, m, epochs=10) for m in (Dense(), SRSTE()))
    assert sparse.sparsity == 0.5
    assert sparse.accuracy > dense.accuracy - 0.03


@pytest.mark.parametrize(
    "settings", [{"keep": 5, "of": 4}, {"keep": 0}, {"decay": -1.0}, {"remainder": "drop"}, {"of": 4.0}]
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        SRSTE(**settings)
