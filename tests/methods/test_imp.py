"""IMP: the rounds' densities, what is rewound, and the problem on which rounds and one shot agree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.data.batches import batches
from minisparse.data.synthetic import quadratic
from minisparse.errors import SparsityError, UsageError
from minisparse.methods.dense import Dense
from minisparse.methods.lottery.imp import IMP, levels_at
from minisparse.nn.loss import CrossEntropy
from minisparse.nn.lr import Constant, Cosine, Step
from minisparse.nn.mode import Mode
from minisparse.nn.optim import SGD, Adam
from minisparse.sparsity import SlowLast, Uniform, kept_count
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, conv_net, mlp, state_of

PER_EPOCH = 3  # 40 samples in batches of 16


def small(kind="mlp", seed=0):
    rng = np.random.default_rng(seed)
    network = conv_net(rng, np.float32) if kind == "conv" else mlp((6, 8, 3), rng, dtype=np.float32)
    return network, clusters(rng, network.input_shape, train=40)


def follow(network, data, method, epochs=2, **settings):
    """(run, snapshots after every step): step, clock, lr, state, masks."""
    seen = []

    def watch(state):
        network = state.network
        seen.append((state.step, state.clock, state.lr, network.state(), network.masks()))

    run = train(network, data, method, epochs=epochs, batch=16, progress=watch, **settings)
    return run, seen


def test_a_fifth_of_what_remains_leaves_in_every_round():
    levels = IMP(1 - 0.8**15, rounds=15).levels
    percent = [80, 64, 51.2, 40.96, 32.77, 26.21, 20.97, 16.78, 13.42, 10.74, 8.59, 6.87, 5.50, 4.40, 3.52]
    np.testing.assert_allclose([100 * (1 - s) for s in levels], percent, atol=0.005)
    kept = [kept_count(266_200, s) for s in levels[:5]]
    assert kept == [212_960, 170_368, 136_294, 109_036, 87_228]


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 6))
def test_every_training_but_the_last_ends_in_one_level(horizon, k, rounds):
    k = min(k, horizon)
    levels = tuple(range(rounds))
    length = horizon + rounds * (horizon - k)
    found = [(t, level) for t in range(length + 1) for level in levels_at(t, horizon, k, levels)]
    assert found == [(horizon + r * (horizon - k), r) for r in range(rounds)]


@pytest.mark.parametrize("rewind", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_survivors_return_to_step_k_and_the_clock_with_them(kind, rewind):
    network, data = small(kind)
    horizon = 2 * PER_EPOCH
    k = round(rewind * horizon)
    method = IMP(0.75, rounds=2, rewind=rewind)
    run, seen = follow(network, data, method, rate=Cosine(0.1))
    assert run.steps == method.length(horizon) == 3 * horizon - 2 * k == seen[-1][0]
    early = seen[k][3]
    for r in (1, 2):
        step, clock, lr, now, masks = seen[horizon + (r - 1) * (horizon - k)]
        assert clock == k and lr == Cosine(0.1).at(k, horizon)
        for key, value in now.items():
            name = key.removesuffix(".weight")
            expected = early[key] * masks[name] if name in masks else early[key]
            np.testing.assert_array_equal(value, expected)
    assert seen[-1][1] == horizon


def test_masks_are_nested_and_keep_the_largest_trained_weights():
    network, data = small()
    _, seen = follow(network, data, IMP(0.8, rounds=3))
    horizon, size = 2 * PER_EPOCH, 72
    for r, level in enumerate(IMP(0.8, rounds=3).levels, 1):
        before, after = seen[r * horizon - 1][4], seen[r * horizon][4]
        assert sum(int(m.sum()) for m in after.values()) == kept_count(size, level)
        assert not any((after[name] & ~before[name]).any() for name in after)
    dense = train(network, data, Dense(), epochs=2, batch=16).network
    trained = {name: np.abs(x.weight.dense()) for name, x in dense.prunable().items()}
    first = seen[horizon][4]
    smallest_kept = min(trained[name][mask].min() for name, mask in first.items())
    assert all((trained[name][~mask] < smallest_kept).all() for name, mask in first.items())


@pytest.mark.parametrize("rewind", [0.0, 0.25, 0.75])
def test_on_separate_weights_rounds_equal_one_shot_and_rewinding_is_a_formula(rewind):
    # L = |W - w*|^2 / 2 by full-batch descent: w_t = w* + (1 - eta)^t (w_0 - w*), coordinate by coordinate
    known = quadratic(np.random.default_rng(0), 16, 2)
    star, n, steps = known.answer["weight"], known.dataset.n_train, 40
    masks = []
    for rounds in (1, 4):
        watched = {}

        def watch(state, watched=watched):
            watched[state.step] = state.network.prunable()["fc1"].weight.dense().copy()

        method = IMP(0.7, rounds=rounds, rewind=rewind)
        settings = {"optimizer": SGD(0.0), "rate": Constant(0.5), "progress": watch}
        run = train(chain(np.zeros((2, 16))), known.dataset, method, epochs=steps, batch=n, **settings)
        masks.append(run.network.masks()["fc1"])
        k = round(rewind * steps)
        last = steps + (rounds - 1) * (steps - k)  # where the last round prunes and rewinds
        np.testing.assert_allclose(watched[last], masks[-1] * star * (1 - 0.5**k), atol=1e-15)
    np.testing.assert_array_equal(*masks)
    order = np.sort(np.abs(star), axis=None)[::-1]
    kept = kept_count(32, 0.7)
    np.testing.assert_array_equal(masks[0], np.abs(star) >= order[kept - 1])


def test_rewinding_to_the_end_is_pruning_without_retraining():
    network, data = small()
    dense = train(network, data, Dense(), epochs=2, batch=16)
    runs = [train(network, data, IMP(0.7, r, rewind=1.0), epochs=2, batch=16) for r in (1, 3)]
    for run in runs:
        assert run.steps == dense.steps
        masks = run.network.masks()
        assert sum(int(m.sum()) for m in masks.values()) == kept_count(72, 0.7)
        for name, layer in run.network.prunable().items():
            trained = dense.network.prunable()[name].weight.dense()
            np.testing.assert_array_equal(layer.weight.dense(), trained * masks[name])
            np.testing.assert_array_equal(masks[name], runs[0].network.masks()[name])


def test_keeping_the_weights_rewinds_the_rate_alone():
    network, data = small()
    horizon = 2 * PER_EPOCH
    method = IMP(0.5, rounds=1, keep_weights=True)
    _, seen = follow(network, data, method, rate=Cosine(0.1))
    dense = train(network, data, Dense(), epochs=2, batch=16, rate=Cosine(0.1)).network.state()
    _, clock, lr, now, masks = seen[horizon]
    assert clock == 0 and lr == 0.1
    for key, value in now.items():
        name = key.removesuffix(".weight")
        np.testing.assert_array_equal(value, dense[key] * masks[name] if name in masks else dense[key])


def test_fine_tuning_keeps_weights_and_the_last_rate():
    network, data = small()
    horizon, rate = 2 * PER_EPOCH, Step(0.1, milestones=(0.5,))
    method = IMP(0.5, rounds=2, keep_weights=True, keep_rate=True)
    _, seen = follow(network, data, method, rate=rate)
    assert [lr for _, _, lr, _, _ in seen[:horizon]] == [rate.at(t, horizon) for t in range(horizon)]
    assert {lr for _, _, lr, _, _ in seen[horizon:]} == {rate.at(horizon - 1, horizon)} == {0.1 * 0.1}
    dense = train(network, data, Dense(), epochs=2, batch=16, rate=rate).network.state()
    for key, value in seen[horizon][3].items():
        name = key.removesuffix(".weight")
        masks = seen[horizon][4]
        np.testing.assert_array_equal(value, dense[key] * masks[name] if name in masks else dense[key])


def test_statistics_of_batchnorm_are_rewound_with_the_weights():
    network, data = small("conv")
    _, seen = follow(network, data, IMP(0.5, rounds=1, rewind=0.5))
    horizon = 2 * PER_EPOCH
    early, late, now = (seen[step][3] for step in (horizon // 2, horizon - 1, horizon))
    for key in ("bn.running_mean", "bn.running_var", "bn.weight", "fc.bias"):
        np.testing.assert_array_equal(now[key], early[key])
        assert (late[key] != early[key]).any()


def test_the_first_tickets_prune_the_last_layer_half_as_fast():
    network, data = small()
    method = IMP(0.5, rounds=3, allocation=SlowLast())
    _, seen = follow(network, data, method)
    for r in (1, 2, 3):
        masks = seen[2 * PER_EPOCH * r][4]
        hidden, last = masks["fc1"].mean(), masks["fc2"].mean()
        assert last == pytest.approx(hidden ** (np.log(0.9) / np.log(0.8)), abs=1 / 24)


@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_a_round_is_training_the_ticket_afresh_on_later_epochs(optimizer):
    network, data = small()
    run, seen = follow(network, data, IMP(0.6, rounds=1), optimizer=optimizer(), rate=Cosine(0.05))
    horizon = 2 * PER_EPOCH
    ticket, masks = network.copy(), seen[horizon][4]
    for name, layer in ticket.prunable().items():
        layer.weight.rewire(masks[name])
    fresh, loss, later = optimizer(), CrossEntropy(), [*batches(data, 16, 0, 2), *batches(data, 16, 0, 3)]
    for t, (x, y) in enumerate(later):
        loss.value(ticket.forward(x, Mode(training=True)), y)
        ticket.backward(loss.grad(), need_dx=False)
        fresh.step(ticket, Cosine(0.05).at(t, horizon))
    for key, value in ticket.state().items():
        np.testing.assert_array_equal(run.network.state()[key], value)


def test_an_absent_weight_does_not_take_the_place_of_a_live_one_that_is_zero():
    network = chain([[0.0, 0.0, 1.0, 2.0]])
    state = state_of(network, np.zeros((2, 4)), np.zeros(2, dtype=int))
    state.rewire({"fc1": np.array([[False, True, True, True]])})
    IMP(0.9).prune_to(state, 0.25)
    assert network.masks()["fc1"].tolist() == [[False, True, True, True]]


def test_nothing_to_prune_is_one_dense_training():
    network, data = small()
    dense = train(network, data, Dense(), epochs=2, batch=16)
    imp = train(network, data, IMP(0.0, rounds=4), epochs=2, batch=16)
    assert imp.steps == dense.steps
    for key, value in dense.network.state().items():
        np.testing.assert_array_equal(imp.network.state()[key], value)


def test_layers_can_be_pruned_each_by_the_same_share():
    network, data = small()
    run = train(network, data, IMP(0.5, rounds=2, allocation=Uniform()), epochs=1, batch=16)
    assert [x.weight.kept for x in run.network.prunable().values()] == [24, 12]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"sparsity": 1.0}, SparsityError),
        ({"rounds": 0}, UsageError),
        ({"rounds": 2.0}, UsageError),
        ({"rewind": 1.2}, UsageError),
        ({"rewind": float("nan")}, UsageError),
        ({"keep_weights": 1}, UsageError),
        ({"keep_rate": 1}, UsageError),
    ],
)
def test_settings_are_checked(settings, error):
    with pytest.raises(error):
        IMP(**settings)
