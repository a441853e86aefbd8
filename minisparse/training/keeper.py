"""Keeper: when a run is saved, from where it goes on, and whether that is the same run."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.errors import MinisparseWarning, ResumeMismatchError, UsageError
from minisparse.methods.base import Method
from minisparse.nn.lr import Rate
from minisparse.nn.network import Network
from minisparse.nn.optim import Optimizer
from minisparse.nn.param import Array
from minisparse.training import snapshot
from minisparse.training.files import Folder
from minisparse.training.interrupt import Interrupts
from minisparse.training.shelf import Shelf
from minisparse.training.snapshot import Snapshot
from minisparse.training.state import TrainState
from minisparse.training.structure import describe

SECONDS = 10.0  # between snapshots, at the ends of epochs, unless steps are asked for
CHANGING = ("slots", "t")  # of an optimiser: not its settings
Columns = dict[str, Array]


@dataclass(frozen=True)
class Keeping:
    """Where a run is saved and how often: every so many steps, or None for ends of epochs, seconds apart.

    resume: go on from what is there; if not, it is discarded.
    """

    folder: Folder
    every: int | None = None
    resume: bool = True

    def __post_init__(self) -> None:
        bad = isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1
        if self.every is not None and bad:
            raise UsageError(f"every: got {self.every!r}, expected a whole number of steps >= 1.")


class Keeper:
    """Saves one run as `keeping` says; `interrupts` tells when it is to stop.

    A run that cannot be saved (a weight of a class of one's own, a memory that is not arrays) goes on with a
    MinisparseWarning; it raises UsageError if steps to save it at were asked for.
    """

    def __init__(self, keeping: Keeping, run: dict[str, str], interrupts: Interrupts) -> None:
        self.keeping, self.run, self.interrupts = keeping, run, interrupts
        self.saved = time.monotonic()
        self.hopeless = False

    def found(self) -> Snapshot | None:
        """The snapshot to go on from. ResumeMismatchError, naming what differs, if it is of another run."""
        folder = self.keeping.folder
        if not self.keeping.resume:
            snapshot.discard(folder)
        if snapshot.latest(folder) is None:
            return None
        there = snapshot.load(folder)
        for key in [*self.run, *there.run]:
            if self.run.get(key) != there.run.get(key):
                got, expected = (run.get(key, "none") for run in (self.run, there.run))
                raise ResumeMismatchError(
                    f"run cannot go on from checkpoint '{Path(folder)}': got {key} {got}, expected "
                    f"{expected} as when it was saved. Start anew (--fresh), or choose another folder."
                )
        return there

    def after_step(self, state: TrainState, columns: Callable[[], Columns], seconds: float) -> None:
        """Save if it is time to. KeyboardInterrupt, everything being saved, if the run is to stop.

        columns: what is written down of the run, as arrays; asked for only to be saved.
        """
        asked = self.interrupts.asked
        if not self.hopeless and (asked or self._due(state)):
            self._save(Snapshot.of(state, columns(), seconds, self.run))
        if asked:
            saved = "" if self.hopeless else f"step {state.step} is saved in '{Path(self.keeping.folder)}'"
            raise KeyboardInterrupt(saved)

    def _save(self, now: Snapshot) -> None:
        try:
            snapshot.save(now, self.keeping.folder)
        except UsageError as error:
            if self.keeping.every is not None:
                raise
            self.hopeless = True
            warnings.warn(MinisparseWarning(f"this run is not saved on its way: {error}"), stacklevel=2)
        self.saved = time.monotonic()

    def _due(self, state: TrainState) -> bool:
        if state.step == 0:
            return False
        if self.keeping.every is not None:
            return state.step % self.keeping.every == 0
        return state.step % state.steps_per_epoch == 0 and time.monotonic() - self.saved >= SECONDS


def identity(
    network: Network, data: Dataset, method: Method, optimizer: Optimizer, rate: Rate, **settings: Any
) -> dict[str, str]:
    """Everything that decides the course of a run, as text by name; network and data as SHA-256.

    UsageError for a network that cannot be described.
    """
    facts = {name: repr(value) for name, value in settings.items()}
    facts |= {"method": type(method).__name__} | {
        f"method {f.name}": repr(getattr(method, f.name)) for f in fields(method)
    }
    facts |= {"optimizer": type(optimizer).__name__} | {
        f"optimizer {name}": repr(value) for name, value in vars(optimizer).items() if name not in CHANGING
    }
    shelf = Shelf()
    text = json.dumps(describe(network, shelf), sort_keys=True)
    arrays = [shelf.arrays[name] for name in sorted(shelf.arrays)]
    return facts | {
        "rate": repr(rate),
        "network": _digest(arrays, text),
        "data": _digest([data.train_x, data.train_y, data.test_x, data.test_y]),
    }


def _digest(arrays: list[Array], text: str = "") -> str:
    found = hashlib.sha256(text.encode())
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()[:16]
