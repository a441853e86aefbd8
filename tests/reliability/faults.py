"""Cells that go wrong on a worker; imported there by name."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minisparse.experiments import distributed, runner, tickets
from minisparse.experiments.runner import Outcome
from minisparse.training import keeper
from minisparse.training.state import TrainState

PLACE = "MINISPARSE_TEST_FAULTS"  # the folder in which deaths are noted


def deaths(seed: int) -> int:
    """How often the cell of this seed has been started."""
    return len(list(Path(os.environ[PLACE]).glob(f"{seed}-*")))


def killed() -> None:
    """As by the kernel when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def silent_exit() -> None:
    """Exit status 0 and no result."""
    os._exit(0)


def polite_exit() -> None:
    """An exit that Python code asks for."""
    sys.exit(3)


def killed_after(step: int) -> Callable[[TrainState], None]:
    """A watch over a training: it is killed at this step, and notes all steps that were made."""

    def watch(state: TrainState) -> None:
        with open(Path(os.environ[PLACE]) / "steps", "a", encoding="utf-8") as stream:
            stream.write(f"{os.getpid()} {state.seed} {state.step}\n")
        if state.step == step:
            killed()

    return watch


def steps(seed: int) -> list[list[int]]:
    """Steps that were made by each process, in their order, of the runs of a seed that are watched."""
    found: dict[str, list[int]] = {}
    for line in (Path(os.environ[PLACE]) / "steps").read_text(encoding="utf-8").splitlines():
        process, whose, step = line.split()
        if int(whose) == seed:
            found.setdefault(process, []).append(int(step))
    return list(found.values())


# seed -> (what happens, how often)
FAULTS: dict[int, tuple[Callable[[], None], int]] = {1: (killed, 9), 2: (silent_exit, 1), 3: (polite_exit, 9)}


def cell(facts: dict[str, Any], *rest: Any) -> Outcome:
    """`distributed.cell` with the fault of its seed."""
    seed = facts.get("seed", 0)
    fault, times = FAULTS.get(seed, (killed, 0))
    before = deaths(seed)
    (Path(os.environ[PLACE]) / f"{seed}-{before}").touch()

    def execute(*args: Any, **more: Any) -> Outcome:
        if before < times:
            fault()
        return runner.execute(*args, **more)

    distributed.execute = execute
    return distributed.cell(facts, *rest)


# a seed from which on a run is killed in its first process, at this step
MIDWAY, AT = 10, 9


def midway(facts: dict[str, Any], *rest: Any) -> Outcome:
    """`distributed.cell` that saves at every end of an epoch and is killed on its way, once."""
    seed = facts.get("seed", 0)
    first = deaths(seed) == 0
    (Path(os.environ[PLACE]) / f"{seed}-{deaths(seed)}").touch()
    keeper.SECONDS = 0.0
    fate = killed_after(AT if first and seed >= MIDWAY else -1)

    def execute(spec: Any, data_dir: Any, watch: Any, **more: Any) -> Outcome:
        def both(state: TrainState) -> None:
            fate(state)
            watch(state)

        return runner.execute(spec, data_dir, both, **more)

    distributed.execute = execute
    return distributed.cell(facts, *rest)


def climbing(self: tickets.Climb, spec: Any, data_dir: Any, progress: Any) -> Outcome:
    """`Climb.execute` under the same fate: its ladder is killed on its way, once."""
    if spec.key != self.chains[spec.seed].key:
        return self.execute(spec, data_dir, progress)
    keeper.SECONDS = 0.0
    fate = killed_after(-1 if deaths(spec.seed) else AT)
    (Path(os.environ[PLACE]) / f"{spec.seed}-{deaths(spec.seed)}").touch()

    def both(state: TrainState) -> None:
        fate(state)
        progress(state)

    return self.execute(spec, data_dir, both)
