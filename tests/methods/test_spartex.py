"""Spartex: fan-in at every step, exchanges and gradients by their definitions, memory, and that SET helps."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.data import synthetic
from minisparse.errors import MethodError, UsageError
from minisparse.methods.dynamic.equal_groups import enter_largest, enter_random, leave
from minisparse.methods.dynamic.label_groups import class_means, label_groups
from minisparse.methods.dynamic.spartex import GROUPS, HEAD, Spartex, meta_gradients, share_of_meta
from minisparse.nn.activation import Activation
from minisparse.nn.linear import Linear
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.lr import Cosine
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.weight import MaskedWeight
from minisparse.rng import generator
from minisparse.sparsity.sample import sample_rows
from minisparse.training.born import born
from minisparse.training.run import train
from tests.methods.problems import clusters, descend, mlp, state_of
from tests.methods.spy import no_matrices

CLASSES = 60


def tree(branching=(3, 4, 5), samples=(6, 2), noise=0.3, seed=0):
    return synthetic.label_tree(np.random.default_rng(seed), branching, 16, samples, noise=noise)


def fans(weight):
    return np.bincount(weight.flat // weight.shape[1], minlength=weight.shape[0])


# the exchange


@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_growth_against_its_definition_group_by_group(groups, of, data):
    keep = data.draw(st.integers(0, of))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    flat = sample_rows(keep, groups, of, rng)
    weight = rng.integers(-3, 4, flat.size).astype(float)
    gradient = rng.integers(-3, 4, (groups, of)).astype(float)
    k = data.draw(st.integers(0, flat.size))
    stay, lost = leave(flat, weight, k, groups, of)
    order = sorted(range(flat.size), key=lambda i: (-abs(weight[i]), flat[i]))
    assert sorted(flat[order[: flat.size - k]]) == stay.tolist()
    expected = list(stay)
    for g in range(groups):
        free = [p for p in range(g * of, (g + 1) * of) if p not in stay]
        gone = keep - sum(p // of == g for p in stay)
        expected += sorted(free, key=lambda p: (-abs(gradient.flat[p]), p))[:gone]
    # two blocks of rows of two groups each, as they would pass by
    blocks = [gradient[:2].reshape(1, -1), gradient[2:].reshape(1, -1)] if groups > 2 else [gradient]
    assert enter_largest(stay, lost, of, blocks).tolist() == sorted(expected)
    drawn = enter_random(stay, lost, of, rng)
    assert set(stay) <= set(drawn) and (np.diff(drawn) > 0).all()
    assert (np.bincount(drawn // of, minlength=groups) == keep).all()


def test_random_growth_is_uniform_among_the_free_positions_of_a_group():
    stay, lost = np.array([1, 6]), np.array([2, 0])
    rng = np.random.default_rng(0)
    seen = [tuple(enter_random(stay, lost, 5, rng)) for _ in range(3000)]
    pairs = {pair: seen.count(pair) for pair in set(seen)}
    assert len(pairs) == 6  # 2 of the positions 0, 2, 3, 4
    assert all(abs(count - 500) < 5 * np.sqrt(500 * 5 / 6) for count in pairs.values())


@pytest.mark.parametrize("storage", ["masked", "csr", "condensed"])
@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_fan_in_is_constant_at_every_step_and_only_the_last_layer_is_sparse(growth, storage):
    data, seen = tree().dataset, set()
    network = build(f"mlp:16-24-20-{CLASSES}", data)

    def watch(state):
        *below, last = (x.weight for x in state.network.prunable().values())
        assert set(fans(last)) == {4} and all(w.kept == w.size for w in below)  # floor(0.2 * 20)
        seen.add(last.flat.tobytes())

    method = Spartex(0.8, growth=growth, every=3, share=0.3)
    run = train(network, data, method, epochs=4, batch=20, storage=storage, progress=watch)
    # 18 steps an epoch: exchanges at 3, 6, ... below 0.66 * 72
    assert len(seen) == 1 + 15 and run.status == "done"


def test_all_storages_take_one_course():
    data = tree().dataset
    network = build(f"mlp:16-24-20-{CLASSES}", data).astype(np.float64)
    ends = [
        train(network, data, Spartex(0.8, every=3), epochs=2, batch=20, storage=s).network.state()
        for s in ("masked", "csr", "condensed")
    ]
    for key, value in ends[0].items():
        for other in ends[1:]:
            np.testing.assert_allclose(other[key].reshape(-1).sum(), value.sum(), rtol=1e-9, atol=1e-11)


# the auxiliary objective


def test_the_share_of_the_second_head_falls_along_half_a_cosine():
    shares = [share_of_meta(t, 40, 0.4) for t in (0, 10, 20, 30, 40, 50)]
    half = 0.2 * np.sqrt(0.5)
    np.testing.assert_allclose(shares, [0.4, 0.2 + half, 0.2, 0.2 - half, 0, 0], atol=1e-15)
    assert share_of_meta(0, 0, 0.4) == 0


def total_loss(network, state, share, head, group):
    """Equation (2) at float or complex parameters, written out."""
    h = state.train_x.astype(network.dtype)
    for layer in list(network.layers.values())[:-1]:
        h = layer.forward(h)
    main, meta = CrossEntropy(), CrossEntropy()
    y = list(network.layers.values())[-1].forward(h)
    first = main.value(y, state.train_t)
    return (1 - share) * first + share * meta.value(h @ head["V"].T + head["c"], group[state.train_t])


def ready(step=6, seed=0):
    rng = np.random.default_rng(seed)
    network = mlp((7, 8, 6, 9), rng)
    x, target = rng.standard_normal((20, 7)), np.arange(20) % 9
    method = Spartex(0.5, auxiliary=0.6, cutoff=0.5, groups=3)
    state = state_of(network, x, target, horizon=24)
    method.setup(state)
    for key, value in state.memory[HEAD].items():
        state.memory[HEAD][key] = rng.standard_normal(value.shape)
    state.step, state.value = step, descend(state)
    return method, state


def test_gradients_are_those_of_both_heads_together_by_complex_step():
    method, state = ready()
    added = method.penalty(state)
    share = 0.3 * (1 + np.cos(np.pi * 6 / 12))
    head, group = state.memory[HEAD], state.memory[GROUPS]["group"]
    network = state.network
    assert state.value + added == pytest.approx(total_loss(network, state, share, head, group), rel=1e-13)
    twin = network.astype(np.complex128)
    for key, p in network.params().items():
        mask = network.masks()[key.split(".")[0]] if key.endswith("weight") else np.ones(p.value.shape, bool)
        for i in zip(*np.nonzero(mask), strict=True):
            other = twin.params()[key].value
            other[i] += 1e-30j
            slope = total_loss(twin, state, share, head, group).imag / 1e-30
            other[i] -= 1e-30j
            assert p.grad[i] == pytest.approx(slope, rel=1e-9, abs=1e-13), (key, i)


def test_the_second_heads_own_gradients_are_the_complex_step():
    rng = np.random.default_rng(0)
    h, v, c = rng.standard_normal((5, 4)), rng.standard_normal((3, 4)), rng.standard_normal(3)
    group = rng.integers(0, 3, 5)
    _, dh, dv, dc = meta_gradients(h, v, c, group)
    for name, array, grad in (("h", h, dh), ("v", v, dv), ("c", c, dc)):
        for i in np.ndindex(array.shape):
            moved = {"h": h.astype(complex), "v": v.astype(complex), "c": c.astype(complex)}
            moved[name][i] += 1e-30j
            value = CrossEntropy().value(moved["h"] @ moved["v"].T + moved["c"], group)
            assert grad[i] == pytest.approx(value.imag / 1e-30, rel=1e-10, abs=1e-14)


def test_after_the_cutoff_and_without_a_share_nothing_is_added():
    method, state = ready(step=12)
    before = {key: p.grad.copy() for key, p in state.network.params().items()}
    head = {key: value.copy() for key, value in state.memory[HEAD].items()}
    assert method.penalty(state) == 0
    method.update(state)
    for key, p in state.network.params().items():
        np.testing.assert_array_equal(p.grad, before[key])
    for key, value in state.memory[HEAD].items():
        np.testing.assert_array_equal(value, head[key])
    state = state_of(state.network, state.train_x, state.train_t)
    Spartex(0.5, auxiliary=0.0).setup(state)
    assert HEAD not in state.memory


def test_with_all_of_the_loss_the_second_head_leaves_the_last_layer_alone():
    _, state = ready(step=0)
    Spartex(0.5, auxiliary=1.0, groups=3).penalty(state)
    last = state.network.layers["fc3"]
    assert not last.weight.param.grad.any() and not last.bias.grad.any()
    assert state.network.layers["fc1"].weight.param.grad.any()


def test_the_second_head_learns_its_groups():
    data = tree(noise=0.2).dataset
    states = []
    method = Spartex(0.8, auxiliary=0.9, cutoff=1.0, groups=5)
    train(build(f"mlp:16-24-20-{CLASSES}", data), data, method, epochs=6, batch=20, progress=states.append)
    state = states[-1]
    state.network.forward(state.train_x)
    head, group = state.memory[HEAD], state.memory[GROUPS]["group"]
    z = state.network.layers["fc2"].forward(state.network.layers["act1"].forward(
        state.network.layers["fc1"].forward(state.train_x)))  # fmt: skip
    z = state.network.layers["act2"].forward(z) @ head["V"].T + head["c"]
    assert (z.argmax(axis=1) == group[state.train_t]).mean() > 0.8


def test_groups_of_classes_are_balanced_and_follow_the_tree():
    known = tree(branching=(4, 5, 3), samples=(20, 1), noise=0.1)
    data, branch = known.dataset, known.answer["groups"][0]
    means = class_means(data.train_x, data.train_y, 60)
    expected = np.stack([data.train_x[data.train_y == c].astype(float).mean(axis=0) for c in range(60)])
    np.testing.assert_allclose(means, expected, rtol=1e-12)
    found = label_groups(means, 4, np.random.default_rng(0))
    assert np.bincount(found).tolist() == [15] * 4
    pure = sum(np.bincount(branch[found == g]).max() for g in range(4))
    assert pure > 0.7 * 60  # 1/4 or a little more by lot
    for count in (1, 7, 60):
        sizes = np.bincount(label_groups(means, count, np.random.default_rng(1)), minlength=count)
        assert sizes.max() - sizes.min() <= 1 and sizes.sum() == 60


# memory


def large(out, fan_in, hidden=500):
    """32 -> hidden, dense -> out with `fan_in` each, condensed from birth."""
    rng = generator(0, "large outputs")
    flat = sample_rows(fan_in, out, hidden, rng)
    dense = (rng.standard_normal((hidden, 32)) / 6).astype(np.float32)
    return Network(
        {
            "fc1": Linear(MaskedWeight(dense), np.zeros(hidden, np.float32)),
            "act1": Activation("relu"),
            "fc2": Linear(born((out, hidden, 1, 1), flat, "condensed", "kaiming-normal", rng)),
        },
        (32,),
    )


def peak_of_training(network, data, method):
    """(most bytes at a time, topologies seen) of two epochs."""
    seen = set()
    watch = lambda state: seen.add(state.network.layers["fc2"].weight.flat.tobytes())  # noqa: E731
    tracemalloc.start()
    try:
        train(network, data, method, epochs=2, batch=4, progress=watch)
        return tracemalloc.get_traced_memory()[1], len(seen)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_memory_is_that_of_the_connections_and_not_of_the_matrix(growth):
    out, fan_in, peaks = 20_000, 5, []
    data = clusters(np.random.default_rng(0), (32,), classes=out, train=16, test=4)
    for hidden in (200, 1000):
        method = Spartex(1 - fan_in / hidden, growth=growth, every=3, share=0.3, cutoff=0.5, groups=20)
        with no_matrices():
            train(large(out, fan_in, hidden), data, method, epochs=1, batch=4)  # compiling is not counted
            peak, topologies = peak_of_training(large(out, fan_in, hidden), data, method)
        assert topologies > 1
        peaks.append(peak)
    # 100,000 connections in matrices of 4 and 20 million entries: their masks differ by 16 MB
    assert peaks[1] < 1.2 * peaks[0] < 2.5e7


# the control


def test_exchanges_beat_the_static_mask():
    data = tree(branching=(4, 5, 10), samples=(10, 3), noise=0.3).dataset
    network = [build("mlp:16-64-64-200", data, seed) for seed in range(3)]
    score = {
        name: np.mean([
            train(
                net, data, Spartex(0.95, share=share, auxiliary=0.0, every=25), epochs=10, batch=32,
                rate=Cosine(0.2), seed=seed, storage="csr",
            ).accuracy
            for seed, net in enumerate(network)
        ])
        for name, share in (("set", 0.15), ("static", 0.0))
    }  # fmt: skip
    assert score["set"] > score["static"] + 0.02


# complaints


@pytest.mark.parametrize(
    "settings",
    [{"growth": "momentum"}, {"share": 1.5}, {"auxiliary": -0.1}, {"cutoff": float("nan")}, {"every": 0}]
    + [{"groups": -1}, {"groups": 2.0}, {"until": 2}],
)
def test_settings_are_checked(settings):
    with pytest.raises(UsageError):
        Spartex(**settings)


def test_a_network_that_does_not_end_in_weights_is_refused():
    rng = np.random.default_rng(0)
    network = mlp((4, 5, 3), rng)
    network.layers["act2"] = Activation("tanh")
    state = state_of(network, rng.standard_normal((3, 4)), np.arange(3))
    with pytest.raises(MethodError, match="last layer 'act2'"):
        Spartex(0.5).setup(state)
