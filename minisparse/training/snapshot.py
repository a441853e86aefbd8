"""Snapshots: a run in the middle of its training, saved whole and restored bit for bit.

    <folder>/step-<n>.json                    where the run is, what it is, how its network is made
    <folder>/step-<n>-<digest>.safetensors    all its arrays

A snapshot has everything that TrainState changes: the network as it is (`training.structure`), the
optimiser's slots and count, step, clock, topology, the last loss, `memory`; and beside it the history and the
losses of the unfinished epoch. What a method keeps in `memory` are arrays by name and nothing else (a number
is an array without axes), in an order that is kept too. Random numbers need no place: all are functions of
seed, purpose and step. Gradients and activations need none: every step writes them anew before it reads them.

The newest two snapshots stay in the folder. Other files in it are neither read nor removed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minisparse.errors import CheckpointError, UsageError
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.training import files
from minisparse.training.files import Facts, Folder
from minisparse.training.shelf import Shelf
from minisparse.training.state import TrainState
from minisparse.training.structure import WRONG, build, describe

FORMAT = 1
KIND = "minisparse run"
KEPT = 2
STEP = "step-{:09d}"
NAME = re.compile(r"step-(\d{9,})(-[0-9a-f]{16}\.safetensors|\.json)")
COUNTS = ("step", "clock", "topology", "updates")
ARRAYS = ("network", "slots", "memory", "columns", "value")
FIELDS = {*COUNTS, *ARRAYS, "format", "kind", "seconds", "run", "files"}
Tree = dict[str, dict[str, Array]]


@dataclass
class Snapshot:
    """What was true after `step` steps. `run` says which run it is, `columns` are arrays of its record."""

    network: Network
    step: int
    clock: int
    topology: int
    updates: int
    value: float
    slots: Tree
    memory: Tree
    columns: dict[str, Array]
    seconds: float
    run: dict[str, str]

    @classmethod
    def of(
        cls, state: TrainState, columns: dict[str, Array], seconds: float, run: dict[str, str]
    ) -> Snapshot:
        """The snapshot of a state; its arrays are those of the state, not copies."""
        s = state
        return cls(
            s.network, s.step, s.clock, s.topology, s.optimizer.t, s.value, s.optimizer.slots, s.memory,
            columns, seconds, run,
        )  # fmt: skip

    def restore(self, state: TrainState) -> None:
        """Put a state that has the same network where this one was."""
        state.network, state.step, state.clock = self.network, self.step, self.clock
        state.topology, state.value, state.memory = self.topology, self.value, self.memory
        state.optimizer.slots, state.optimizer.t = self.slots, self.updates


def save(snapshot: Snapshot, folder: Folder) -> Path:
    """Write a snapshot to a folder, which is made if missing; its manifest.

    CheckpointError, naming the folder, if the disk refuses: what was there before is whole. UsageError for a
    network or a memory that cannot be described.
    """
    place, facts, shelf = Path(folder), *_taken_apart(snapshot)
    name = STEP.format(snapshot.step)
    manifest = place / f"{name}.json"
    try:
        place.mkdir(parents=True, exist_ok=True)
        files.sweep_temporary(place)
        facts["files"] = files.write_arrays(place, name, shelf.arrays)
        files.write_atomic(manifest, files.encode(facts))
    except OSError as error:
        room = sum(array.nbytes for array in shelf.arrays.values())
        raise CheckpointError(
            f"checkpoint '{manifest}' cannot be written: got '{error.strerror or error}', expected a folder "
            f"with room for {room:,} bytes. {_left(place)}"
        ) from None
    _retire(place, snapshot.step, set(facts["files"]))
    return manifest


def _left(folder: Path) -> str:
    step = latest(folder)
    return "Nothing was saved before." if step is None else f"Step {step} is saved."


def latest(folder: Folder) -> int | None:
    """Step of the newest snapshot in a folder, None if there is none. Nothing is verified."""
    return max(_steps(Path(folder)), default=None)


def _steps(folder: Path) -> list[int]:
    found = [NAME.fullmatch(path.name) for path in folder.glob("step-*.json")]
    return [int(match[1]) for match in found if match]


def load(folder: Folder, step: int | None = None) -> Snapshot:
    """The newest snapshot of a folder, or that of a step. CheckpointError for anything but a whole one.

    An older one that is left is named in the error, never taken in silence.
    """
    place = Path(folder)
    at = latest(place) if step is None else step
    if at is None:
        raise CheckpointError(f"checkpoint folder '{place}' is empty: got no step-*.json, expected one.")
    path = place / f"{STEP.format(at)}.json"
    try:
        facts = files.decode(path, files.read(path, files.MAX_MANIFEST), KIND, FORMAT)
        if set(facts) != FIELDS or not files.plausible_files(facts["files"]):
            raise files.torn(path)
        source, arrays = files.read_arrays(place, facts["files"])
        shelf = Shelf(arrays)
        try:
            snapshot = _put_together(facts, shelf)
            shelf.check_all_taken()
        except CheckpointError as error:
            raise CheckpointError(f"checkpoint '{source}' {error}") from None
    except CheckpointError as error:
        older = max((s for s in _steps(place) if s < at), default=None)
        if older is None:
            raise
        text = str(error).removesuffix(" Run it again to save it anew.")
        raise CheckpointError(
            f"{text} '{STEP.format(older)}.json' is older: remove '{path.name}' to go on from there."
        ) from None
    return snapshot


def discard(folder: Folder) -> None:
    """Remove all snapshots of a folder, and the folder if nothing else is in it."""
    place = Path(folder)
    for path in _ours(place):
        with contextlib.suppress(OSError):
            path.unlink()
    files.sweep_temporary(place)
    with contextlib.suppress(OSError):
        place.rmdir()


def _ours(folder: Path) -> list[Path]:
    """Files of snapshots, manifests first: what loses its manifest is no snapshot any more."""
    found = (path for path in folder.glob("step-*") if NAME.fullmatch(path.name))
    return sorted(found, key=lambda path: path.suffix != ".json")


def _retire(folder: Path, step: int, written: set[str]) -> None:
    """Remove all but the newest snapshots, and arrays of this step that its manifest no longer names."""
    stay = set(sorted(_steps(folder))[-KEPT:])
    for path in _ours(folder):
        match = NAME.fullmatch(path.name)
        old = match is not None and int(match[1]) not in stay
        same = path.suffix != ".json" and path.name.startswith(STEP.format(step))
        if old or (same and path.name not in written):
            with contextlib.suppress(OSError):
                path.unlink()


def _taken_apart(snapshot: Snapshot) -> tuple[Facts, Shelf]:
    """The fields of a manifest, all but the files, and the arrays that it names."""
    shelf = Shelf()
    facts: Facts = {name: int(getattr(snapshot, name)) for name in COUNTS}
    facts |= {
        "format": FORMAT,
        "kind": KIND,
        "seconds": float(snapshot.seconds),
        "run": dict(snapshot.run),
        "network": describe(snapshot.network, shelf, "network."),
        "slots": _put(shelf, "slots", snapshot.slots),
        "memory": _put(shelf, "memory", snapshot.memory),
        "columns": {name: shelf.put(f"columns.{name}", array) for name, array in snapshot.columns.items()},
        "value": shelf.put("value", np.array(snapshot.value, dtype=np.float64)),
    }
    return facts, shelf


def _put(shelf: Shelf, what: str, tree: Mapping[str, Any]) -> list[list[Any]]:
    """[[name, [[key, word for the array], ...]], ...] in the order of the mapping."""
    for name, parts in tree.items():
        if not isinstance(parts, Mapping):
            raise UsageError(
                f"{what} '{name}' cannot be saved: got {type(parts).__name__}, expected arrays by name."
            )
    return [
        [name, [[key, shelf.put(f"{what}.{i}.{k}", array)] for k, (key, array) in enumerate(parts.items())]]
        for i, (name, parts) in enumerate(tree.items())
    ]


def _put_together(facts: Facts, shelf: Shelf) -> Snapshot:
    network = build(facts["network"], shelf, "network.")
    try:
        counts = [facts[name] for name in COUNTS]
        if not all(type(n) is int and n >= 0 for n in counts):
            raise CheckpointError(f"does not fit: got counts {counts}, expected whole numbers >= 0.")
        slots, memory = (
            {str(name): {str(key): shelf.take(ref) for key, ref in parts} for name, parts in facts[what]}
            for what in ("slots", "memory")
        )
        columns = {str(name): shelf.take(ref) for name, ref in facts["columns"].items()}
        run = {str(key): str(text) for key, text in facts["run"].items()}
        value = float(shelf.take(facts["value"]))
        seconds = float(facts["seconds"])
        step, clock, topology, updates = counts
        return Snapshot(network, step, clock, topology, updates, value, slots, memory, columns, seconds, run)
    except WRONG as error:
        text = f"{type(error).__name__} {error}".strip()
        raise CheckpointError(f"does not fit: got {text} in a description, expected none.") from None
