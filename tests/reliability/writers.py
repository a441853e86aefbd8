"""A process that writes to a store, for tests of several at once: python -m tests.reliability.writers ..."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.nn.models import make

SHARED, OWN = 6, 6  # specs that all processes write, and that one writes alone


def outcome(seed: int, writer: int) -> Outcome:
    """A result whose network differs from writer to writer."""
    spec = RunSpec("dense", model="mlp:3-40-2", seed=seed)
    network = make("mlp:3-40-2", (3,), 2, seed=writer)
    for p in network.params().values():
        p.value[...] = np.float32(writer)
    return Outcome(spec, accuracy=writer / 100, network=network)


def main(folder: str, writer: int, begin: str, rounds: int) -> None:
    """Wait for the file `begin`, then put everything, again and again."""
    while not Path(begin).exists():
        time.sleep(0.001)
    with Store(folder) as store:
        for _ in range(rounds):
            for seed in (*range(SHARED), *range(1000 * writer, 1000 * writer + OWN)):
                store.put(outcome(seed, writer))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
