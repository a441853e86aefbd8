"""RigL: how many move and when, which leave, which enter, and that it beats the mask it started from."""

from math import cos, pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse import data as datasets
from minisparse.errors import UsageError
from minisparse.methods.dynamic.rigl import RigL, exchange_fraction
from minisparse.methods.random import Random
from minisparse.nn import models
from minisparse.training.run import train
from tests.methods.dynamics import masked_exchange
from tests.methods.problems import chain, clusters, conv_net, descend, mlp, state_of

SHAPE = (4, 5)


def test_the_share_falls_along_a_cosine():
    shares = [exchange_fraction(t, 1, 0.3) for t in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(shares, [0.3, 0.25607, 0.15, 0.04393, 0], atol=5e-6)


@given(
    hnp.arrays(float, SHAPE, elements=st.integers(-3, 3)),
    hnp.arrays(float, SHAPE, elements=st.integers(-3, 3)),
    hnp.arrays(bool, SHAPE),
    st.floats(0, 1),
)
def test_an_exchange_against_its_definition_by_sorting(weight, grad, mask, share):
    kept = int(mask.sum())
    k = min(round(share * kept), kept)
    order = sorted(np.flatnonzero(mask), key=lambda i: (-abs(weight.flat[i]), i))
    stay = order[: kept - k]
    free = [i for i in range(weight.size) if i not in stay]
    grow = sorted(free, key=lambda i: (-abs(grad.flat[i]), i))[:k]
    assert not set(stay) & set(grow)
    np.testing.assert_array_equal(
        np.flatnonzero(masked_exchange(weight, grad, mask, k)), sorted([*stay, *grow])
    )


def test_a_dropped_weight_of_large_gradient_returns():
    weight, mask = np.array([[5.0, 1.0, 0.0, 0.0]]), np.array([[True, True, False, False]])
    assert masked_exchange(weight, np.array([[0.0, 9.0, 1.0, 2.0]]), mask, 1).tolist() == mask.tolist()
    assert masked_exchange(weight, np.array([[9.0, 1.0, 3.0, -4.0]]), mask, 1).tolist() == [
        [True, False, False, True]
    ]


def ready(network, x, target, loss="cross-entropy", seed=0, method=None):
    """(method, state) with masks imposed, slots filled and the gradient of the coming exchange in place."""
    method = method or RigL(0.6, alpha=0.8, every=5)
    state = state_of(network, x, target, loss, horizon=100, seed=seed)
    method.setup(state)
    for _ in range(3):
        descend(state)
        state.optimizer.step(network, 0.05)
    descend(state)
    state.step = 5
    return method, state


def problem(kind, seed=0):
    rng = np.random.default_rng(seed)
    network = conv_net(rng) if kind == "conv" else mlp((8, 10, 10, 3), rng)
    return network, rng.standard_normal((9, *network.input_shape)), rng.integers(0, 3, 9)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_counts_values_and_slots_across_an_exchange(kind):
    method, state = ready(*problem(kind))
    layers = state.network.prunable()
    masks = state.network.masks()
    weights = {n: x.weight.dense().copy() for n, x in layers.items()}
    slots = {n: state.optimizer.slots[f"{n}.weight"]["u"].copy() for n in layers}
    grads = {n: x.dense_grad() for n, x in layers.items()}
    f = 0.4 * (1 + cos(pi * 5 / 75))
    method.update(state)
    moved = 0
    for name, layer in layers.items():
        old, new, w = masks[name], layer.weight.mask, layer.weight.dense()
        if old.all():
            assert new.all()
            continue
        np.testing.assert_array_equal(
            new, masked_exchange(weights[name], grads[name], old, round(f * old.sum()))
        )
        assert new.sum() == old.sum()
        slot = state.optimizer.slots[f"{name}.weight"]["u"]
        for array, before in ((w, weights[name]), (slot, slots[name])):
            np.testing.assert_array_equal(array[new & old], before[new & old])
            assert (array[new & ~old] == 0).all() and (array[~new] == 0).all()
        moved += (new & ~old).sum()
    assert moved > 0


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_growing_leaves_the_loss_unchanged(kind):
    method, state = ready(*problem(kind))
    masks = state.network.masks()
    method.update(state)
    value = descend(state)
    without = state.network.copy()
    for name, layer in without.prunable().items():
        layer.weight.rewire(layer.weight.mask & masks[name])
    assert value == descend(state_of(without, state.train_x, state.train_t))


def test_an_exchange_takes_the_place_of_the_step():
    method, state = ready(*problem("mlp"))
    biases = {n: x.bias.value.copy() for n, x in state.network.prunable().items()}
    taken = state.optimizer.t
    method.update(state)
    assert state.optimizer.t == taken
    for name, layer in state.network.prunable().items():
        np.testing.assert_array_equal(layer.bias.value, biases[name])
    state.step += 1
    method.update(state)
    assert state.optimizer.t == taken + 1


def test_growth_follows_the_rank_one_gradient_of_a_bowl():
    # one sample: L = |W x - t|^2 / 2, dL/dW_ij = r_i x_j with r = W x - t
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((1, 6)), rng.standard_normal((1, 5))
    method, state = ready(chain(rng.standard_normal((5, 6))), x, t, "mse")
    weight = state.network.prunable()["fc1"].weight
    r, w, old = (x @ weight.dense().T - t)[0], weight.dense().copy(), weight.mask
    np.testing.assert_allclose(state.network.prunable()["fc1"].dense_grad(), np.outer(r, x[0]), rtol=1e-12)
    method.update(state)
    k = round(exchange_fraction(5, 75, 0.8) * old.sum())
    live = sorted(np.abs(w[old]))
    stay = old & (np.abs(w) > live[k - 1])
    worth = np.abs(np.outer(r, x[0]))[~stay]
    grown = weight.mask & ~stay
    assert grown.sum() == k
    np.testing.assert_allclose(np.sort(np.abs(np.outer(r, x[0]))[grown]), np.sort(worth)[-k:])


def test_it_is_due_every_so_often_until_the_end_of_its_window():
    _, state = ready(*problem("mlp"))
    method, due = RigL(0.6, every=10, until=0.75), []
    for t in range(101):
        state.step = t
        if method.due(state):
            due.append(t)
    assert due == [10, 20, 30, 40, 50, 60, 70]
    assert RigL().every == 100


def test_a_dense_network_and_no_share_never_lose_a_step():
    network, x, target = problem("mlp")
    state = state_of(network, x, target)
    state.step = 5
    assert not RigL(0.0, every=5).exchange_all(state)
    RigL(0.5).setup(state)
    assert RigL(0.5, every=5).due(state)
    assert not RigL(0.5, every=5, alpha=0.0).due(state)


def test_every_layers_count_is_constant_over_a_run():
    data = clusters(np.random.default_rng(0), (6,))
    network = mlp((6, 12, 9, 3), np.random.default_rng(1), dtype=np.float32)
    counts, masks = set(), set()

    def watch(state):
        counts.add(tuple(x.weight.kept for x in state.network.prunable().values()))
        masks.add(b"".join(m.tobytes() for m in state.network.masks().values()))

    train(network, data, RigL(0.7, every=2), epochs=6, batch=16, progress=watch)
    assert len(counts) == 1 and len(masks) > 3


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 1.5}, {"alpha": float("nan")}, {"every": 0}, {"every": 2.5}, {"every": True}, {"until": -1}],
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        RigL(**settings)


@pytest.mark.parametrize("sparsity", [0.98, 0.99])
def test_it_beats_the_static_mask_it_starts_from(sparsity):
    data = datasets.load("digits")
    scores = {"rigl": [], "static": []}
    for seed in range(3):
        network = models.build("mlp:64-100-10", data, seed=seed)
        methods = {"rigl": RigL(sparsity, every=8), "static": Random(sparsity)}
        for name, method in methods.items():
            run = train(network, data, method, epochs=10, seed=seed)
            scores[name].append(run.accuracy)
    assert np.mean(scores["rigl"]) > np.mean(scores["static"]) + 0.1
