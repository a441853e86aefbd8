"""H-1: the most memory that a training takes is at most a fifth above what docs/reliability.md says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import minisparse as ms
from minisparse.data.dataset import Dataset
from minisparse.methods.base import Method
from minisparse.nn.models import make
from minisparse.nn.optim import SGD, Adam, Optimizer
from minisparse.training.run import PIECE
from tests.methods.spy import peak_bytes
from tests.reliability.counts import examples

NUMBER, MATRIX, RANKED = (
    4,
    5,
    44,
)  # bytes: of a float32; of an entry of the largest matrix; of a ranked weight
ROOM = 1 << 20  # batches gathered ahead, and what is small

WIDTHS = {
    "wide": (300, 600, 600, 10),
    "one matrix": (1200, 1200, 10),
    "narrow": (64, 300, 100, 10),
    "deep": (200, *[300] * 6, 10),
}
METHODS: dict[str, tuple[Method, bool]] = {  # and whether it ranks all weights at once
    "dense": (ms.Dense(), False),
    "magnitude": (ms.Magnitude(0.9), True),
    "snip": (ms.SNIP(0.9), True),
    "rigl": (ms.RigL(0.9, every=2), True),
    "set": (ms.SET(0.9), True),
}
OPTIMIZERS: dict[str, tuple[Callable[[], Optimizer], int]] = {"sgd": (SGD, 1), "adam": (Adam, 2)}


def promised(widths: tuple[int, ...], slots: int, rows: int, ranks: bool) -> int:
    """Bytes by the formula of the documentation; rows: samples that are in the network at a time."""
    matrices = [a * b for a, b in zip(widths, widths[1:], strict=False)]
    params = sum(matrices) + sum(widths[1:])
    hidden = widths[1:-1]
    activations = rows * (widths[0] + 2 * sum(hidden) + widths[-1] + 2 * max(widths))
    numbers = NUMBER * ((2 + slots) * params + activations)
    return numbers + MATRIX * max(matrices) + RANKED * sum(matrices) * ranks + ROOM


def problem(inputs: int, train: int, test: int) -> Dataset:
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((n, inputs)).astype(np.float32) for n in (train, test)]
    y = [rng.integers(0, 10, n) for n in (train, test)]
    return Dataset("noise", x[0], y[0], x[1], y[1], 10)


SHAPES = examples(("wide", "narrow"), tuple(WIDTHS), tuple(WIDTHS))
SIZES = ((64, 192, 300), (512, 1024, 2500))  # of a batch, of the training data, of the test data


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", METHODS)
def test_a_training_takes_the_memory_it_says(name: str, shape: str) -> None:
    widths, (method, ranks) = WIDTHS[shape], METHODS[name]
    network = make("mlp:" + "-".join(map(str, widths)), (widths[0],), 10)
    for optimizer, slots in OPTIMIZERS.values():
        for batch, train, test in SIZES:
            data = problem(widths[0], train, test)

            def run(batch=batch, data=data, optimizer=optimizer) -> None:
                ms.train(network, data, method, epochs=2, batch=batch, optimizer=optimizer())

            run()  # so that compiling is not counted
            most = promised(widths, slots, max(batch, min(PIECE, test)), ranks)
            peak = peak_bytes(run)
            assert peak <= 1.2 * most, f"{peak / most:.2f} times the formula"
            if not ranks:
                assert peak >= 0.4 * most  # or it would promise nothing


def test_the_formula_is_the_one_in_the_documentation() -> None:
    """784-300-100-10 by hand, Adam, 1,024 samples at a time, ranked."""
    params = 784 * 300 + 300 * 100 + 100 * 10 + 410
    rows = 1024 * (784 + 2 * 400 + 10 + 2 * 784)
    expected = 4 * (4 * params + rows) + 5 * 784 * 300 + 44 * (params - 410) + 2**20
    assert promised((784, 300, 100, 10), 2, 1024, True) == expected
