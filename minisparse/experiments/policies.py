"""How to share a budget of MACs among layers: evenly, at random, or as AMC's agent has learnt.

All policies remove channels of the same trained networks by the same rule (`granularity.py`) and keep within
the same budget; they differ in how many channels each layer keeps. The network is trained without the
validation samples, rewards are accuracies on the validation samples, and what is reported are accuracies on
the test samples, which nothing else has seen:

    uniform          the same share everywhere, the largest that fits
    random           mean over random walks under the budget: what an untrained policy gives
    best of random   of as many random walks as AMC has, the one of highest reward
    amc              of the agent's walks, the one of highest reward
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from minisparse.data.dataset import Dataset
from minisparse.experiments.holdout import hold_out
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed
from minisparse.methods.dense import Dense
from minisparse.methods.reconstruct.layerwise import BATCH
from minisparse.methods.structured.amc import AMC, Score, choices_of, random_search, search, walk_of
from minisparse.methods.structured.budget import uniform
from minisparse.methods.structured.ddpg import Settings
from minisparse.methods.structured.granularity import Granularity, put
from minisparse.nn.loss import LOSSES
from minisparse.nn.lr import Cosine
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.threads import Threads
from minisparse.rng import generator
from minisparse.sparsity.count import kept_count
from minisparse.training.run import evaluate, train

HELD = 0.25
TUNING_RATE = 0.02
SHOWN = 10  # random walks whose mean is reported
AGENT = Settings(warmup=AMC().warmup, decay=AMC().decay)


@dataclass(frozen=True)
class Policy:
    """One policy on one network. Accuracies on test samples, before and after the short training.

    kept: share of channels by layer that reads them; macs: share of the dense network's.
    """

    name: str
    seed: int
    reward: float
    before: float
    after: float
    macs: float
    kept: dict[str, float]


@dataclass(frozen=True)
class Setup:
    """What is compared: share of the MACs that must leave, and how long everything takes."""

    model: str = "lenet-5"
    sparsity: float = 0.7
    epochs: int = 20
    episodes: int = AMC().episodes
    refit: bool = True
    floor: float = AMC().floor
    tuning: int = 3


def compare_policies(
    data: Dataset, seeds: Sequence[int] = (0, 1, 2), setup: Setup | None = None
) -> list[Policy]:
    """All policies on one trained network per seed, in the order of the module's table."""
    setup = setup or Setup()
    return [policy for seed in seeds for policy in _policies(data, seed, setup)]


def _policies(data: Dataset, seed: int, setup: Setup) -> list[Policy]:
    fit, x, target = hold_out(data, HELD, seed)
    network = train(build(setup.model, data, seed), fit, Dense(), epochs=setup.epochs, seed=seed).network
    order = generator(seed, "calibration").permutation(fit.n_train)[: AMC().samples]
    samples = fit.train_x[order] if setup.refit else fit.train_x[:0]
    batches = [samples[k : k + BATCH] for k in range(0, len(samples), BATCH)]
    choices = choices_of(network, "channels", "macs", batches, generator(seed, "channel positions"))
    walk = walk_of(choices, setup.floor, kept_count(choices.bill.whole, setup.sparsity))
    score = Score(choices, LOSSES["cross-entropy"](), x, target)
    with Threads(network, len(x)):
        learnt = search(walk, score, setup.episodes, AGENT, generator(seed, "amc"))
        chance = random_search(walk, score, setup.episodes, generator(seed, "random policy"))
        trial = _Trial(choices, fit, seed, setup.tuning, score)
        some = [trial("random", kept) for kept in chance.kept[:SHOWN]]
        return [
            trial("uniform", uniform(walk.bill, walk.least, walk.budget)),
            _mean(some),
            trial("best of random", chance.best),
            trial("amc", learnt.best),
        ]


@dataclass(frozen=True)
class _Trial:
    """Prunes, tests, trains a little on, tests."""

    choices: Granularity
    data: Dataset
    seed: int
    epochs: int
    score: Score

    def __call__(self, name: str, kept: Array) -> Policy:
        bill = self.choices.bill
        pruned = self.choices.network.copy()
        put(pruned, self.choices.values(kept))
        rate = Cosine(TUNING_RATE)
        tuned = train(pruned, self.data, Dense(), epochs=self.epochs, rate=rate, seed=self.seed).network
        shares = dict(zip(self.choices.readers, (kept / bill.units).tolist(), strict=True))
        macs = float(bill.total(kept) / bill.whole)
        reward = self.score(kept)
        return Policy(name, self.seed, reward, self._test(pruned), self._test(tuned), macs, shares)

    def _test(self, network: Network) -> float:
        return evaluate(network, self.score.loss, self.data.test_x, self.data.test_y)[1]


def _mean(some: Sequence[Policy]) -> Policy:
    """The mean of several policies of one name and seed."""
    reward, before, after, macs = np.mean([[p.reward, p.before, p.after, p.macs] for p in some], axis=0)
    kept = {name: float(np.mean([p.kept[name] for p in some])) for name in some[0].kept}
    return Policy(some[0].name, some[0].seed, float(reward), float(before), float(after), float(macs), kept)


def policy_table(found: Sequence[Policy]) -> str:
    """Means and standard deviations over seeds, in percent, a line per policy."""
    lines = [f"{'policy':16}{'MACs':>8}{'validation':>16}{'test':>16}{'after training':>17}"]
    for name in dict.fromkeys(p.name for p in found):
        own = [p for p in found if p.name == name]
        columns = ([1 + p.reward for p in own], [p.before for p in own], [p.after for p in own])
        cells = [f"{_percent(values):>16}" for values in columns]
        lines.append(f"{name:16}{100 * np.mean([p.macs for p in own]):7.1f}%{''.join(cells)}")
    seeds = len({p.seed for p in found})
    return "\n".join([*lines, f"accuracies in %, mean and standard deviation over {seeds} seeds"])


def _percent(values: Sequence[float]) -> str:
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{100 * np.mean(values):.1f} +-{100 * spread:4.1f}"


@themed
def policy_shares(found: Sequence[Policy], *, theme: Theme = LIGHT) -> Figure:
    """Share of channels each layer's input keeps, a column per policy: points are seeds, bars their means."""
    names = list(dict.fromkeys(p.name for p in found))
    layers = list(dict.fromkeys(layer for p in found for layer in p.kept))
    figure, axes = theme.figure(8.6, 4.0)
    at, width = axes[0][0], 0.8 / len(names)
    for k, name in enumerate(names):
        shares = np.array([[p.kept[layer] for layer in layers] for p in found if p.name == name])
        place = np.arange(len(layers)) + (k - (len(names) - 1) / 2) * width
        color = theme.plain if k == 0 else theme.hues[k - 1]
        at.bar(place, shares.mean(axis=0), 0.9 * width, color=color, alpha=0.45, label=name)
        at.plot(place, shares.T, MARKERS[k], color=color, markersize=4.5, markeredgecolor=theme.paper)
    at.set_xticks(range(len(layers)), [f"inputs of {layer}" for layer in layers])
    at.set_ylim(0, 1.03)
    at.yaxis.set_major_formatter(PercentFormatter(1.0))
    at.grid(False, axis="x")
    at.set_ylabel("channels kept")
    at.set_title(f"Channels kept at {100 * max(p.macs for p in found):.0f} % of the MACs")
    figure.legend(loc="outside lower center", ncols=len(names))
    return figure
