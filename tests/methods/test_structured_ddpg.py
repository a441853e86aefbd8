"""DDPG: its updates in closed form, its gradient by complex step, and a known optimum found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import truncnorm

from minisparse.methods.structured.ddpg import (
    Agent,
    Replay,
    Settings,
    action_gradient,
    action_value,
    bellman_targets,
    perceptron,
    soft_update,
    truncated_normal,
)
from tests.oracles.complex_step import derivative
from tests.strategies import SETTINGS, seeds

Array = np.ndarray
SMALL = Settings(hidden=60, batch=32, warmup=60, decay=0.97)


def test_gradient_of_the_critic_along_the_action_by_complex_step():
    rng = np.random.default_rng(0)
    critic = perceptron((6, 9, 7, 1), rng, squashed=False)
    state, action = rng.standard_normal((8, 5)), rng.random((8, 1))
    found = action_gradient(critic, state, action)
    twin = critic.astype(np.complex128)
    exact = derivative(lambda a: action_value(twin, state, a), action, np.ones((8, 1)))
    np.testing.assert_allclose(found[:, 0], exact, rtol=1e-12)
    assert np.abs(exact).min() > 0


def test_gradient_of_the_policys_worth_by_complex_step():
    """d/dtheta of the mean of Q(s, mu(s)): what `learn` sends back through the actor, for descent."""
    rng = np.random.default_rng(1)
    actor, critic = perceptron((5, 9, 1), rng, squashed=True), perceptron((6, 9, 1), rng, squashed=False)
    state = rng.standard_normal((8, 5))
    up = action_gradient(critic, state, actor.forward(state))
    actor.backward(-up / len(up), need_dx=False)
    twin, judge = actor.astype(np.complex128), critic.astype(np.complex128)
    for key, p in actor.params().items():
        v, base = rng.standard_normal(p.value.shape), twin.params()[key].value.copy()

        def worth(value: Array, key: str = key) -> Array:
            twin.params()[key].value[...] = value
            return action_value(judge, state, twin.forward(state)).mean()

        slope = derivative(worth, base, v)
        twin.params()[key].value[...] = base
        assert float((p.grad * v).sum()) == pytest.approx(-float(slope), rel=1e-9)


def test_the_critics_own_gradients_are_left_alone():
    rng = np.random.default_rng(2)
    critic = perceptron((3, 4, 1), rng, squashed=False)
    for p in critic.params().values():
        p.grad[...] = 7
    action_gradient(critic, rng.random((5, 2)), rng.random((5, 1)))
    assert all((p.grad == 7).all() for p in critic.params().values())


@SETTINGS
@given(st.floats(0, 1), st.integers(0, 20), seeds)
def test_soft_update_in_closed_form(tau, steps, seed):
    """target_k = source + (1 - tau)^k (target_0 - source)."""
    rng = np.random.default_rng(seed)
    source, target = (perceptron((2, 3, 1), rng, squashed=True) for _ in range(2))
    start, fixed = target.state(), source.state()
    for _ in range(steps):
        soft_update(target, source, tau)
    for key, value in target.state().items():
        expected = fixed[key] + (1 - tau) ** steps * (start[key] - fixed[key])
        np.testing.assert_allclose(value, expected, atol=1e-12)
        np.testing.assert_array_equal(source.state()[key], fixed[key])


def test_bellman_targets_worked_example():
    found = bellman_targets(np.array([1.0, 1.0]), 0.25, 0.5, np.array([0.0, 1.0]), np.array([8.0, 8.0]))
    np.testing.assert_array_equal(found, [4.75, 0.75])


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_shared_final_rewards_add_up_along_the_episode(steps):
    """Fixed point of (1) along one trajectory with gamma = 1: Q_t = (T - t)(R - b)."""
    q, end = np.zeros(steps), np.arange(steps) == steps - 1
    for _ in range(steps):
        q = bellman_targets(np.full(steps, 0.8), 0.3, 1.0, end, np.append(q[1:], 99.0))
    np.testing.assert_allclose(q, (steps - np.arange(steps)) * 0.5, rtol=1e-12)


@SETTINGS
@given(st.floats(0, 1), st.floats(1e-6, 20), seeds)
def test_actions_lie_in_the_unit_interval(mean, sigma, seed):
    drawn = truncated_normal(np.full(50, mean), sigma, np.random.default_rng(seed))
    assert np.isfinite(drawn).all() and (drawn >= 0).all() and (drawn <= 1).all()


@pytest.mark.parametrize(("mean", "sigma"), [(0.5, 0.5), (0.0, 0.3), (0.9, 0.2), (1.0, 5.0)])
def test_noise_has_the_moments_of_a_truncated_normal(mean, sigma):
    drawn = truncated_normal(np.full(40000, mean), sigma, np.random.default_rng(3))
    known = truncnorm((0 - mean) / sigma, (1 - mean) / sigma, mean, sigma)
    assert drawn.mean() == pytest.approx(known.mean(), abs=5 * known.std() / 200)
    assert drawn.std() == pytest.approx(known.std(), rel=0.02)


def test_without_noise_the_action_is_the_policy_and_small_noise_stays_near():
    means, rng = np.linspace(0, 1, 11), np.random.default_rng(4)
    np.testing.assert_array_equal(truncated_normal(means, 0.0, rng), means)
    np.testing.assert_allclose(truncated_normal(means, 1e-9, rng), means, atol=1e-7)


def test_deviation_stays_through_the_warmup_and_then_decays():
    s = Settings(warmup=10, sigma=0.5, decay=0.9)
    assert [s.sigma_at(e) for e in (0, 9, 10)] == [0.5] * 3
    assert s.sigma_at(12) == pytest.approx(0.5 * 0.81)


def test_the_replay_forgets_the_oldest_and_draws_only_what_it_holds():
    replay = Replay(4, 2)
    for k in range(6):
        replay.add(np.full(2, k), k / 10, k, np.full(2, k + 1), k == 5)
        assert len(replay) == min(k + 1, 4)
    state, action, reward, following, end = replay.sample(200, np.random.default_rng(5))
    assert set(reward) == {2, 3, 4, 5}
    np.testing.assert_array_equal(state[:, 0], reward)
    np.testing.assert_allclose(action[:, 0], reward / 10)
    np.testing.assert_array_equal(following[:, 0], reward + 1)
    np.testing.assert_array_equal(end, reward == 5)


def test_every_step_of_an_episode_gets_its_reward_and_only_the_last_ends():
    agent = Agent(2, SMALL, np.random.default_rng(6))
    agent.remember([(np.full(2, k), 0.1 * k) for k in range(3)], -0.7)
    np.testing.assert_array_equal(agent.replay.reward[:3], -0.7)
    np.testing.assert_array_equal(agent.replay.end[:3], [0, 0, 1])
    np.testing.assert_array_equal(agent.replay.following[:2, 0], [1, 2])


def test_the_baseline_is_a_moving_average_of_batch_means_that_starts_at_the_first():
    agent = Agent(1, Settings(hidden=4, alpha=0.25, batch=8), np.random.default_rng(7))
    agent.remember([(np.zeros(1), 0.5)] * 4, 2.0)
    agent.learn()
    assert agent.baseline == 2.0
    agent.replay.reward[:] = 6.0
    agent.learn()
    assert agent.baseline == 3.0


def test_the_first_policy_is_in_the_middle_whatever_the_state():
    agent = Agent(11, Settings(), np.random.default_rng(8))
    states = np.random.default_rng(9).random((20, 11))
    assert all(abs(agent.act(s) - 0.5) < 0.05 for s in states)


def bandit(seed: int, best: tuple[float, ...], episodes: int = 250) -> tuple[float, float]:
    """Rewards -sum (a_t - best_t)^2: of the policy in the end, and of random actions in the mean."""
    rng = np.random.default_rng(seed)
    agent, eye = Agent(len(best), SMALL, rng), np.eye(len(best))

    def reward(actions: Array) -> Array:
        return -((actions - np.array(best)) ** 2).sum(axis=-1)

    for episode in range(episodes):
        trace = [(state, agent.act(state, SMALL.sigma_at(episode))) for state in eye]
        agent.remember(trace, float(reward(np.array([a for _, a in trace]))))
        if episode >= SMALL.warmup:
            for _ in trace:
                agent.learn()
    learned = reward(np.array([agent.act(state) for state in eye]))
    return float(learned), float(reward(rng.random((episodes, len(best)))).mean())


@pytest.mark.parametrize("best", [(0.8,), (0.2, 0.7)])
def test_it_finds_a_known_optimum_that_random_actions_miss(best):
    """Mean over two seeds; a random policy of as many episodes is the control."""
    learned, random = np.mean([bandit(seed, best) for seed in range(2)], axis=0)
    assert learned > -0.025 * len(best) and learned > random / 5


def test_equal_generators_give_equal_agents():
    assert bandit(0, (0.3,), episodes=65) == bandit(0, (0.3,), episodes=65) != bandit(1, (0.3,), episodes=65)
