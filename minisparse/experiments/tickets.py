"""Tickets: a winning ticket against the same mask with new weights and the same weights with another mask.

J. Frankle, M. Carbin. The Lottery Ticket Hypothesis. ICLR 2019. arXiv:1803.03635

A ladder is one run of iterative magnitude pruning, R rounds from dense to the highest sparsity s,

    density after round j:  d_j = (1 - s)^(j/R),   j = 1..R                                (1)

on which the tickets of all levels are found; what is asked for at another sparsity takes the round nearest to
it (in log density). Every run of the experiment is an ordinary one, `imp` with its control at the sparsity of
its round, and has that run's key in the store. It is not made from the beginning, however: all rounds but its
last training are the ladder's, so the last training alone is run, on the ticket, from the step at which it
begins. Nothing depends on what came before but masks and rewound weights; the results are the same bits.

Tickets are kept beside the store, so that an interrupted experiment goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np

from minisparse.errors import CheckpointError, UsageError
from minisparse.experiments.cells import Cell
from minisparse.experiments.runner import Outcome, carry_out, dataset
from minisparse.experiments.runner import execute as execute_spec
from minisparse.experiments.spec import RunSpec
from minisparse.methods.base import Method, dense_weights, rounded, take_away
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.control import Control, Invert, Reinit, Shuffle, Untouched
from minisparse.sparsity.count import check_share, check_sparsity, check_whole
from minisparse.sparsity.parse import to_text
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.schedule import geometric_levels
from minisparse.training import checkpoint
from minisparse.training.state import TrainState

SHARE = 0.2  # what a round removes of what is left, if nothing else is said
LABELS: dict[Control, str] = {
    Untouched(): "winning ticket",
    Reinit(): "new weights",
    Shuffle(): "shuffled mask",
    Invert(): "inverted",
}
ARMS = (Untouched(), Reinit(), Shuffle())
Progress = Callable[[TrainState], None]
Masks = Mapping[str, Array]


def rounds_for(sparsity: float, share: float = SHARE) -> int:
    """Rounds of `share` that reach this sparsity or more."""
    return max(1, ceil(log(1 - sparsity) / log(1 - share) - 1e-9))


def label_of(control: Control) -> str:
    """What an arm is called."""
    return LABELS.get(control, to_text(control))


@dataclass(frozen=True)
class Continued(Method):
    """The last training of a ticket: from `step`, at `clock` in the learning rate, with these masks.

    The network is that of step k, dense. Equal to what the method does that found the ticket.
    """

    step: int
    clock: int
    masks: Masks = field(hash=False)
    control: Control = ARMS[0]

    def length(self, horizon: int) -> int:
        return self.step + horizon - self.clock

    def setup(self, state: TrainState) -> None:
        state.step, state.clock = self.step, self.clock
        origin = dense_weights(state.network)
        state.rewire(dict(self.masks))
        take_away(state, self.control, Unstructured(), origin)


@dataclass
class Found:
    """What a ladder leaves: the network of step k, dense, and the masks after each round."""

    start: dict[str, Array] = field(default_factory=dict)
    masks: list[dict[str, Array]] = field(default_factory=list)


@dataclass(frozen=True)
class Ladder:
    """The runs of the experiment. `training`: parts of a RunSpec common to all.

    sparsities  asked for; the levels are the nearest of `rounds` rounds up to the highest of them
    rewind      k as a share of one training, below 1
    """

    sparsities: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98)
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[Control, ...] = ARMS
    rounds: int | None = None
    rewind: float = 0.0
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for s in self.sparsities:
            if check_sparsity(s) == 0:
                raise UsageError(f"sparsities: got {s:g}, expected above 0 and below 1.")
        for name in ("sparsities", "seeds", "arms"):
            if not getattr(self, name):
                raise UsageError(f"{name}: got none, expected at least one.")
        if self.rounds is not None:
            check_whole(self.rounds, "rounds")
        if check_share(self.rewind, "rewind") == 1:
            raise UsageError("rewind: got 1, expected below 1, so that a ticket is trained.")

    @property
    def height(self) -> int:
        """R."""
        return self.rounds or rounds_for(max(self.sparsities))

    @property
    def levels(self) -> tuple[float, ...]:
        """Sparsities after each round, equation (1)."""
        return geometric_levels(max(self.sparsities), self.height)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The rounds, from 1, whose tickets are compared."""
        top = log(1 - max(self.sparsities))
        nearest = (round(self.height * log(1 - s) / top) for s in self.sparsities)
        return tuple(sorted({max(1, j) for j in nearest}))

    def spec(self, seed: int, rung: int, control: Control = ARMS[0]) -> RunSpec:
        """The run of an arm at the level of a round."""
        settings = {"sparsity": self.levels[rung - 1], "rounds": rung, "rewind": self.rewind}
        texts = {key: repr(value) for key, value in settings.items()} | {"control": to_text(control)}
        return RunSpec("imp", tuple(texts.items()), seed=seed, **self.training)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All runs, seed by seed, each with its arm and level; the ladder's own run is one of them."""
        found = []
        for seed in self.seeds:
            found.append(Cell("dense", 0.0, RunSpec("dense", seed=seed, **self.training)))
            for rung in self.rungs[::-1]:
                level = self.levels[rung - 1]
                specs = {a: self.spec(seed, rung, a) for a in self.arms}
                found += [Cell(label_of(a), level, s, self.rewind, 1, rung, a) for a, s in specs.items()]
        return tuple(found)

    def chain(self, seed: int) -> RunSpec:
        """The run on which all tickets of a seed are found."""
        return self.spec(seed, self.height)


