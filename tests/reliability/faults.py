"""Cells that go wrong on a worker; imported there by name."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minisparse.experiments import distributed, runner
from minisparse.experiments.runner import Outcome

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


# seed -> (what happens, how often)
FAULTS: dict[int, tuple[Callable[[], None], int]] = {1: (killed, 9), 2: (silent_exit, 1), 3: (polite_exit, 9)}


def cell(facts: dict[str, Any], data_dir: str | None, threads: int | None) -> Outcome:
    """`distributed.cell` with the fault of its seed."""
    seed = facts.get("seed", 0)
    fault, times = FAULTS.get(seed, (killed, 0))
    before = deaths(seed)
    (Path(os.environ[PLACE]) / f"{seed}-{before}").touch()

    def execute(*args: Any) -> Outcome:
        if before < times:
            fault()
        return runner.execute(*args)

    distributed.execute = execute
    return distributed.cell(facts, data_dir, threads)
