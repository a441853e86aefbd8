"""DDPG: an actor that names a number in [0, 1] and a critic that says what it is worth.

T. P. Lillicrap et al. Continuous Control with Deep Reinforcement Learning. ICLR 2016. arXiv:1509.02971,
with the changes of Y. He, J. Lin, Z. Liu, H. Wang, L.-J. Li, S. Han. AMC: AutoML for Model Compression and
Acceleration on Mobile Devices. ECCV 2018. arXiv:1802.03494 (section 3.2)

    y_i = r_i - b + gamma (1 - end_i) Q'(s_i', mu'(s_i'))                                   (1)
    critic:  descend  sum_i (y_i - Q(s_i, a_i))^2 / (2 n)                                   (2)
    actor:   ascend   sum_i Q(s_i, mu(s_i)) / n,   gradient  dQ/da dmu/dtheta               (3)
    targets: theta' <- tau theta + (1 - tau) theta'                                         (4)
    b <- (1 - alpha) b + alpha mean_i r_i, the first b being the first mean                 (5)
    action:  normal around mu(s) of deviation sigma, truncated to [0, 1]                    (6)
    sigma = sigma_0 in the first episodes, then sigma_0 decay^episodes since                (7)

Actor and critic are networks of this engine; the gradient of (3) comes from `pull` of the critic. Every step
of an episode is rewarded with what the whole episode achieved. With gamma = 1 the bootstrap of (1) adds as
many times R - b as there are steps left: so does the authors' code, and the best action stays the best.

Departures: the critic reads state and action side by side in one matrix (the authors add two products, which
is the same map); weights are drawn He-normal, those of the last layers small and even, so that the first
policy is 1/2 everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from minisparse.nn.activation import Activation
from minisparse.nn.layer import Layer
from minisparse.nn.linear import Linear
from minisparse.nn.loss import MSE
from minisparse.nn.network import Network
from minisparse.nn.optim import Adam
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight

LAST_LAYER = 3e-3  # bound of the uniform distribution of the last layers' weights


def bellman_targets(reward: Array, baseline: float, gamma: float, end: Array, following: Array) -> Array:
    """Equation (1), all arrays (n,); following is Q'(s', mu'(s')), end is 1 where an episode is over."""
    return reward - baseline + gamma * (1 - end) * following


def soft_update(target: Network, source: Network, tau: float) -> None:
    """Equation (4) for every parameter, in place."""
    fresh = source.params()
    for key, p in target.params().items():
        p.value += tau * (fresh[key].value - p.value)


def action_value(critic: Network, state: Array, action: Array) -> Array:
    """Q(s, a) (n,) for states (n, f) and actions (n, 1)."""
    return critic.forward(np.concatenate([state, action], axis=1))[:, 0]


def action_gradient(critic: Network, state: Array, action: Array) -> Array:
    """dQ/da (n, 1) of each sample; no parameter of the critic is touched."""
    value = action_value(critic, state, action)
    return critic.pull(np.ones((len(value), 1), dtype=critic.dtype))[:, state.shape[1] :]


def truncated_normal(mean: Array, sigma: float, rng: Generator) -> Array:
    """Equation (6): one draw for each mean in [0, 1], by inversion of the distribution function."""
    if sigma <= 0:
        return np.clip(mean, 0, 1)
    low, high = ndtr((0 - mean) / sigma), ndtr((1 - mean) / sigma)
    drawn = mean + sigma * ndtri(low + rng.random(np.shape(mean)) * (high - low))
    return np.clip(drawn, 0, 1)


def perceptron(widths: tuple[int, ...], rng: Generator, squashed: bool) -> Network:
    """Linear layers with ReLU between them and a sigmoid at the end if squashed; float64."""
    layers: dict[str, Layer] = {}
    last = len(widths) - 1
    for k, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False), 1):
        if k < last:
            value = rng.standard_normal((outputs, inputs)) * np.sqrt(2 / inputs)
        else:
            value = rng.uniform(-LAST_LAYER, LAST_LAYER, (outputs, inputs))
        layers[f"fc{k}"] = Linear(MaskedWeight(value), np.zeros(outputs))
        if k < last:
            layers[f"relu{k}"] = Activation("relu")
    if squashed:
        layers["sigmoid"] = Activation("sigmoid")
    return Network(layers, widths[:1])


class Replay:
    """The last `capacity` transitions (state, action, reward, next state, end), the oldest overwritten."""

    def __init__(self, capacity: int, features: int) -> None:
        self.state = np.zeros((capacity, features))
        self.action = np.zeros((capacity, 1))
        self.reward = np.zeros(capacity)
        self.following = np.zeros((capacity, features))
        self.end = np.zeros(capacity)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, len(self.reward))

    def add(self, state: Array, action: float, reward: float, following: Array, end: bool) -> None:
        """One transition."""
        at = self.added % len(self.reward)
        self.state[at], self.action[at], self.reward[at] = state, action, reward
        self.following[at], self.end[at] = following, end
        self.added += 1

    def sample(self, size: int, rng: Generator) -> tuple[Array, Array, Array, Array, Array]:
        """`size` transitions drawn with replacement: state, action, reward, next state, end."""
        rows = rng.integers(0, len(self), size)
        return (
            self.state[rows], self.action[rows], self.reward[rows], self.following[rows], self.end[rows],
        )  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Hyperparameters; the defaults are the paper's, or its code's where the paper is silent."""

    hidden: int = 300
    actor_lr: float = 1e-4
    critic_lr: float = 1e-3
    tau: float = 0.01
    gamma: float = 1.0
    batch: int = 64
    capacity: int = 2000
    warmup: int = 100
    sigma: float = 0.5
    decay: float = 0.95
    alpha: float = 0.5

    def sigma_at(self, episode: int) -> float:
        """Equation (7)."""
        return self.sigma * self.decay ** max(0, episode - self.warmup)


