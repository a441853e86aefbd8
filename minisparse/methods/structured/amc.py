"""AMC: an agent walks through the layers and learns how much of each to keep under a budget.

Y. He, J. Lin, Z. Liu, H. Wang, L.-J. Li, S. Han. AMC: AutoML for Model Compression and Acceleration on Mobile
Devices. ECCV 2018. arXiv:1802.03494

    s_t = (t, n, c, h, w, stride, k, cost_t, reduced, rest, a_t-1), each in [0, 1]          (1)
    units kept:  k_t = min(round(a_t n_t), ceiling_t), at least m_t                         (2)
    R = -error,   or   R = -error log(cost)                                                 (3)

An episode is one walk; what it keeps is scored once, at its end, without training, on samples that are not
used for anything else here. Every step is rewarded with R (`ddpg.py`). The ceiling of (2) is that of
`budget.py`: the budget is never exceeded. What decisions remove is in `granularity.py`. The best episode is
what is pruned; then training goes on.

Departures. a_t is the share kept, as in the authors' code; in the paper it is the share removed. n, c, h, w,
stride and k are those of the layer that reads what is decided on; a feature that is the same for all is 0.
Units are counted exactly, not rounded to a multiple of 8 channels. Groups of residual streams are decisions
like others. Noise decays by 0.98 a walk (0.95 in the paper): with a few hundred walks the agent otherwise
stops looking around before it has learnt. In a run of this method the network has been trained on the samples
it is scored on; `search` takes others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator

from minisparse.methods.base import Method, setting
from minisparse.methods.reconstruct.layerwise import BATCH
from minisparse.methods.registry import register
from minisparse.methods.structured.budget import RESOURCES, Bill, ceiling, least_counts
from minisparse.methods.structured.channel_pruning import response_moments
from minisparse.methods.structured.ddpg import Agent, Settings
from minisparse.methods.structured.granularity import GRANULARITIES, Granularity, put
from minisparse.nn.loss import Loss
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.count import (
    check_choice,
    check_flag,
    check_share,
    check_sparsity,
    check_whole,
    kept_count,
)
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.training.state import TrainState

log = logging.getLogger("minisparse.methods.amc")

FEATURES = 11
POSITIONS = 10
Act = Callable[[Array], float]  # state (11,) -> share to keep
Trace = list[tuple[Array, float]]  # states and actions of one episode


@dataclass
class Walk:
    """The decisions in order. table (D, 8): t to cost of (1), unscaled; least (D,); budget as the bill's."""

    bill: Bill
    table: Array
    least: Array
    budget: int

    def __post_init__(self) -> None:
        low, high = self.table.min(axis=0), self.table.max(axis=0)
        self.features = (self.table - low) / np.where(high > low, high - low, 1)

    def state(self, t: int, kept: Array, last: float) -> Array:
        """Equation (1) before decision t: kept (D,) of the decisions made, last: a_t-1."""
        so_far = np.where(np.arange(len(kept)) < t, kept, self.bill.units)
        reduced = 1 - self.bill.total(so_far) / self.bill.whole
        rest = self.table[t + 1 :, -1].sum() / self.bill.whole
        return np.concatenate([self.features[t], [reduced, rest, last]])

    def play(self, act: Act) -> tuple[Trace, Array]:
        """One episode: states and actions as `act` gave them, and the units kept (D,), equation (2)."""
        kept, trace, last = self.least.copy(), [], 1.0
        for t in range(len(kept)):
            state = self.state(t, kept, last)
            action = act(state)
            most = ceiling(self.bill, kept, t, self.budget)
            wanted = int(np.rint(action * self.bill.units[t]))
            kept[t] = max(min(wanted, most), int(self.least[t]))
            last = float(kept[t] / self.bill.units[t])
            trace.append((state, action))
        return trace, kept


@dataclass(frozen=True, eq=False)
class Search:
    """Episodes in order: units kept (E, D) and rewards (E,)."""

    kept: Array
    rewards: Array

    @property
    def best(self) -> Array:
        """Units (D,) of the episode of highest reward, the first of them."""
        return self.kept[int(np.argmax(self.rewards))]


def search(
    walk: Walk, reward: Callable[[Array], float], episodes: int, settings: Settings, rng: Generator
) -> Search:
    """Let an agent play; the last episode is its policy without noise. reward: units kept (D,) -> R."""
    agent = Agent(FEATURES, settings, rng)
    kept, rewards = [], []
    for episode in range(episodes):
        sigma = settings.sigma_at(episode) if episode < episodes - 1 else 0.0
        trace, units = walk.play(partial(agent.act, sigma=sigma))
        kept.append(units)
        rewards.append(reward(units))
        agent.remember(trace, rewards[-1])
        if episode >= settings.warmup:
            for _ in trace:
                agent.learn()
    return Search(np.array(kept), np.array(rewards))


def random_search(walk: Walk, reward: Callable[[Array], float], episodes: int, rng: Generator) -> Search:
    """The same number of episodes with actions drawn evenly from [0, 1]: the control."""
    kept = [walk.play(lambda state: float(rng.random()))[1] for _ in range(episodes)]
    return Search(np.array(kept), np.array([reward(units) for units in kept]))


