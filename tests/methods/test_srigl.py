"""SRigL: the worked step, equal fan-ins at every step, who is ablated, and that the ablated are silent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import MethodError, NonFiniteError, UsageError
from minisparse.methods.dynamic.srigl import (
    BUDGET,
    SRigL,
    constant_fan_in,
    exchange,
    fill,
    has_constant_fan_in,
    largest_of_rows,
    salient,
    survivors,
)
from minisparse.methods.random import Random
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.optim import SGD, Adam
from minisparse.sparsity import ERK, Global, LayerShape, Uniform, kept_count
from tests.methods.dynamics import (
    Snapshot,
    accuracy,
    assert_growth_is_silent,
    mask_of,
    network_of,
    positions,
    trained_state,
    watched,
)
from tests.methods.problems import conv_net, mlp, state_of

W = np.array([[0.9, 0.8, 0, 0], [0, 0, 0.05, 0.04], [0.7, 0, 0.6, 0]])
G = np.array([[0, 0, 0.5, 0.1], [0.01, 0.02, 0, 0], [0, 0.4, 0, 0.3]])
M = W != 0


def masked(w, g, mask, k, budget, gamma):
    """The exchange as a mask, from matrices; the gradient comes row by row."""
    flat = exchange(positions(mask), w[mask], mask.shape, lambda: iter(g[:, None]), k, budget, gamma)
    return mask_of(flat, mask.shape)


def test_the_worked_step_with_ablation():
    assert salient(positions(M), W[M], M.shape, [G], 2).tolist() == [3, 0, 3]
    assert survivors(np.array([3, 0, 3]), 0.3, 6, 4).tolist() == [True, False, True]
    new = masked(W, G, M, 2, 6, 0.3)
    assert new.astype(int).tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 0]]


def test_the_worked_step_without_ablation():
    new = masked(W, G, M, 2, 6, 0.0)
    assert new.tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [True, False, True, False],
    ]


def test_the_limit_counts_entries_is_a_share_or_gives_way():
    counts = np.array([9, 5, 3, 1, 0])
    assert survivors(counts, 0.5, 50, 100).tolist() == [True, True, False, False, False]  # 0.5 x 10
    assert survivors(counts, 0.01, 50, 100).tolist() == [True, True, True, True, False]  # at least 1
    assert survivors(counts, 3, 50, 100).tolist() == [True, True, True, False, False]
    # 50 weights over rows of 20: three units at least
    assert survivors(counts, 0.99, 50, 20).tolist() == [True, True, True, False, False]
    assert survivors(counts, 0.0, 50, 100).all()


def by_definition(w, g, mask, k, budget, gamma):
    """The step of exchange by sorting, a unit at a time."""
    n, fan = mask.shape
    kept = int(mask.sum())
    flat = lambda a, among: sorted(among, key=lambda i: (-abs(a.flat[i]), i))  # noqa: E731
    large = flat(w, np.flatnonzero(mask))[: kept - k]
    marked = set(large) | set(flat(g, range(mask.size))[:k])
    counts = [sum(i // fan == u for i in marked) for u in range(n)]
    limit = 0 if gamma == 0 else int(gamma) if gamma >= 1 else max(1, int(gamma * (budget // n)))
    limit = min(limit, sorted(counts, reverse=True)[min(budget // fan, n - 1)])
    active = [u for u in range(n) if counts[u] >= limit]
    active = sorted(active, key=lambda u: (-counts[u], u))[:budget]
    size = min(fan, budget // max(1, len(active)))
    keep = flat(w, [i for i in np.flatnonzero(mask) if i // fan in active])[: kept - k]
    new = np.zeros(mask.size, dtype=bool)
    for u in active:
        row = range(u * fan, (u + 1) * fan)
        mine = flat(w, [i for i in row if i in keep])
        others = flat(g, [i for i in row if i not in keep])
        new[(mine + others)[:size]] = True
    return new.reshape(mask.shape)


@st.composite
def problems(draw):
    n, fan = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    budget = draw(st.integers(0, n * fan))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = mask_of(constant_fan_in((n, fan), budget, rng), (n, fan))
    numbers = hnp.arrays(float, (n, fan), elements=st.integers(-5, 5))
    w, g = draw(numbers) * mask, draw(numbers)
    k = draw(st.integers(0, int(mask.sum())))
    return w, g, mask, k, budget, draw(st.sampled_from([0.0, 0.3, 0.7, 0.99, 1, 2]))


@given(problems())
def test_an_exchange_against_its_definition_and_its_promises(problem):
    new = masked(*problem)
    np.testing.assert_array_equal(new, by_definition(*problem))
    *_, mask, _k, budget, gamma = problem
    n, fan = mask.shape
    fans = new.sum(axis=1)
    active = int((fans > 0).sum())
    assert len(set(fans[fans > 0])) <= 1
    assert active * fan >= budget or active == n
    assert 0 <= budget - new.sum() < max(1, active)
    if gamma == 0:
        assert active == min(n, budget)


@pytest.mark.parametrize(
    ("sparsity", "budget", "fan"),
    [(0.8, 471859, 614), (0.9, 235930, 307), (0.95, 117965, 153), (0.99, 23593, 30)],
)
def test_the_fan_ins_of_a_768_by_3072_layer(sparsity, budget, fan):
    assert kept_count(768 * 3072, sparsity) == budget and budget // 768 == fan
    flat = constant_fan_in((768, 3072), budget, np.random.default_rng(0))
    assert (mask_of(flat, (768, 3072)).sum(axis=1) == fan).all()
    if sparsity == 0.9:
        half, no_gradient = np.arange(768) < 384, [np.zeros((768, 3072))]
        flat = flat[flat < 384 * 3072]
        filled = fill(flat, np.zeros(flat.size), no_gradient, half, 3072, budget // 384)
        assert (mask_of(filled, (768, 3072)).sum(axis=1) == np.where(half, 614, 0)).all()


@given(hnp.arrays(float, (4, 6), elements=st.integers(-3, 3)), hnp.arrays(bool, (4, 6)), st.integers(0, 7))
def test_the_largest_of_each_row_are_sorting(weight, mask, k):
    found = largest_of_rows(positions(mask), weight[mask], 6, k)
    expected = []
    for row in range(4):
        mine = [i for i in positions(mask) if i // 6 == row]
        expected += sorted(mine, key=lambda i: (-abs(weight.flat[i]), i))[:k]
    assert found.tolist() == sorted(expected)


def test_a_network_that_has_constant_fan_in_keeps_its_topology_and_values():
    network = mlp((8, 14, 12, 3), np.random.default_rng(0))
    trained_state(SRigL(0.7), network)
    masks, values = network.masks(), {n: x.weight.dense().copy() for n, x in network.prunable().items()}
    state = state_of(network, np.zeros((2, 8)), np.zeros(2, dtype=int), seed=77)
    SRigL(0.7).setup(state)
    for name, layer in network.prunable().items():
        np.testing.assert_array_equal(layer.weight.mask, masks[name])
        np.testing.assert_array_equal(layer.weight.dense(), values[name])
    weight, budget = network.prunable()["fc2"].weight, int(state.memory[BUDGET]["fc2"])
    assert has_constant_fan_in(weight, budget) and not has_constant_fan_in(weight, budget + 14)
    uneven = np.delete(weight.flat, 0)
    free = np.setdiff1d(np.arange(14, weight.size), weight.flat)[-1]
    weight.rewire_flat(np.sort(np.append(uneven, free)))
    assert not has_constant_fan_in(weight, budget)


def test_first_inputs_are_drawn_uniformly_and_independently_by_unit():
    seen = np.zeros((4, 6))
    for seed in range(2000):
        seen += mask_of(constant_fan_in((4, 6), 8, np.random.default_rng(seed)), (4, 6))
    p = 1 / 3
    assert np.abs(seen / 2000 - p).max() < 5 * np.sqrt(p * (1 - p) / 2000)
    mask = mask_of(constant_fan_in((50, 40), 1000, np.random.default_rng(0)), (50, 40))
    assert len(np.unique(mask, axis=0)) == 50


def test_constant_fan_in_has_the_smaller_variance_of_the_two():
    # z = sqrt(2/k) diag(xi) (m w) u, n = 8, k = 2: E = 1, Var = (5n - 2 + 12n/k)/(n(n+2)) = 1.075
    rng = np.random.default_rng(0)
    n, k, draws = 8, 2, 20000
    norms = np.empty(draws)
    for i in range(draws):
        u = rng.standard_normal(n)
        m = np.argsort(rng.random((n, n)), axis=1) < k
        z = (
            np.sqrt(2 / k)
            * (rng.random(n) < 0.5)
            * ((m * rng.standard_normal((n, n))) @ (u / np.linalg.norm(u)))
        )
        norms[i] = z @ z
    assert abs(norms.mean() - 1) < 5 * np.sqrt(1.075 / draws)
    assert abs(norms.var() - 1.075) < 0.1  # Bernoulli masks: 1.3


def exchanged(kind="mlp", seed=0, gamma=0.9, sparsity=0.7):
    rng = np.random.default_rng(seed)
    network = conv_net(rng, width=6) if kind == "conv" else mlp((8, 14, 12, 3), rng)
    method = SRigL(sparsity, alpha=0.8, every=5, gamma=gamma)
    state = trained_state(method, network, seed)
    before = Snapshot(state)
    state.step = 5
    method.update(state)
    method.after_update(state)
    return method, state, before


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_an_exchange_moves_values_and_slots_as_it_should(kind):
    _, state, before = exchanged(kind)
    assert before.assert_moved_to(Snapshot(state)) > 3


def test_growing_leaves_the_loss_unchanged_where_nothing_is_ablated():
    _, state, before = exchanged(gamma=0.0)
    assert_growth_is_silent(state, before)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("gamma", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", [lambda: SGD(0.9, weight_decay=1e-2), Adam])
def test_fan_ins_are_equal_and_the_ablated_silent_at_every_step(kind, gamma, optimizer):
    ablated, masks = [], set()

    def watch(state):
        network, count = state.network, 0
        masks.add(b"".join(m.tobytes() for m in network.masks().values()))
        for name, layer in network.prunable().items():
            fans = layer.weight.mask.sum(axis=1)
            budget = int(state.memory[BUDGET][name])
            assert len(set(fans[fans > 0])) == 1
            assert 0 <= budget - fans.sum() < max(1, (fans > 0).sum())
            if name == list(network.prunable())[-1]:
                assert (fans > 0).all()
                continue
            mute = fans == 0
            count += mute.sum()
            if layer.bias is not None:
                assert not layer.bias.value[mute].any()
        ablated.append(count)
        for mode in (EVAL, Mode(training=True)):
            x, first = state.train_x[:20], next(iter(network.prunable().values()))
            y = x.reshape(20, *network.input_shape)
            for name, layer in network.copy().layers.items():
                y = layer.forward(y, mode)
                if name in ("act1", "relu"):
                    mute = ~first.weight.mask.any(axis=1)
                    assert not y[:, mute].any()

    watched(SRigL(0.8, alpha=0.9, every=2, gamma=gamma), watch, kind, optimizer=optimizer())
    assert len(masks) > 2
    assert ablated[-1] >= ablated[0] and (ablated[-1] > 0 or gamma == 0)


def test_the_next_layer_stops_reading_the_ablated():
    network = mlp((8, 14, 12, 3), np.random.default_rng(0))
    method = SRigL(0.6, alpha=0.9, every=5, gamma=0.3)
    state = trained_state(method, network)
    first, second = network.prunable()["fc1"].weight, network.prunable()["fc2"].weight
    gone = np.arange(14) < 4
    state.rewire({"fc1": first.mask & ~gone[:, None]})
    method.after_update(state)
    reading = int(second.mask[:, gone].sum())
    network.forward(state.train_x)
    network.backward(state.loss.grad(), need_dx=False)
    grad = network.prunable()["fc2"].dense_grad()
    assert not grad[:, gone].any()
    state.step = 5
    method.update(state)
    # a unit that is off for every sample has no gradient anywhere: all its inputs tie
    choosing = np.count_nonzero(grad, axis=1) >= second.mask.sum(axis=1).max()
    assert reading > 5 and choosing.sum() > 5 and not second.mask[np.ix_(choosing, gone)].any()


def test_the_last_layer_is_never_ablated_and_budgets_are_the_allocations():
    _, state, _ = exchanged(gamma=0.99)
    masks = state.network.masks()
    assert masks["fc3"].any(axis=1).all() and not masks["fc1"].any(axis=1).all()
    shapes = {n: LayerShape(*x.weight.geometry) for n, x in state.network.prunable().items()}
    expected = ERK().counts(shapes, 0.7)
    assert {n: int(a) for n, a in state.memory[BUDGET].items()} == expected


def test_an_exchange_takes_the_place_of_the_step_and_is_due_in_its_window():
    method, state, _ = exchanged()
    taken, due = state.optimizer.t, []
    state.step = 10
    method.update(state)
    assert state.optimizer.t == taken
    for t in range(101):
        state.step = t
        if method.due(state):
            due.append(t)
    assert due == list(range(5, 75, 5))


def test_a_gradient_that_is_not_finite_is_refused():
    method, state, _ = exchanged()
    state.network.prunable()["fc1"].dy[...] = np.nan
    with pytest.raises(NonFiniteError):
        method.exchange_all(state)


def test_one_ranking_over_all_layers_gives_no_layer_a_fan_in():
    network = network_of("mlp").astype(np.float64)
    with pytest.raises(MethodError, match="erk"):
        trained_state(SRigL(0.5, allocation=Global()), network)


@pytest.mark.parametrize("settings", [{"alpha": 1.5}, {"every": 0}, {"until": -1}, {"gamma": -0.1}])
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        SRigL(**settings)


def test_fewer_weights_than_units_leave_units_of_one_input():
    network = mlp((6, 40, 30, 3), np.random.default_rng(0))
    state = trained_state(SRigL(0.99, allocation=Uniform()), network)
    fans = network.masks()["fc2"].sum(axis=1)
    assert sorted(set(fans)) == [0, 1] and fans.sum() == state.memory[BUDGET]["fc2"] < 30
    method = SRigL(0.99, every=5, alpha=0.9, gamma=0.0)
    state.step = 5
    method.exchange_all(state)
    fans = network.masks()["fc2"].sum(axis=1)
    assert sorted(set(fans)) == [0, 1] and fans.sum() == state.memory[BUDGET]["fc2"]


def test_it_beats_the_static_mask_of_its_sparsity():
    assert accuracy(SRigL(0.95, every=8)) > accuracy(Random(0.95)) + 0.05
