"""Random masks: exact counts, uniform subsets, and the static control of dynamic training."""

import numpy as np
import pytest

from minisparse.methods.dynamic.rigl import RigL
from minisparse.methods.random import Random
from minisparse.sparsity import Cubic, ErdosRenyi, Exponential, Global, OneShot, Uniform, kept_count
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, mlp, state_of

X, T = np.zeros((4, 6)), np.zeros(4, dtype=int)


def masks_of(method, seed, network=None, step=0, horizon=20):
    network = network or chain(np.ones((5, 6)), np.ones((6, 5)), np.ones((3, 6)))
    state = state_of(network, X, T, seed=seed, horizon=horizon)
    state.step = step
    method.impose(state)
    return network.masks()


@pytest.mark.parametrize("allocation", [Global(), Uniform(), ErdosRenyi()])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.85])
def test_the_count_never_varies(allocation, sparsity):
    method = Random(sparsity=sparsity, allocation=allocation)
    for seed in range(10):
        masks = masks_of(method, seed)
        assert sum(int(m.sum()) for m in masks.values()) == kept_count(78, sparsity)


def test_it_starts_from_the_mask_of_dynamic_training():
    network = mlp((6, 5, 4, 3), np.random.default_rng(0))
    control, dynamic = network.copy(), network.copy()
    Random(0.7).setup(state_of(control, X, T, seed=5))
    RigL(0.7).setup(state_of(dynamic, X, T, seed=5))
    for name, mask in control.masks().items():
        np.testing.assert_array_equal(mask, dynamic.masks()[name])


def test_static_training_is_dynamic_training_that_exchanges_nothing():
    data = clusters(np.random.default_rng(0), (6,))
    network = mlp((6, 8, 3), np.random.default_rng(1), dtype=np.float32)
    runs = [train(network, data, m, epochs=3, batch=16, seed=2) for m in (Random(0.6), RigL(0.6, alpha=0.0))]
    for key, value in runs[0].network.state().items():
        np.testing.assert_array_equal(value, runs[1].network.state()[key])


def test_each_weight_stays_with_probability_k_over_n_and_pairs_without_replacement():
    draws, n, k = 4000, 8, 3
    method = Random(5 / 8, allocation=Uniform())
    seen = np.array([masks_of(method, s, chain(np.ones((2, 4))))["fc1"].ravel() for s in range(draws)])
    single, pair = k / n, k * (k - 1) / (n * (n - 1))
    bound = 5 / np.sqrt(draws)  # five standard deviations of a mean of numbers in [0, 1], at least
    assert np.abs(seen.mean(axis=0) - single).max() < bound * np.sqrt(single * (1 - single))
    together = (seen.T.astype(int) @ seen)[np.triu_indices(n, 1)] / draws
    assert np.abs(together - pair).max() < bound * np.sqrt(pair * (1 - pair))
    # with independent draws a pair would stay with probability (k/n)^2, which the bound tells apart
    assert abs(single**2 - pair) > bound * np.sqrt(pair * (1 - pair))


def test_gradual_pruning_is_cumulative_and_uniform_at_every_moment():
    draws, horizon = 600, 10
    method = Random(0.75, Cubic(0.0, 1.0, every=2), Uniform())
    counts = np.zeros((6, 8))
    for seed in range(draws):
        network, before = chain(np.ones((2, 4))), np.ones((2, 4), dtype=bool)
        for i, step in enumerate(range(0, horizon + 1, 2)):
            mask = masks_of(method, seed, network, step, horizon)["fc1"]
            assert not (mask & ~before).any()
            counts[i] += mask.ravel()
            before = mask
    for i, step in enumerate(range(0, horizon + 1, 2)):
        p = kept_count(8, method.schedule.levels(step, horizon, 0.75)[0]) / 8
        assert np.abs(counts[i] / draws - p).max() <= 5 * np.sqrt(p * (1 - p) / draws)


def test_levels_of_one_moment_nest_as_well():
    once = masks_of(Random(0.8, OneShot(0.0), Uniform()), 3)
    many = masks_of(Random(0.8, Exponential(10), Uniform()), 3)
    for name, mask in once.items():
        np.testing.assert_array_equal(mask, many[name])


def test_the_weights_play_no_part_and_equal_layers_differ():
    network = chain(np.ones((5, 5)), np.ones((5, 5)))
    other = chain(np.random.default_rng(0).standard_normal((5, 5)) * 100, np.zeros((5, 5)))
    a, b = (masks_of(Random(0.6), 1, net) for net in (network, other))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert (a["fc1"] != a["fc2"]).any()


def test_expected_loss_of_weight_is_the_sparsity_times_the_weight():
    rng = np.random.default_rng(0)
    squares = rng.standard_normal((5, 8)) ** 2
    n, removed, draws = 40, 28, 600
    losses = [squares[~masks_of(Random(0.7), s, chain(squares))["fc1"]].sum() for s in range(draws)]
    # sampling without replacement: Var = m (1 - m/n) S^2 with S^2 = variance with divisor n - 1
    error = np.sqrt(removed * (1 - removed / n) * squares.var(ddof=1) / draws)
    assert abs(np.mean(losses) - 0.7 * squares.sum()) < 5 * error


def test_random_gradual_pruning_is_this_method_with_the_cubic_schedule():
    data, seen = clusters(np.random.default_rng(0), (6,)), []
    network = mlp((6, 20, 3), np.random.default_rng(1), dtype=np.float32)
    method = Random(0.9, Cubic(0.2, 0.7, every=1))
    train(network, data, method, epochs=4, batch=16, progress=lambda s: seen.append(s.network.masks()))
    levels = [level for t in range(13) for level in method.schedule.levels(t, 12, 0.9)]
    counts = [sum(int(m.sum()) for m in masks.values()) for masks in seen]
    assert sorted(set(counts)) == sorted({kept_count(180, level) for level in levels})
    for a, b in zip(seen, seen[1:], strict=False):
        assert not any((b[name] & ~a[name]).any() for name in a)