def plain_reward(error: float, cost: int) -> float:
    """Equation (3) where the budget alone limits the cost."""
    return -error


def traded_reward(error: float, cost: int) -> float:
    """Equation (3) where accuracy is traded for cost."""
    return -error * float(np.log(max(cost, 1)))


REWARDS: dict[str, Callable[[float, int], float]] = {"error": plain_reward, "error-log-cost": traded_reward}


@dataclass
class Score:
    """Reward of units kept, from the accuracy of the pruned network on samples x and targets; remembers."""

    choices: Granularity
    loss: Loss
    x: Array
    target: Array
    rule: Callable[[float, int], float] = plain_reward

    def __post_init__(self) -> None:
        self.work = self.choices.network.copy()
        self.known: dict[bytes, float] = {}

    def __call__(self, kept: Array) -> float:
        """Equation (3) for units (D,); the error is 1 - accuracy, or the loss where there is no accuracy."""
        key = kept.tobytes()
        if key not in self.known:
            put(self.work, self.choices.values(kept))
            y = self.work.predict(self.x)
            value = float(self.loss.value(y, self.target))
            accuracy = self.loss.accuracy(y, self.target)
            error = value if np.isnan(accuracy) else 1 - accuracy
            self.known[key] = self.rule(error, int(self.choices.bill.total(kept)))
        return self.known[key]


def choices_of(
    network: Network, granularity: str, resource: str, batches: list[Array], rng: Generator
) -> Granularity:
    """The decisions of a network; with calibration batches, readers of removed channels are refitted."""
    choices = GRANULARITIES[granularity](network, resource)
    names = choices.refittable if batches else ()
    choices.moments = {n: response_moments(network, network, n, batches, POSITIONS, rng) for n in names}
    return choices


def walk_of(choices: Granularity, floor: float, budget: int) -> Walk:
    """The walk through these decisions; floor: share of units that never leaves.

    A budget below the cost of what never leaves is raised to it.
    """
    least = least_counts(choices.bill.units, floor)
    lowest = int(choices.bill.total(least))
    if lowest > budget:
        log.info("amc: the floor alone costs %d; the budget was %d", lowest, budget)
    return Walk(choices.bill, choices.table, least, max(budget, lowest))


@register("amc", family="structured", paper="arXiv:1802.03494")
@dataclass(frozen=True)
class AMC(Method):
    """Learn by trial how much of each layer to keep, then keep it."""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden units"})
    demo: ClassVar[Mapping[str, Any]] = {"episodes": 12, "warmup": 4, "validation": 12, "samples": 12}

    sparsity: float = setting(0.5, "share of the MACs (or weights, see resource) that leaves, at least")
    schedule: Schedule = setting(OneShot(0.5), "when to search and prune; one level")
    granularity: str = setting("channels", "what leaves: channels, or single weights")
    resource: str = setting("macs", "what the sparsity counts: macs or weights")
    floor: float = setting(0.1, "share of each layer's units that never leaves")
    episodes: int = setting(400, "walks through the network")
    warmup: int = setting(100, "walks before the agent learns")
    decay: float = setting(0.98, "factor on the noise per walk once the agent learns")
    reward: str = setting("error", "what is rewarded: error (low), or error-log-cost")
    validation: int = setting(360, "training samples that score a walk")
    refit: bool = setting(True, "refit layers whose input channels leave, by least squares")
    samples: int = setting(512, "training samples they are refitted on")

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_choice(self.granularity, "granularity", tuple(GRANULARITIES))
        check_choice(self.resource, "resource", RESOURCES)
        check_choice(self.reward, "reward", tuple(REWARDS))
        check_share(self.floor, "floor")
        check_share(self.decay, "decay")
        check_flag(self.refit, "refit")
        for name in ("episodes", "validation", "samples"):
            check_whole(getattr(self, name), name)
        check_whole(self.warmup, "warmup", 0)

    def setup(self, state: TrainState) -> None:
        self.impose(state)

    def after_update(self, state: TrainState) -> None:
        self.impose(state)

    def impose(self, state: TrainState) -> None:
        """Search and prune at each level the schedule names for this step."""
        for level in self.schedule.levels(state.step, state.horizon, self.sparsity):
            if level:
                self.prune_to(state, level)

    def prune_to(self, state: TrainState, level: float) -> None:
        """Search on a copy of the network, then give the network what the best walk kept."""
        rng = state.rng("amc")
        x, target = state.calibration(self.validation + self.samples)
        rest = x[self.validation :] if self.refit else x[:0]
        batches = [rest[k : k + BATCH] for k in range(0, len(rest), BATCH)]
        choices = choices_of(state.network.copy(), self.granularity, self.resource, batches, rng)
        walk = walk_of(choices, self.floor, kept_count(choices.bill.whole, level))
        score = Score(
            choices, state.loss, x[: self.validation], target[: self.validation], REWARDS[self.reward]
        )
        agent = Settings(warmup=self.warmup, decay=self.decay)
        found = search(walk, score, self.episodes, agent, rng)
        log.info("amc: best reward %.4f of %d walks", found.rewards.max(), self.episodes)
        choices.prune(state, found.best)
