"""A grid whose processes are killed at random, started again and again until it is done.

    python -m tests.reliability.storm --kills 100

A grid of 24 cells runs on two workers. Again and again one process, a worker or the one that holds the
store, gets SIGKILL at a random moment; when the parent is gone the same command is given again. In the
end every cell must be in the store once, with the results of an undisturbed grid, bit for bit, with
nothing else left behind: no temporary file, no process. Grids follow one another until there were so many
kills.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minisparse.experiments.compare import compare
from minisparse.experiments.grid import load
from minisparse.experiments.store import Store
from minisparse.training.checkpoint import TEMPORARY
from tests.reliability.processes import ended, kill, marked, start, until, workers

CELLS = 24
GRID = """
seeds = 4
epochs = 15
batch = 64
model = "mlp:64-12-10"
[[runs]]
method = ["magnitude", "random", "rigl"]
settings = { sparsity = [0.5, 0.8] }
"""
PARENT, WORKER = "parent", "worker"
RESTARTS = 400


@dataclass
class Storm:
    """What happened: kills by kind and by phase, grids completed, exit statuses of parents."""

    kills: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    grids: int = 0  # completed
    starts: int = 0
    slowest_end: float = 0.0  # seconds until all processes of a parent were gone


def outcome_table(folder: Path) -> list[dict[str, object]]:
    """All rows of a store without what is measured by the clock."""
    with Store(folder) as store:
        return ended([outcome.to_json() for outcome in store.all()])


def networks(folder: Path, place: str = "networks") -> dict[str, bytes]:
    """Every file of every saved network."""
    files = sorted((folder / place).rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


def rows(folder: Path) -> int:
    """Cells in the store so far; 0 before it exists."""
    return sum(1 for _ in (folder / "networks").glob("*/manifest.json"))


class Killer:
    """Runs one grid to its end under kills."""

    def __init__(self, grid: Path, rng: np.random.Generator, storm: Storm) -> None:
        self.grid, self.rng, self.storm = grid, rng, storm

    def until_done(self, folder: Path, kills: int) -> None:
        """At most so many kills; then the grid may end in peace."""
        for turn in range(RESTARTS):
            mark = f"{folder.name}-{turn}-{time.monotonic_ns()}"
            arguments = ["-m", "tests.reliability.grid_process", str(folder), "2", str(self.grid)]
            process = start(
                arguments, folder.parent, mark, DASK_TEMPORARY_DIRECTORY=str(folder.parent / "dask")
            )
            self.storm.starts += 1
            while process.poll() is None and sum(self.storm.kills.values()) < kills:
                if self._wait(process, mark, folder) and self._strike(process, mark) == PARENT:
                    break
            begin = time.monotonic()
            _, complaint = process.communicate()  # until all that could write there are gone
            assert until(lambda mark=mark: not marked(mark), 20), f"processes left: {marked(mark)}"
            self.storm.slowest_end = max(self.storm.slowest_end, time.monotonic() - begin)
            self.storm.exits[process.returncode] += 1
            if process.returncode not in (0, 4, -9):
                self.storm.complaints.append(complaint.strip()[-2000:])
            if process.returncode == 0:
                self.storm.grids += 1
                return
        raise AssertionError(f"the grid was not done after {RESTARTS} starts")

    def _wait(self, process: object, mark: str, folder: Path) -> bool:
        """A random moment while it starts, or up to 500 ms after the next cell; False if it ended before."""
        poll = process.poll  # type: ignore[attr-defined]
        if self.rng.random() < 0.2:
            self.phase = "starting or anywhere"
            return not until(lambda: poll() is not None, float(self.rng.uniform(0, 4)))
        self.phase, before = "amid cells", rows(folder)
        until(lambda: poll() is not None or rows(folder) > before, 60)
        return not until(lambda: poll() is not None, float(self.rng.uniform(0, 0.5)))

    def _strike(self, process: object, mark: str) -> str:
        at_work, before = workers(mark), sum(self.storm.kills.values())
        if at_work and (
            before == 1 or (before and self.rng.random() < 0.6)
        ):  # the parent first, then a worker
            kill(int(self.rng.choice(at_work)))
            kind = WORKER
        else:
            kill(process.pid)  # type: ignore[attr-defined]
            kind = PARENT
        self.storm.kills[f"{kind}, {self.phase}"] += 1
        return kind


def run(kills: int, place: Path, seed: int = 0, tell: Callable[[Storm], None] = lambda storm: None) -> Storm:
    """Grids under kills until there were so many. AssertionError if anything is lost, doubled or left."""
    grid = place / "storm.toml"
    grid.write_text(GRID)
    assert len(load(str(grid)).specs) == CELLS
    calm, storm = place / "calm", Storm()
    with Store(calm) as store:
        compare(load(str(grid)).specs, store)  # in this process: the workers must find the same
    table, files = outcome_table(calm), networks(calm)
    assert len(table) == CELLS and {facts["status"] for facts in table} == {"done"}
    while sum(storm.kills.values()) < kills:
        folder = place / f"storm-{storm.grids}"
        Killer(grid, np.random.default_rng([seed, storm.grids]), storm).until_done(folder, kills)
        assert outcome_table(folder) == table, "another table than that of the undisturbed grid"
        assert networks(folder) == files, "other networks than those of the undisturbed grid"
        assert not list(folder.rglob(f"*{TEMPORARY}")), "temporary files are left"
        tell(storm)
    return storm


def main(argv: list[str] | None = None) -> int:
    """Print what happened as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        storm = run(args.kills, Path(folder), args.seed, tell=lambda s: print(s, file=sys.stderr, flush=True))
    facts = {
        "kills": dict(storm.kills),
        "grids": storm.grids,
        "starts": storm.starts,
        "exit statuses": dict(storm.exits),
        "complaints": storm.complaints,
        "slowest end of all processes, s": round(storm.slowest_end, 2),
        "seconds": round(time.monotonic() - begin),
    }
    print(json.dumps(facts, indent=1))
    return 1 if storm.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
