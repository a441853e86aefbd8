"""A grid as a process to be killed: python -m tests.reliability.grid_process FOLDER JOBS GRID."""

from __future__ import annotations

import sys

from minisparse.cli.compare import status
from minisparse.cli.jobs import pool
from minisparse.experiments.grid import load
from minisparse.experiments.store import Store


def main(folder: str, jobs: int, grid: str) -> int:
    """`minisparse compare GRID --jobs JOBS --threads 1 --out FOLDER` without drawing its report."""
    with Store(folder) as store, pool(jobs, None, 1) as run:
        return status(run(load(grid).specs, store), False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
