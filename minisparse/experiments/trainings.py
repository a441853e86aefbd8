"""Trainings that are no runs of a store: each is kept under the hash of all that decides its course.

    <folder>/trainings/<key>/end/       its network when it is done; status and accuracy are in the manifest
    <folder>/trainings/<key>/<name>/    its waypoints
    <folder>/unfinished/<key>/          its snapshots while it is under way

What is kept is not trained again, and what was under way goes on, bit for bit. The key is the start of the
SHA-256 of `training.keeper.identity`, in which networks and data are SHA-256 themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from minisparse.data.batches import steps_per_epoch
from minisparse.data.dataset import Dataset
from minisparse.errors import CheckpointError, NonFiniteError
from minisparse.experiments.runner import UNFINISHED, trained
from minisparse.experiments.settings import parse_optimizer, parse_rate
from minisparse.experiments.spec import KEY_LENGTH, RunSpec
from minisparse.experiments.waypoints import Waypoints
from minisparse.methods.base import Method
from minisparse.nn.network import Network
from minisparse.training import checkpoint
from minisparse.training.keeper import Keeping, identity
from minisparse.training.snapshot import discard
from minisparse.training.state import TrainState

FORMAT = 1
FOLDER, END = "trainings", "end"
Report = Callable[[float, str], None]


def silent(share: float, label: str) -> None:
    """No progress."""


@dataclass(frozen=True)
class Trained:
    """What a training leaves; waypoints: those that it came to, by name."""

    network: Network
    accuracy: float
    waypoints: Mapping[str, Network]

    def at(self, name: str) -> Network:
        """A waypoint; NonFiniteError if training diverged before it."""
        if name not in self.waypoints:
            raise NonFiniteError(
                f"training diverged before '{name}': got {', '.join(self.waypoints) or 'no network'}, "
                "expected one. Try a smaller --lr."
            )
        return self.waypoints[name]


@dataclass
class Trainings:
    """Trains, or finds what was trained, in a folder of results.

    report         is told the share of the steps that were made, and what is under way
    fresh          what was there before is not found
    to_make, done  steps: those that are to be made, what is found left out, and those that were made
    """

    folder: Path
    report: Report = silent
    fresh: bool = False
    to_make: int = 0
    done: int = 0
    made: set[str] = field(default_factory=set)

    def train(
        self,
        label: str,
        spec: RunSpec,
        network: Network,
        method: Method,
        data: Dataset,
        seed: int,
        stations: Mapping[int, str] | None = None,
        begin: int = 0,
    ) -> Trained:
        """`runner.trained`, once.

        stations: steps of which the network is kept; begin: the step at which the method begins.
        """
        key = key_of(spec, network, method, data, seed, stations or {})
        place, under_way = self.folder / FOLDER / key, self.folder / UNFINISHED / key
        way, last = Waypoints(place, stations or {}), method.length(horizon(spec, data))
        new = self.fresh and key not in self.made
        found = None if new else _found(way)
        if found is not None:
            self.to_make -= last - begin
            return found
        if new:
            discard(under_way)
        way.check(under_way)
        self.made.add(key)
        seen: list[int] = []

        def watch(state: TrainState) -> None:
            way(state)
            if seen:
                self.done += state.step - seen[-1]
                self.report(min(1.0, self.done / max(1, self.to_make)), label)
            else:  # not at its beginning where it goes on from a snapshot
                self.to_make -= state.step - begin
            seen[:] = [state.step]

        run = trained(spec, network, method, data, seed, watch, Keeping(under_way))
        self.to_make -= last - (seen or [begin])[-1]
        facts = {"status": run.status, "accuracy": repr(run.accuracy), "steps": str(run.steps)}
        checkpoint.save(run.network, place / END, type(method).__name__, facts)
        discard(under_way)
        return _kept(way)


@contextmanager
def planned(made: Trainings | None, steps: int) -> Iterator[Trainings]:
    """Trainings of so many steps in all; in a folder that is gone after the block if none is given."""
    if made is not None:
        made.to_make, made.done = steps, 0
        yield made
        return
    with TemporaryDirectory() as place:
        yield Trainings(Path(place), to_make=steps)


def horizon(spec: RunSpec, data: Dataset) -> int:
    """Steps of one training."""
    return spec.epochs * steps_per_epoch(data.n_train, spec.batch)


def key_of(
    spec: RunSpec, network: Network, method: Method, data: Dataset, seed: int, stations: Mapping[int, str]
) -> str:
    """The name of a training and of what is kept of it."""
    facts = identity(
        network, data.astype(network.dtype), method, parse_optimizer(spec.optimizer), parse_rate(spec.rate),
        epochs=spec.epochs, batch=spec.batch, storage=spec.storage, seed=seed,
    )  # fmt: skip
    text = json.dumps({"format": FORMAT, "kept": sorted(stations.items()), **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _found(way: Waypoints) -> Trained | None:
    """What a training left, or None if it is not done or something of it is missing or damaged."""
    try:
        return _kept(way)
    except (CheckpointError, KeyError, ValueError):
        return None


def _kept(way: Waypoints) -> Trained:
    facts = checkpoint.read_manifest(way.folder / END).settings
    return Trained(way.load(END), float(facts["accuracy"]), way.passed(int(facts["steps"])))
