"""Waypoints: networks that a training passes at certain steps, kept as checkpoints when it gets there.

A snapshot has what a training goes on from, and nothing of what others have noted on its way. A waypoint is
written before the snapshot of its step or of any later one, so whoever goes on from a snapshot finds all
waypoints that lie behind it; if one is missing or damaged, the training starts from the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from minisparse.errors import CheckpointError
from minisparse.nn.network import Network
from minisparse.training import checkpoint
from minisparse.training.snapshot import discard, latest
from minisparse.training.state import TrainState


@dataclass(frozen=True)
class Waypoints:
    """Where networks are kept, and of which steps: step -> name. A callback for training."""

    folder: Path
    steps: Mapping[int, str]

    def __call__(self, state: TrainState) -> None:
        """Keep the network if this is one of the steps."""
        if state.step in self.steps:
            checkpoint.save(state.network, self.folder / self.steps[state.step])

    def load(self, name: str) -> Network:
        """The network of this name; CheckpointError if it is missing or damaged."""
        return checkpoint.load(self.folder / name)

    def passed(self, step: int) -> dict[str, Network]:
        """All networks up to and including a step, by name. CheckpointError as of `load`."""
        return {name: self.load(name) for at, name in self.steps.items() if at <= step}

    def check(self, snapshots: Path) -> None:
        """Discard the snapshots in a folder if a waypoint is missing that lies behind the newest of them."""
        step = latest(snapshots)
        if step is not None:
            try:
                self.passed(step)
            except CheckpointError:
                discard(snapshots)

    def forget(self) -> None:
        """Let none of them be found any more."""
        for name in self.steps.values():
            (self.folder / name / checkpoint.MANIFEST).unlink(missing_ok=True)