class Climb:
    """Runs the cells of a ladder; `execute` goes where `compare` expects one."""

    def __init__(self, ladder: Ladder, folder: Path) -> None:
        """folder: where the tickets are kept."""
        self.ladder, self.folder = ladder, folder
        self.cells = {cell.spec.key: cell for cell in ladder.cells}
        self.key = ""
        self.found = Found()

    def execute(self, spec: RunSpec, data_dir: str | Path | None, progress: Progress) -> Outcome:
        """The outcome of a spec of the ladder, as `runner.execute` would have it."""
        cell = self.cells[spec.key]
        if not cell.rung:
            return execute_spec(spec, data_dir, progress)
        chain = self.ladder.chain(spec.seed)
        if spec.key == chain.key:
            return self._climb(chain, data_dir, progress)
        found = self._tickets(chain, data_dir, progress)
        if len(found.masks) < cell.rung:  # training diverged on the way, as this run would
            return execute_spec(spec, data_dir, progress)
        data = dataset(spec.data, None if data_dir is None else str(data_dir))
        network = build(spec.model, data, spec.seed, spec.init).astype(np.dtype(spec.dtype))
        network.restore(found.start)
        method = continued(spec, found, cell.rung, data.n_train, cell.control)
        return carry_out(spec, network, method, data, progress)

    def _climb(self, chain: RunSpec, data_dir: str | Path | None, progress: Progress) -> Outcome:
        self.key, self.found = "", Found()
        collect = collector(chain, self.found)

        def watch(state: TrainState) -> None:
            collect(state)
            progress(state)

        outcome = execute_spec(chain, data_dir, watch)
        self.key = chain.key
        if outcome.status != "diverged":
            keep(self.found, chain, data_dir, self.folder)
        return outcome

    def _tickets(self, chain: RunSpec, data_dir: str | Path | None, progress: Progress) -> Found:
        if self.key != chain.key:
            try:
                self.found, self.key = kept(chain, self.ladder.height, self.folder), chain.key
            except CheckpointError:
                self._climb(chain, data_dir, progress)
        return self.found


def collector(chain: RunSpec, found: Found) -> Progress:
    """A callback for the run of a ladder that notes its network at step k and the masks of all rounds."""
    method = chain.build()

    def watch(state: TrainState) -> None:
        k = rounded(method.rewind, state.horizon)  # type: ignore[attr-defined]
        if state.step == k:
            found.start = state.network.state()
        done, rest = divmod(state.step - state.horizon, state.horizon - k)
        if state.step >= state.horizon and rest == 0 and done < len(method.levels):  # type: ignore[attr-defined]
            found.masks.append(state.network.masks())

    return watch


def continued(spec: RunSpec, found: Found, rung: int, samples: int, control: Control) -> Continued:
    """The last training of `spec`, whose masks are those after `rung` rounds of its ladder."""
    method = spec.build()
    horizon = spec.epochs * -(-samples // spec.batch)
    k = rounded(method.rewind, horizon)  # type: ignore[attr-defined]
    return Continued(horizon + (rung - 1) * (horizon - k), k, found.masks[rung - 1], control)


def _place(chain: RunSpec, rung: int, folder: Path) -> Path:
    return folder / chain.key / f"round-{rung:02d}"


def keep(found: Found, chain: RunSpec, data_dir: str | Path | None, folder: Path) -> None:
    """Write the tickets of a ladder as checkpoints, round 0 being the dense network of step k."""
    data = dataset(chain.data, None if data_dir is None else str(data_dir))
    network = build(chain.model, data, chain.seed, chain.init).astype(np.dtype(chain.dtype))
    for rung, masks in enumerate([None, *found.masks]):
        network.restore(found.start)
        if masks is not None:
            impose(network, masks)
        checkpoint.save(network, _place(chain, rung, folder), chain.method, dict(chain.settings))


def kept(chain: RunSpec, rounds: int, folder: Path) -> Found:
    """The tickets that `keep` wrote; CheckpointError if one is missing or damaged."""
    networks = [checkpoint.load(_place(chain, rung, folder)) for rung in range(rounds + 1)]
    return Found(networks[0].state(), [network.masks() for network in networks[1:]])


def impose(network: Network, masks: Masks) -> None:
    """Prune a network to these masks (out, in) by layer."""
    for name, layer in network.prunable().items():
        layer.weight.rewire(masks[name])


def scratch_cells(
    sparsities: Sequence[float], seeds: Sequence[int], training: Mapping[str, Any]
) -> tuple[Cell, ...]:
    """The runs of Gale's protocol (see `methods.lottery.scratch`), seed by seed.

    T. Gale, E. Elsen, S. Hooker. The State of Sparsity in Deep Neural Networks. 2019. arXiv:1902.09574
    """
    arms: dict[str, tuple[str, dict[str, str]]] = {
        "pruned in training": ("magnitude", {}),
        "scratch, twice as long": ("scratch", {"control": "reinit", "budget": "2"}),
        "scratch": ("scratch", {"control": "reinit"}),
        "scratch, augmented": ("scratch", {"control": "reinit:augmented=true"}),
        "lottery": ("scratch", {"control": "none"}),
    }
    found = []
    for seed in seeds:
        found.append(Cell("dense", 0.0, RunSpec("dense", seed=seed, **training)))
        for s in sparsities:
            for arm, (method, settings) in arms.items():
                texts = {**settings, "sparsity": repr(float(s))}
                spec = RunSpec(method, tuple(texts.items()), seed=seed, **training)
                found.append(Cell(arm, float(s), spec, budget=int(settings.get("budget", 1))))
    return tuple(found)