@dataclass
class Agent:
    """Everything that changes while DDPG learns. features: length of a state."""

    features: int
    settings: Settings
    rng: Generator
    baseline: float | None = None
    actor: Network = field(init=False)
    critic: Network = field(init=False)

    def __post_init__(self) -> None:
        h = self.settings.hidden
        self.actor = perceptron((self.features, h, h, 1), self.rng, squashed=True)
        self.critic = perceptron((self.features + 1, h, h, 1), self.rng, squashed=False)
        self.slow_actor, self.slow_critic = self.actor.copy(), self.critic.copy()
        self.replay = Replay(self.settings.capacity, self.features)
        self.optimizers = Adam(), Adam()
        self.loss = MSE()

    def act(self, state: Array, sigma: float = 0.0) -> float:
        """Equation (6) for one state (f,); the policy itself where sigma is 0."""
        mean = self.actor.forward(state[None])[0, 0]
        return float(truncated_normal(mean, sigma, self.rng))

    def remember(self, episode: list[tuple[Array, float]], reward: float) -> None:
        """The states and actions of one episode, all with its reward."""
        last = len(episode) - 1
        for t, (state, action) in enumerate(episode):
            following = episode[min(t + 1, last)][0]
            self.replay.add(state, action, reward, following, t == last)

    def learn(self) -> None:
        """One step of critic, actor, targets and baseline on a batch of the replay."""
        s = self.settings
        state, action, reward, following, end = self.replay.sample(s.batch, self.rng)
        mean = float(reward.mean())
        self.baseline = mean if self.baseline is None else self.baseline + s.alpha * (mean - self.baseline)
        ahead = action_value(self.slow_critic, following, self.slow_actor.forward(following))
        wanted = bellman_targets(reward, self.baseline, s.gamma, end, ahead)
        self.loss.value(action_value(self.critic, state, action)[:, None], wanted[:, None])
        self.critic.backward(self.loss.grad(), need_dx=False)
        self.optimizers[0].step(self.critic, s.critic_lr)
        up = action_gradient(self.critic, state, self.actor.forward(state))
        self.actor.backward(-up / len(up), need_dx=False)
        self.optimizers[1].step(self.actor, s.actor_lr)
        soft_update(self.slow_actor, self.actor, s.tau)
        soft_update(self.slow_critic, self.critic, s.tau)
