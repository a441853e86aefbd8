"""Movement: scores in closed form, masked weights that are scored, and a choice magnitude would not make."""

import numpy as np
import pytest

from minisparse.methods.learned.movement import Movement, level_at
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD
from minisparse.sparsity import Cubic, OneShot, Uniform, kept_count
from minisparse.training.run import train
from tests.methods.problems import chain, clusters, descend, identity_problem, mlp, state_of

NEVER = OneShot(1.0)


def quadratic(start, target, rate, schedule=NEVER, sparsity=0.5, horizon=1000):
    """A state whose loss is |w - target|^2 / 2, and its movement weight."""
    x, y = identity_problem(target)
    state = state_of(chain([start]), x, y, loss="mse", horizon=horizon, optimizer=SGD(0.0))
    state.rate = Constant(rate)
    method = Movement(sparsity, schedule)
    method.setup(state)
    return state, method, state.network.prunable()["fc1"].weight


def steps(state, method, count):
    for _ in range(count):
        descend(state)
        method.update(state)
        state.step += 1
        method.after_update(state)


def test_the_score_of_a_weight_that_stays_in_closed_form():
    # w_{t+1}^2 - w_t^2 = -2 eta g w + eta^2 g^2 and S moves by -eta g w
    start, target, eta = np.array([1.0, -0.3, 2.0]), np.array([2.0, 1.0, 0.1]), 0.05
    state, method, weight = quadratic(start, target, eta)
    squares = 0.0
    for _ in range(40):
        squares = squares + (weight.theta.value[0] - target) ** 2
        steps(state, method, 1)
    final = weight.theta.value[0]
    expected = (final**2 - start**2 - eta**2 * squares) / 2
    np.testing.assert_allclose(weight.score.value[0], expected, rtol=1e-11)


def test_scores_rise_away_from_zero_and_fall_towards_it():
    state, method, weight = quadratic([1.0, 1.0], [2.0, 0.5], 0.1)
    seen = [weight.score.value[0].copy()]
    for _ in range(30):
        steps(state, method, 1)
        seen.append(weight.score.value[0].copy())
    moves = np.diff(seen, axis=0)
    assert (moves[:, 0] > 0).all() and (moves[:, 1] < 0).all()


def test_it_keeps_what_grows_where_magnitude_keeps_what_is_large():
    start, target = [2.0, 0.1, 2.0, -0.1], [1.0, 0.6, 1.0, -0.6]
    state, method, weight = quadratic(start, target, 0.1, OneShot(0.05))
    steps(state, method, 50)
    assert weight.mask.tolist() == [[False, True, False, True]]
    plain = chain(weight.theta.value)
    Magnitude(0.5, OneShot(0.0)).setup(state_of(plain, np.zeros((2, 4)), np.zeros(2, dtype=int)))
    assert plain.masks()["fc1"].tolist() == [[True, False, True, False]]


def test_masked_weights_stand_still_but_their_scores_move():
    state, method, weight = quadratic([1.0, 1.0, 1.0, 1.0], [2.0, 3.0, 0.5, 0.4], 0.1, OneShot(0.01))
    steps(state, method, 10)
    mask = weight.mask[0].copy()
    assert mask.tolist() == [True, True, False, False]
    theta, score = weight.theta.value[0].copy(), weight.score.value[0].copy()
    descend(state)
    np.testing.assert_array_equal(weight.theta.grad[0] == 0, ~mask)
    assert weight.score.grad[0][~mask].all()
    # for a masked weight the gradient of the layer's matrix is -target: the score moves by eta target theta
    method.update(state)
    np.testing.assert_array_equal(weight.theta.value[0][~mask], theta[~mask])
    moved = weight.score.value[0] - score
    np.testing.assert_allclose(moved[~mask], 0.1 * np.array([0.5, 0.4]) * theta[~mask], rtol=1e-12)


def test_a_weight_returns_with_its_value_when_its_score_recovers():
    state, method, weight = quadratic([1.0, 1.0], [1.5, 1.2], 0.1, OneShot(0.001))
    steps(state, method, 1)
    assert weight.mask.tolist() == [[True, False]]
    value = weight.theta.value[0, 1]
    assert weight.dense()[0, 1] == 0
    steps(state, method, 1)  # masked, it is pulled by its whole target; the other only by what is left
    assert weight.mask.tolist() == [[False, True]]
    assert value == weight.dense()[0, 1] == 1.02


def test_scores_that_are_magnitudes_give_magnitude_pruning():
    rng = np.random.default_rng(0)
    network = mlp((6, 8, 5), rng)
    plain, data = network.copy(), (np.zeros((2, 6)), np.zeros(2, dtype=int))
    state = state_of(network, *data)
    for allocation in (Uniform(), Movement().allocation):
        method = Movement(0.7, NEVER, allocation)
        method.setup(state)
        for layer in network.prunable().values():
            own = layer.weight.params()
            own["score"].value[...] = np.abs(own["weight"].value)
        method.prune_to(state, 0.7)
        control = plain.copy()
        Magnitude(0.7, OneShot(0.0), allocation).setup(state_of(control, *data))
        for name, mask in control.masks().items():
            np.testing.assert_array_equal(network.masks()[name], mask)
        method.finish(state)
        network = plain.copy()
        state = state_of(network, *data)


def test_the_rate_of_the_scores_changes_no_mask():
    network = mlp((6, 9, 3), np.random.default_rng(1))
    data, masks = clusters(np.random.default_rng(2), (6,)), []
    for factor in (1.0, 8.0):

        def watch(state, factor=factor):
            for layer in state.network.prunable().values():
                layer.weight.params()["score"].rate = factor

        run = train(network, data, Movement(0.8), epochs=5, batch=16, progress=watch)
        masks.append(run.network.masks())
    for name, mask in masks[0].items():
        np.testing.assert_array_equal(mask, masks[1][name])


def test_the_level_follows_the_curve_and_the_mask_every_step():
    curve = Cubic(0.2, 0.7, every=1)
    levels = [level_at(curve, t, 10, 0.9) for t in range(11)]
    assert levels[:2] == [None, None] and levels[2] == 0
    np.testing.assert_allclose(levels[2:8], [0.9 * (1 - (1 - k / 5) ** 3) for k in range(6)], rtol=1e-12)
    assert levels[7:] == [0.9] * 4
    network, seen = mlp((6, 30, 3), np.random.default_rng(3), dtype=np.float32), []
    data = clusters(np.random.default_rng(4), (6,))
    train(network, data, Movement(0.8), epochs=6, batch=16, progress=lambda s: seen.append(s.network.masks()))
    for t, masks in enumerate(seen):
        level = level_at(Movement().schedule, t, 18, 0.8) or 0.0
        assert sum(int(m.sum()) for m in masks.values()) == kept_count(270, level)
    after = [np.concatenate([m.ravel() for m in masks.values()]) for masks in seen[13:]]
    assert any((a != b).any() for a, b in zip(after, after[1:], strict=False)), "the mask froze"


@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_before_the_schedule_begins_it_is_dense_training(sparsity):
    state, method, weight = quadratic([1.0, -2.0], [0.5, 1.0], 0.1, NEVER, sparsity)
    steps(state, method, 20)
    expected = np.array([0.5, 1.0]) + 0.9**20 * (np.array([1.0, -2.0]) - [0.5, 1.0])
    np.testing.assert_allclose(weight.dense()[0], expected, rtol=1e-12)
