"""AMC: worked walk, budgets that are never exceeded, rewards, and an agent that finds a known optimum."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.errors import UsageError
from minisparse.experiments.inspect import layer_table
from minisparse.methods.structured.amc import (
    AMC,
    REWARDS,
    Score,
    Search,
    Walk,
    choices_of,
    plain_reward,
    random_search,
    search,
    traded_reward,
    walk_of,
)
from minisparse.methods.structured.budget import Bill, least_counts
from minisparse.methods.structured.ddpg import Settings
from minisparse.methods.structured.granularity import put
from minisparse.methods.structured.ranked import present
from minisparse.nn.loss import MSE, CrossEntropy
from minisparse.nn.models import make
from minisparse.sparsity.count import kept_count
from minisparse.sparsity.groups import groups_of
from minisparse.sparsity.schedule import OneShot
from minisparse.sparsity.surgery import shrink
from minisparse.training.run import evaluate
from tests.methods.problems import clusters, conv_net, mlp, state_of
from tests.strategies import SETTINGS, seeds

Array = np.ndarray
QUICK = Settings(hidden=60, batch=32, warmup=60, decay=0.97)


def three_layers(units: int = 100) -> Bill:
    """A chain whose three layers cost alike, with a decision between each two."""
    return Bill(
        positions=np.array([units, 1, units]),
        inputs=np.array([1, 0, 0]),
        outputs=np.array([0, 0, 1]),
        reads=np.array([[0, 0], [1, 0], [0, 1]]),
        writes=np.array([[1, 0], [0, 1], [0, 0]]),
        units=np.array([units, units]),
    )


def three_layer_walk(share: float, floor: float = 0.2) -> Walk:
    bill = three_layers()
    table = np.array([[0, 5.0, 3, 8, 8, 1, 3, 10000], [1, 9.0, 5, 4, 4, 1, 3, 10000]])
    return Walk(bill, table, least_counts(bill.units, floor), int(share * bill.whole))


def test_worked_example_of_the_budget():
    """Layers of cost 100 each, budget 150, floor .2, an agent that always asks for all: 1 and .25."""
    trace, kept = three_layer_walk(0.5).play(lambda state: 1.0)
    assert kept.tolist() == [100, 25] and [action for _, action in trace] == [1.0, 1.0]


def test_an_agent_that_asks_for_nothing_keeps_the_floor():
    assert three_layer_walk(0.5).play(lambda state: 0.0)[1].tolist() == [20, 20]


def test_worked_states():
    """t, n, c, h, w, stride, k, cost scaled over decisions; reduced, rest as shares of the whole; a_t-1."""
    walk = three_layer_walk(0.5)
    seen: list[Array] = []
    walk.play(lambda state: seen.append(state) or 0.5)
    np.testing.assert_allclose(seen[0], [0, 0, 0, 1, 1, 0, 0, 0, 0, 1 / 3, 1])
    np.testing.assert_allclose(seen[1], [1, 1, 1, 0, 0, 0, 0, 0, 1 / 3, 0, 0.5])


NETWORKS = {
    "mlp": lambda rng: mlp((7, 9, 6, 4), rng),
    "residual": conv_net,
    "lenet-5": lambda rng: make("lenet-5", (1, 8, 8), 10, int(rng.integers(100))),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("granularity", ["channels", "weights"])
@pytest.mark.parametrize("resource", ["macs", "weights"])
def test_no_agent_ever_exceeds_the_budget_and_states_stay_in_the_unit_interval(name, granularity, resource):
    """Counted on the masks of the pruned network, for agents that ask evenly, for all and for nothing."""
    rng = np.random.default_rng(0)
    network = NETWORKS[name](rng)
    choices = choices_of(network, granularity, resource, [], rng)
    for share in (0.2, 0.5, 0.9):
        walk = walk_of(choices, 0.05, int(share * choices.bill.whole))
        for act in (lambda s: rng.random(), lambda s: 1.0, lambda s: 0.0, lambda s: float(rng.integers(2))):
            states: list[Array] = []
            _, kept = walk.play(lambda s, act=act, states=states: states.append(s) or act(s))
            work = network.copy()
            put(work, choices.values(kept))
            rows = layer_table(work)
            spent = sum(row.macs if resource == "macs" else row.kept for row in rows)
            assert spent == choices.bill.total(kept) <= walk.budget
            assert (kept >= walk.least).all() and (kept <= choices.bill.units).all()
            table = np.array(states)
            assert table.shape == (len(kept), 11) and (table >= 0).all() and (table <= 1).all()


@SETTINGS
@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.floats(0, 1), st.integers(0, 30))
def test_actions_are_taken_as_near_as_floor_and_budget_allow(actions, share, floor):
    bill = three_layers(30)
    least = least_counts(bill.units, floor / 30)
    low = int(bill.total(least))
    walk = Walk(bill, np.zeros((2, 8)), least, low + int(share * (bill.whole - low)))
    asked = iter(actions)
    _, kept = walk.play(lambda state: next(asked))
    assert bill.total(kept) <= walk.budget
    for t, action in enumerate(actions):
        wanted = max(round(action * 30), int(least[t]))
        if kept[t] < wanted:
            more = np.where(np.arange(2) <= t, kept, least)
            more[t] += 1
            assert bill.total(more) > walk.budget
        else:
            assert kept[t] == wanted


def test_table_of_lenet_5():
    """What is decided on: filters of conv1 (read by conv2), of conv2 (by fc1), units of fc1 and fc2."""
    network = make("lenet-5", (1, 8, 8), 10)
    choices = choices_of(network, "channels", "macs", [], np.random.default_rng(0))
    assert choices.readers == ["conv2", "fc1", "fc2", "fc3"]
    assert choices.bill.units.tolist() == [6, 16, 120, 84]
    np.testing.assert_array_equal(
        choices.table,
        [
            [0, 16, 6, 4, 4, 1, 3, 16 * 16 * 54],
            [1, 120, 64, 1, 1, 1, 1, 120 * 64],
            [2, 84, 120, 1, 1, 1, 1, 84 * 120],
            [3, 10, 84, 1, 1, 1, 1, 840],
        ],
    )


def test_channels_of_least_outgoing_size_leave_and_ties_go_to_the_lower_index():
    network = mlp((3, 4, 2), np.random.default_rng(0))
    network.prunable()["fc2"].weight.assign(np.array([[1.0, -3, 0, 1], [1.0, 1, 0.5, -1]]))
    choices = choices_of(network, "channels", "weights", [], np.random.default_rng(0))
    for k, stay in ((1, [1]), (2, [0, 1]), (3, [0, 1, 3]), (4, [0, 1, 2, 3])):
        (mask,) = choices.chosen(np.array([k]))
        assert np.flatnonzero(mask).tolist() == stay


def test_the_largest_weights_of_a_layer_stay():
    network = mlp((3, 4, 2), np.random.default_rng(1))
    choices = choices_of(network, "weights", "weights", [], np.random.default_rng(0))
    masks = choices.masks(np.array([5, 3]))
    for (name, mask), k in zip(masks.items(), (5, 3), strict=True):
        size = np.abs(network.prunable()[name].weight.dense())
        assert mask.sum() == k and size[mask].min() >= size[~mask].max()


@pytest.mark.parametrize("kind", ["mlp", "residual"])
def test_a_score_is_the_accuracy_of_the_shrunken_network(kind):
    rng = np.random.default_rng(2)
    network = NETWORKS[kind](rng)
    x, t = rng.standard_normal((60, *network.input_shape)), rng.integers(0, 3, 60)
    choices = choices_of(network, "channels", "macs", [], rng)
    score = Score(choices, CrossEntropy(), x, t)
    for kept in (choices.bill.units, np.maximum(1, choices.bill.units // 2)):
        keep = dict(zip(groups_of(network), choices.chosen(kept), strict=True))
        _, accuracy = evaluate(shrink(network, keep), CrossEntropy(), x, t)
        assert score(kept) == score(kept) == pytest.approx(accuracy - 1)
    assert len(score.known) == 2


def test_a_score_leaves_the_network_alone_and_forgets_the_pruning_before():
    rng = np.random.default_rng(3)
    network = mlp((6, 8, 3), rng)
    before, x = network.state(), rng.standard_normal((40, 6))
    target = network.predict(x).argmax(axis=1)
    score = Score(choices_of(network, "channels", "macs", [x], rng), CrossEntropy(), x, target)
    assert score(np.array([1])) < score(np.array([8])) == 0.0
    assert all((network.state()[key] == before[key]).all() for key in before)


def test_rewards():
    assert plain_reward(0.25, 1000) == -0.25
    assert traded_reward(0.25, 1000) == pytest.approx(-0.25 * np.log(1000))
    assert traded_reward(0.25, 10) > traded_reward(0.25, 1000) and set(REWARDS) == {"error", "error-log-cost"}


def test_regression_is_rewarded_with_the_loss():
    rng = np.random.default_rng(4)
    network, x = mlp((6, 8, 3), rng), rng.standard_normal((40, 6))
    score = Score(choices_of(network, "channels", "macs", [], rng), MSE(), x, network.predict(x) + 1)
    assert score(np.array([8])) == pytest.approx(-1.5)


def test_refitted_layers_are_nearer_to_the_whole_networks_outputs_and_are_kept():
    """Mean over seeds, at half of all channels."""
    errors: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        network, x = conv_net(rng), rng.standard_normal((80, 2, 6, 6))
        for refit, found in errors.items():
            choices = choices_of(network, "channels", "macs", [x] if refit else [], rng)
            work = network.copy()
            put(work, choices.values(choices.bill.units // 2))
            found.append(float(((work.forward(x) - network.forward(x)) ** 2).mean()))
            once, again = (choices.values(choices.bill.units // 2) for _ in range(2))
            assert all(once[name][1] is again[name][1] for name in choices.refittable if refit)
    assert np.mean(errors[True]) < 0.7 * np.mean(errors[False])


def planted(walk: Walk, target: tuple[float, float]) -> Callable[[Array], float]:
    """Reward of shares near a target, as far as the budget allows."""

    def reward(kept: Array) -> float:
        return -float(((kept / walk.bill.units - np.array(target)) ** 2).sum())

    return reward


def test_it_finds_what_brute_force_finds_and_its_walks_become_better_than_random_ones():
    walk = three_layer_walk(0.5, 0.1)
    reward = planted(walk, (0.3, 0.6))
    grid = np.array([k for k in itertools.product(range(10, 101), repeat=2)])
    allowed = grid[walk.bill.total(grid) <= walk.budget]
    best = max(reward(k) for k in allowed)
    late, chance = [], []
    for seed in range(2):
        found = search(walk, reward, 220, QUICK, np.random.default_rng(seed))
        assert found.rewards.max() <= best
        assert found.rewards.max() > best - 0.01
        late.append(found.rewards[-30:].mean())
        chance.append(random_search(walk, reward, 220, np.random.default_rng(seed)).rewards.mean())
    assert np.mean(late) > np.mean(chance) / 2


def test_the_best_walk_is_the_first_of_highest_reward():
    found = Search(np.array([[1], [2], [3]]), np.array([-0.5, -0.1, -0.1]))
    assert found.best.tolist() == [2]


@SETTINGS
@given(seeds)
def test_random_walks_are_fixed_by_their_generator(seed):
    walk = three_layer_walk(0.4)
    runs = [
        random_search(walk, planted(walk, (0.5, 0.5)), 3, np.random.default_rng(seed)).kept for _ in range(2)
    ]
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("granularity", ["channels", "weights"])
@pytest.mark.parametrize("resource", ["macs", "weights"])
def test_the_method_keeps_its_budget_and_the_network_it_found(granularity, resource):
    rng = np.random.default_rng(5)
    data = clusters(rng, (2, 6, 6))
    state = state_of(conv_net(rng), data.train_x.astype(np.float64), data.train_y)
    whole = layer_table(state.network)
    method = AMC(
        0.5, OneShot(0.0), granularity, resource, episodes=6, warmup=3, validation=20, samples=20, floor=0.05
    )
    method.setup(state)
    spent, full = (
        sum(row.macs if resource == "macs" else row.kept for row in rows)
        for rows in (layer_table(state.network), whole)
    )
    assert spent <= kept_count(full, 0.5)
    if granularity == "channels":
        params = state.network.params()
        for g in groups_of(state.network):
            gone = ~present(state.network, g)
            keys = [f"{name}.{kind}" for name, _ in g.norms for kind in ("weight", "bias")]
            assert not any(params[key].value[gone].any() for key in keys)
        assert all(present(state.network, g).any() for g in groups_of(state.network))
        assert not all(present(state.network, g).all() for g in groups_of(state.network))


def test_where_the_floor_costs_more_than_the_budget_the_floor_is_what_stays():
    rng = np.random.default_rng(6)
    data = clusters(rng, (8,))
    state = state_of(mlp((8, 12, 8, 3), rng), data.train_x.astype(np.float64), data.train_y)
    AMC(0.95, OneShot(0.0), floor=0.5, episodes=2, warmup=1, validation=20, samples=20).setup(state)
    assert [present(state.network, g).sum() for g in groups_of(state.network)] == [6, 4]


def test_unusable_settings_are_refused():
    for bad in (
        {"granularity": "rows"},
        {"resource": "bytes"},
        {"reward": "accuracy"},
        {"floor": 2},
        {"episodes": 0},
        {"warmup": -1},
        {"refit": 1},
        {"decay": float("nan")},
    ):
        with pytest.raises(UsageError):
            AMC(**bad)
