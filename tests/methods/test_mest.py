"""MEST: who is least important, how many mutate and when, and the budget under either bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, UsageError
from minisparse.methods.dynamic.mest import BUDGET, MEST, bounds, importance, mutation_rate
from tests.methods.dynamics import Snapshot, assert_growth_is_silent, counts_of, trained_state, watched
from tests.methods.problems import mlp

SHAPE = (3, 4)
NUMBERS = hnp.arrays(float, SHAPE, elements=st.integers(-5, 5))


def test_the_rate_of_the_authors_run():
    # 160 epochs: a fifth until 90, a tenth until 120, nothing after
    rates = [mutation_rate(t, 160, 0.2) for t in (0, 89, 90, 119, 120, 160)]
    assert rates == [0.2, 0.2, 0.1, 0.1, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rate", "soft", "expected"),
    [(0.2, False, (80, 100)), (0.1, False, (90, 100)), (0.0, False, (100, 100))]
    + [(0.5, True, (100, 150)), (0.25, True, (100, 125)), (0.0, True, (100, 100))],
)
def test_the_bounds_of_the_authors_scripts(rate, soft, expected):
    # 1000 entries at 90 %: 92-91-90 % against 90 %, and 90 % against 85-87.5-90 %
    assert bounds(100, 1000, rate, soft) == expected


def test_a_layer_cannot_exceed_its_size():
    assert bounds(95, 100, 0.2, True) == (95, 100)


@given(NUMBERS, NUMBERS, st.floats(0, 3))
def test_importance_adds_the_gradients_size_to_the_weights(weight, grad, lam):
    score = importance(weight, grad, lam)
    for i in np.ndindex(SHAPE):
        assert score[i] == abs(weight[i]) + lam * abs(grad[i])


def test_a_small_weight_with_a_large_gradient_stays():
    weight, grad = np.array([0.1, 0.3, 1.0]), np.array([1.0, 0.1, 0.0])
    assert np.argmin(importance(weight, grad, 0.0)) == 0
    assert np.argmin(importance(weight, grad, 1.0)) == 1
    assert np.argmin(importance(weight, grad, 10.0)) == 2


def mutated(soft=False, step=10, seed=0, lam=1.0):
    method = MEST(0.6, every=10, soft=soft, lam=lam, mutation=0.4)
    state = trained_state(method, mlp((8, 10, 10, 3), np.random.default_rng(seed)), seed)
    state.step = step
    before = Snapshot(state)
    grads = {n: x.dense_grad() for n, x in state.network.prunable().items()}
    method.after_update(state)
    return method, state, before, grads


def test_an_elastic_mutation_exchanges_the_least_important():
    _, state, before, grads = mutated()
    after = Snapshot(state)
    assert before.assert_moved_to(after) > 10
    for name, old in before.masks.items():
        k = 0 if old.all() else round(0.4 * old.sum())
        score = importance(before.weights[name], grads[name], 1.0)
        order = sorted(np.flatnonzero(old), key=lambda i: (-score.flat[i], i))
        assert after.masks[name].flat[order[: old.sum() - k]].all()
        assert after.masks[name].sum() == old.sum()


def test_the_soft_bound_adds_first_and_chooses_later():
    method, state, before, _ = mutated(soft=True)
    after = Snapshot(state)
    assert before.assert_moved_to(after) > 10
    for name, old in before.masks.items():
        assert (after.masks[name] & old == old).all()  # nothing left: the budget was just met
        assert after.masks[name].sum() == min(old.size, old.sum() + round(0.4 * old.sum()))
    weights = {n: x.weight.dense() for n, x in state.network.prunable().items()}
    grads = {n: x.dense_grad() for n, x in state.network.prunable().items()}
    for name, layer in state.network.prunable().items():
        layer.weight.param.grad[...] = np.where(layer.weight.mask, grads[name], 0)
    first = {n: importance(weights[n], grads[n], 1.0) for n in after.masks}
    state.step = 75
    assert method.due(state)
    method.after_update(state)
    for name, mask in state.network.masks().items():
        assert mask.sum() == state.memory[BUDGET][name] == before.masks[name].sum()
        assert not (mask & ~after.masks[name]).any()
        gone = after.masks[name] & ~mask
        assert first[name][mask].min() >= first[name][gone].max(initial=0)


@pytest.mark.parametrize("soft", [False, True])
def test_growing_leaves_the_loss_unchanged(soft):
    _, state, before, _ = mutated(soft)
    assert_growth_is_silent(state, before)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("soft", [False, True])
def test_the_memory_stays_within_its_bound_at_every_step(kind, soft):
    seen, masks = [], set()

    def watch(state):
        counts = counts_of(state.network)
        for name, layer in state.network.prunable().items():
            budget = int(state.memory[BUDGET][name])
            most = min(layer.weight.size, budget + round(0.5 * budget) * soft)
            assert budget <= counts[name] <= most
        seen.append((counts, {n: int(b) for n, b in state.memory[BUDGET].items()}))
        masks.add(b"".join(m.tobytes() for m in state.network.masks().values()))

    watched(MEST(0.7, every=2, soft=soft, mutation=0.5), watch, kind)
    assert len(masks) > 3
    exceeded = [sum(c.values()) > sum(b.values()) for c, b in seen]
    assert any(exceeded) == soft
    # 18 steps: from 3/4 (step 14) on the budget holds
    assert not any(exceeded[14:])


def test_a_layer_that_was_filled_up_comes_back():
    method = MEST(0.2, every=10, soft=True, mutation=1.0)
    state = trained_state(method, mlp((8, 10, 3), np.random.default_rng(0)))
    budget = counts_of(state.network)
    state.step = 10
    method.after_update(state)
    assert all(m.all() for m in state.network.masks().values())
    state.step = 75
    method.after_update(state)
    assert counts_of(state.network) == budget


def test_it_is_due_until_mutation_ends_and_then_once():
    _, state, *_ = mutated()
    method, due = MEST(0.6, every=20), []
    for t in range(101):
        state.step = t
        if method.due(state):
            due.append(t)
    assert due == [20, 40, 60, 75]


def test_a_gradient_that_is_not_finite_is_refused():
    method, state, *_ = mutated()
    weight = state.network.prunable()["fc1"].weight
    weight.param.grad[weight.mask] = np.nan
    with pytest.raises(NonFiniteError):
        method.exchange_all(state)


@pytest.mark.parametrize("settings", [{"mutation": 1.5}, {"lam": -1}, {"soft": 1}, {"every": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        MEST(**settings)
