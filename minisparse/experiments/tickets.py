"""Tickets: a winning ticket against the same mask with new weights and the same weights with another mask.

J. Frankle, M. Carbin. The Lottery Ticket Hypothesis. ICLR 2019. arXiv:1803.03635

A ladder is one run of iterative magnitude pruning, R rounds from dense to the highest sparsity s,

    density after round j:  d_j = (1 - s)^(j/R),   j = 1..R                                (1)

on which the tickets of all levels are found; what is asked for at another sparsity takes the round nearest to
it (in log density). Every run of the experiment is an ordinary one, `imp` with its control at the sparsity of
its round, and has that run's key in the store. It is not made from the beginning, however: all rounds but its
last training are the ladder's, so the last training alone is run, on the ticket, from the step at which it
begins. Nothing depends on what came before but masks and rewound weights; the results are the same bits.

Tickets are kept beside the store as they are found, so that an interrupted experiment goes on where it was:
the ladder and every last training from its last snapshot, and no ladder is climbed twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np

from minisparse.errors import CheckpointError, UsageError
from minisparse.experiments.cells import Cell
from minisparse.experiments.runner import Outcome, carry_out, dataset, unfinished
from minisparse.experiments.runner import execute as execute_spec
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.waypoints import Waypoints
from minisparse.methods.base import Method, dense_weights, rounded, take_away
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.control import Control, Invert, Reinit, Shuffle, Untouched
from minisparse.sparsity.count import check_share, check_sparsity, check_whole
from minisparse.sparsity.parse import to_text
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.schedule import geometric_levels
from minisparse.training.checkpoint import MANIFEST, write_atomic
from minisparse.training.keeper import Keeping
from minisparse.training.snapshot import discard
from minisparse.training.state import TrainState

SHARE = 0.2  # what a round removes of what is left, if nothing else is said
LABELS: dict[Control, str] = {
    Untouched(): "winning ticket",
    Reinit(): "new weights",
    Shuffle(): "shuffled mask",
    Invert(): "inverted",
}
ARMS = (Untouched(), Reinit(), Shuffle())
FOLDER = "tickets"
ROUND = "round-{:02d}"
DIVERGED = "diverged"  # a file beside the tickets of a ladder that has fewer than it should
Progress = Callable[[TrainState], None]


class Masks(dict[str, Array]):
    """Masks (out, in) by layer. As text their SHA-256, by which `training.keeper` tells runs apart."""

    def __repr__(self) -> str:
        found = hashlib.sha256()
        for name, mask in self.items():
            found.update(f"{name} {mask.shape}".encode())
            found.update(np.packbits(mask, axis=None).tobytes())
        return found.hexdigest()[:16]


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
    masks: Mapping[str, Array] = field(hash=False)
    control: Control = ARMS[0]

    def __post_init__(self) -> None:
        object.__setattr__(self, "masks", Masks(self.masks))

    def length(self, horizon: int) -> int:
        return self.step + horizon - self.clock

    def setup(self, state: TrainState) -> None:
        state.step, state.clock = self.step, self.clock
        origin = dense_weights(state.network)
        state.rewire(dict(self.masks))
        take_away(state, self.control, Unstructured(), origin)


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
    """Runs the cells of a ladder; `execute` goes where `compare` expects one, here or in a worker.

    A cell whose ladder has not been climbed, or whose tickets are damaged, climbs it first.
    """

    def __init__(self, ladder: Ladder, folder: Path) -> None:
        """folder: of the results, where tickets are kept and runs are saved on their way."""
        self.ladder, self.folder = ladder, folder.absolute()
        self.cells = {cell.spec.key: cell for cell in ladder.cells}
        self.chains = {seed: ladder.chain(seed) for seed in ladder.seeds}
        self.climbed: set[str] = set()

    def execute(self, spec: RunSpec, data_dir: str | Path | None, progress: Progress) -> Outcome:
        """The outcome of a spec of the ladder, as `runner.execute` would have it."""
        cell, chain = self.cells[spec.key], self.chains[spec.seed]
        if not cell.rung:
            return execute_spec(spec, data_dir, progress, Keeping(unfinished(self.folder, spec)))
        if spec.key == chain.key:
            return self._climb(chain, data_dir, progress)
        ticket = self._ticket(chain, cell.rung, data_dir, progress)
        if ticket is None:  # training diverged on the way, as this run would
            return execute_spec(spec, data_dir, progress, Keeping(unfinished(self.folder, spec)))
        data = dataset(spec.data, None if data_dir is None else str(data_dir))
        network = build(spec.model, data, spec.seed, spec.init).astype(np.dtype(spec.dtype))
        network.restore(ticket[0])
        method = continued(spec, ticket[1], cell.rung, data.n_train, cell.control)
        place = unfinished(self.folder, spec, "last-training")
        return carry_out(spec, network, method, data, progress, Keeping(place))

    def alone(self, spec: RunSpec) -> str:
        """The ladder that this cell may have to climb, which no two cells may do at the same time."""
        chain = self.chains[spec.seed]
        if chain.key not in self.climbed and self._whole(chain):
            self.climbed.add(chain.key)
        return chain.key if self.cells[spec.key].rung and chain.key not in self.climbed else ""

    def _whole(self, chain: RunSpec) -> bool:
        """Whether all tickets of a ladder are there, or no more are to come."""
        way = self._tickets(chain)
        if (way.folder / DIVERGED).exists():
            return True
        if not (way.folder / ROUND.format(self.ladder.height) / MANIFEST).exists():
            return False
        try:
            way.passed(self.ladder.height)
        except CheckpointError:
            return False
        return True

    def _tickets(self, chain: RunSpec) -> Waypoints:
        """The tickets of a ladder by the number of their round."""
        rounds = {rung: ROUND.format(rung) for rung in range(self.ladder.height + 1)}
        return Waypoints(self._place(chain), rounds)

    def forget(self) -> None:
        """Let no ticket be found, so that all ladders are climbed anew."""
        for chain in self.chains.values():
            self._tickets(chain).forget()
            (self._place(chain) / DIVERGED).unlink(missing_ok=True)

    def _place(self, chain: RunSpec) -> Path:
        return self.folder / FOLDER / chain.key

    def _climb(self, chain: RunSpec, data_dir: str | Path | None, progress: Progress) -> Outcome:
        data = dataset(chain.data, None if data_dir is None else str(data_dir))
        way = Waypoints(self._place(chain), stations(chain, data.n_train))
        place = unfinished(self.folder, chain, "ladder")
        way.check(place)

        def watch(state: TrainState) -> None:
            way(state)
            progress(state)

        outcome = execute_spec(chain, data_dir, watch, Keeping(place))
        if outcome.steps < max(way.steps):
            way.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(way.folder / DIVERGED, f"{outcome.note}\n".encode())
        return outcome

    def _ticket(
        self, chain: RunSpec, rung: int, data_dir: str | Path | None, progress: Progress
    ) -> tuple[dict[str, Array], dict[str, Array]] | None:
        """(state of step k, masks) of a round; None if its ladder ended before."""
        way = self._tickets(chain)
        for attempt in range(2):
            try:
                return way.load(ROUND.format(0)).state(), way.load(ROUND.format(rung)).masks()
            except CheckpointError:
                if attempt == 0 and not (way.folder / DIVERGED).exists():
                    self._climb(chain, data_dir, progress)
                    discard(unfinished(self.folder, chain, "ladder"))
        return None


def stations(chain: RunSpec, samples: int) -> dict[int, str]:
    """Step -> name of the networks a ladder leaves: that of step k, dense, and the ticket of each round.

    UsageError if k is the end of a training.
    """
    method = chain.build()
    horizon, k = _begin(chain, samples)
    if k == horizon:
        raise UsageError(
            f"rewind: got step {k:,}, expected one before the end of a training of {horizon:,} steps."
        )
    rounds = range(len(method.levels))  # type: ignore[attr-defined]
    return {k: ROUND.format(0)} | {horizon + j * (horizon - k): ROUND.format(j + 1) for j in rounds}


def _begin(spec: RunSpec, samples: int) -> tuple[int, int]:
    """(steps of one training, k)."""
    horizon = spec.epochs * -(-samples // spec.batch)
    return horizon, rounded(spec.build().rewind, horizon)  # type: ignore[attr-defined]


def continued(
    spec: RunSpec, masks: Mapping[str, Array], rung: int, samples: int, control: Control
) -> Continued:
    """The last training of `spec`, whose masks are those after `rung` rounds of its ladder."""
    horizon, k = _begin(spec, samples)
    return Continued(horizon + (rung - 1) * (horizon - k), k, masks, control)


def impose(network: Network, masks: Mapping[str, Array]) -> None:
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
