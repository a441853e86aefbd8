"""Top-KAST: what is used, what is trained, what is frozen bit for bit, and the penalty's ratio of 1/D."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minisparse.errors import NonFiniteError, UsageError
from minisparse.methods.dynamic.topkast import TopKAST, penalty_gradient, trained, two_masked
from minisparse.methods.random import Random
from minisparse.nn.optim import SGD, Adam, AdamW
from minisparse.nn.weight import MaskedWeight
from minisparse.sparsity import kept_count
from minisparse.training.run import train
from tests.methods.dynamics import accuracy, counts_of, network_of, watched
from tests.methods.problems import clusters, descend, mlp, state_of

SHAPE = (4, 5)
OPTIMIZERS = [lambda: SGD(0.9, weight_decay=0.1), lambda: SGD(0.0), lambda: Adam(weight_decay=0.1), AdamW]


@given(hnp.arrays(float, SHAPE, elements=st.integers(-4, 4)), st.integers(0, 20), st.floats(0, 1))
def test_what_is_trained_is_what_is_used_and_the_largest_of_the_rest(theta, k, explore):
    order = sorted(range(20), key=lambda i: (-abs(theta.flat[i]), i))
    used = np.isin(np.arange(20), order[:k]).reshape(SHAPE)
    more = round(explore * (20 - k))
    assert sorted(np.flatnonzero(trained(theta, used, explore))) == sorted(order[: k + more])


def test_the_penalty_pulls_harder_on_what_is_only_trained_by_one_over_the_density():
    theta = np.full((1, 10), 2.0)
    used = np.arange(10)[None, :] < 1
    pull = penalty_gradient(theta, used, np.arange(10)[None, :] < 6, 0.01)
    np.testing.assert_allclose(pull, [[0.02] + [0.2] * 5 + [0.0] * 4])


def ready(method, optimizer=None, seed=0):
    rng = np.random.default_rng(seed)
    network = mlp((8, 10, 9, 3), rng)
    x, target = rng.standard_normal((12, 8)), rng.integers(0, 3, 12)
    state = state_of(network, x, target, optimizer=optimizer or SGD(0.9), horizon=20)
    method.setup(state)
    return state


def step(method, state):
    value = descend(state) + method.penalty(state)
    method.update(state)
    state.step += 1
    state.clock += 1
    method.after_update(state)
    return value


def test_the_forward_pass_uses_a_only_and_the_gradient_is_that_of_the_sparse_network():
    method = TopKAST(0.7, decay=0.0)
    state = ready(method)
    twin = mlp((8, 10, 9, 3), np.random.default_rng(0))
    for name, layer in twin.prunable().items():
        layer.weight.rewire(two_masked(state)[name].gate)
    other = state_of(twin, state.train_x, state.train_t)
    assert descend(state) == descend(other)
    for name, weight in two_masked(state).items():
        np.testing.assert_array_equal(weight.dense(), twin.prunable()[name].weight.dense())
        dense = twin.prunable()[name].dense_grad()
        np.testing.assert_allclose(weight.theta.grad, np.where(weight.backward, dense, 0), rtol=1e-12)
        assert (weight.backward & weight.gate == weight.gate).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_not_trained_is_frozen_bit_for_bit_without_momentum(optimizer):
    method = TopKAST(0.7, explore=0.3)
    state = ready(method, optimizer())
    moved = 0
    for _ in range(8):
        before = {n: (w.theta.value.copy(), w.backward.copy()) for n, w in two_masked(state).items()}
        step(method, state)
        for name, weight in two_masked(state).items():
            theta, allowed = before[name]
            np.testing.assert_array_equal(weight.theta.value[~allowed], theta[~allowed])
            moved += (weight.theta.value != theta)[allowed & ~weight.gate].sum()
            for slot in state.optimizer.slots[f"{name}.weight"].values():
                assert not slot[~weight.backward].any()
    assert moved > 0


def test_without_exploration_what_was_never_used_never_moves():
    method = TopKAST(0.7, explore=0.0)
    state = ready(method)
    start = {n: w.theta.value.copy() for n, w in two_masked(state).items()}
    ever = {n: w.gate.copy() for n, w in two_masked(state).items()}
    for _ in range(10):
        step(method, state)
        for name, weight in two_masked(state).items():
            np.testing.assert_array_equal(weight.backward, weight.gate)
            np.testing.assert_array_equal(weight.theta.value[~ever[name]], start[name][~ever[name]])
            ever[name] |= weight.gate
    assert any((ever[n] & ~w.gate).any() for n, w in two_masked(state).items())


def test_full_exploration_gives_dense_gradients_to_the_sparse_network():
    method = TopKAST(0.7, explore=1.0)
    state = ready(method)
    descend(state)
    for name, layer in state.network.prunable().items():
        grad = two_masked(state)[name].theta.grad
        np.testing.assert_allclose(grad, layer.dense_grad(), rtol=1e-12)
        assert grad[~layer.weight.mask].any() or layer.weight.mask.all()


def test_the_penalty_and_its_gradient_agree():
    method = TopKAST(0.6, decay=0.3)
    state = ready(method)
    descend(state)
    weights = two_masked(state)
    clean = {n: w.theta.grad.copy() for n, w in weights.items()}
    value = method.penalty(state)
    weight = weights["fc1"]
    expected = 0.0
    for w in weights.values():
        only = w.backward & ~w.gate
        density = w.kept / w.size
        expected += 0.15 * ((w.theta.value[w.gate] ** 2).sum() + (w.theta.value[only] ** 2).sum() / density)
    assert value == pytest.approx(expected, rel=1e-12)
    i = tuple(np.argwhere(weight.backward & ~weight.gate)[0])
    slope = weight.theta.grad[i] - clean["fc1"][i]
    weight.theta.value[i] += 1e-6
    assert (method.penalty(state) - value) / 1e-6 == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_the_count_used_is_exact_at_every_step_and_what_is_used_changes(kind):
    size = sum(x.weight.size for x in network_of(kind).prunable().values())
    masks = set()

    def watch(state):
        assert sum(counts_of(state.network).values()) == size - round(0.7 * size) == kept_count(size, 0.7)
        masks.add(b"".join(m.tobytes() for m in state.network.masks().values()))
        for name, weight in two_masked(state).items():
            score = np.abs(weight.theta.value)
            assert score[weight.gate].min() >= score[~weight.gate].max(initial=0), name

    watched(TopKAST(0.7, explore=0.8), watch, kind)
    assert len(masks) > 3


def test_exploration_ends_when_told():
    method = TopKAST(0.6, until=0.5)
    state = ready(method)
    for t in range(1, 20):
        step(method, state)
        same = all((w.backward == w.gate).all() for w in two_masked(state).values())
        assert same == (t >= 10)


def test_choices_are_made_every_so_often():
    method = TopKAST(0.6, every=4)
    state, seen = ready(method), []
    for _ in range(12):
        step(method, state)
        seen.append(state.topology)
    assert seen == [1] * 3 + [2] * 4 + [3] * 4 + [4]


def test_the_result_is_the_sparse_network_with_masked_weights():
    network = mlp((6, 12, 9, 3), np.random.default_rng(1), dtype=np.float32)
    data = clusters(np.random.default_rng(0), (6,))
    last = {}

    def watch(state):
        last.update({n: w.dense().copy() for n, w in two_masked(state).items()})

    run = train(network, data, TopKAST(0.7), epochs=3, batch=16, progress=watch)
    for name, layer in run.network.prunable().items():
        assert type(layer.weight) is MaskedWeight
        np.testing.assert_array_equal(layer.weight.dense(), last[name])


def test_a_weight_that_is_not_finite_is_refused():
    method = TopKAST(0.6)
    state = ready(method)
    two_masked(state)["fc2"].theta.value[0, 0] = np.nan
    with pytest.raises(NonFiniteError):
        method.choose(state)


@pytest.mark.parametrize(
    "settings", [{"sparsity": 1.0}, {"explore": 1.1}, {"decay": -1}, {"every": 0}, {"until": True}]
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        TopKAST(**settings)


def test_it_beats_a_static_mask_of_its_sparsity():
    assert accuracy(TopKAST(0.95)) > accuracy(Random(0.95)) + 0.1
