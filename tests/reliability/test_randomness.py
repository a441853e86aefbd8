"""D4: every draw is a function of (seed, purpose, epoch, step), and of all four."""

from __future__ import annotations

import itertools
from zlib import crc32

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from minisparse.methods.dense import Dense
from minisparse.nn.lr import Constant
from minisparse.nn.optim import SGD
from minisparse.rng import generator
from minisparse.testing.problems import NETWORKS, data_for
from minisparse.training.run import train
from minisparse.training.state import TrainState

SEEDS, PURPOSES, EPOCHS, STEPS = (0, 1, 2**63), ("init", "batches", "noise", ""), (0, 1, 7), (0, 1, 50_000)
ALL = list(itertools.product(SEEDS, PURPOSES, EPOCHS, STEPS))


def drawn(*key: object) -> bytes:
    return generator(*key).bytes(32)  # type: ignore[arg-type]


def test_each_of_the_four_changes_what_is_drawn_and_nothing_else_does() -> None:
    first = {key: drawn(*key) for key in ALL}
    assert len(set(first.values())) == len(ALL)
    for key in reversed(ALL):
        generator(9, "something else").random(100)
        assert drawn(*key) == first[key]


def test_it_is_the_generator_that_is_documented() -> None:
    for seed, purpose, epoch, step in ALL:
        sequence = SeedSequence(seed, spawn_key=(crc32(purpose.encode()), epoch, step))
        assert drawn(seed, purpose, epoch, step) == Generator(PCG64(sequence)).bytes(32)


def test_a_state_draws_by_its_seed_and_step() -> None:
    network = NETWORKS["mlp"]()
    data = data_for(network)
    seen: list[tuple[int, bytes, bytes]] = []

    def watch(state: TrainState) -> None:
        assert state.rng("topology").bytes(8) == state.rng("topology").bytes(8)
        seen.append((state.step, state.rng("topology").bytes(8), state.rng("noise").bytes(8)))

    for seed in (3, 4):
        train(network, data, Dense(), epochs=2, batch=16, seed=seed, rate=Constant(0.1), optimizer=SGD(),
              progress=watch)  # fmt: skip
    numbers = [number for _, *numbers in seen for number in numbers]
    assert len(set(numbers)) == len(numbers) == 2 * 2 * 7
    assert seen[1][1] == generator(3, "topology", step=1).bytes(8)
    assert np.array_equal(generator(3, "a").random(3), generator(3, "a", 0, 0).random(3))
