"""Memory of many runs in one process: python -m tests.reliability.leak RUNS."""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path

from minisparse.experiments.runner import execute
from minisparse.experiments.spec import RunSpec

METHODS = (
    ("magnitude", "masked"), ("rigl", "masked"), ("snip", "masked"), ("set", "csr"), ("l0", "masked"),
)  # fmt: skip
WARM = 25


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(runs: int) -> None:
    """Print by how many bytes the process grew from run WARM to the last."""
    before = 0
    for k in range(WARM + runs):
        if k == WARM:
            gc.collect()
            before = resident()
        method, storage = METHODS[k % len(METHODS)]
        execute(RunSpec(method, model="mlp:64-24-10", epochs=1, batch=512, seed=k, storage=storage))
    gc.collect()
    print(resident() - before)


if __name__ == "__main__":
    main(int(sys.argv[1]))
