"""Methods on networks nobody chose: what `check_method` asks on two networks, asked on random ones.

A trial draws an architecture of any layers, a method of the catalogue, its sparsity, an optimiser, data and a
precision, all from its number: `conform(number)` replays it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from minisparse.data.dataset import Dataset
from minisparse.errors import MinisparseError
from minisparse.methods.base import Method
from minisparse.methods.registry import catalogue
from minisparse.nn.lr import Cosine
from minisparse.nn.network import Network
from minisparse.testing import Case
from minisparse.testing.case import asked_count, kept, size
from minisparse.testing.promises import OPTIMIZERS, absent_is_zero
from minisparse.training.checkpoint import load, save
from minisparse.training.run import Run, train
from minisparse.training.state import TrainState
from tests.architectures import EVERYTHING, random_network
from tests.contracts.test_every_method import CASES
from tests.reliability.counts import examples

TRIALS = examples(20, 200, 5_000)
SPACE = replace(EVERYTHING, masked=0.0, images=0.4, depth=4, width=9, outputs=6)
SPARSITIES = (0.0, 0.3, 0.5, 0.8, 0.9, 0.97)
NAMES = sorted(catalogue(), key=lambda name: crc32(name.encode()))  # mixed: few trials see all families


def random_method(rng: np.random.Generator, name: str) -> tuple[Method, Case]:
    cls, case = catalogue()[name].cls, CASES.get(name, Case())
    settings = dict(case.settings)
    if "sparsity" in {f.name for f in fields(cls)} and "sparsity" not in settings:
        settings["sparsity"] = SPARSITIES[rng.integers(len(SPARSITIES))]
    return cls(**settings), case


def random_data(rng: np.random.Generator, network: Network) -> Dataset:
    """Noise; classes, or numbers for a network of one output."""
    x = [rng.standard_normal((n, *network.input_shape)).astype(np.float32) for n in (41, 9)]
    if network.outputs == 1:
        y = [rng.standard_normal((len(a), 1)).astype(np.float32) for a in x]
        return Dataset("noise", x[0], y[0], x[1], y[1], None)
    labels = [rng.integers(0, network.outputs, len(a)) for a in x]
    return Dataset("noise", x[0], labels[0], x[1], labels[1], network.outputs)


def same(a: Network, b: Network) -> bool:
    one, two = a.state(), b.state()
    masks = b.masks()
    return one.keys() == two.keys() and all(
        [one[key].tobytes() == two[key].tobytes() for key in one]
        + [np.array_equal(mask, masks[name]) for name, mask in a.masks().items()]
    )


def conform(number: int, folder: Path) -> str:
    """How trial `number` ended: a run's status, or the class of an error of ours. AssertionError if badly."""
    rng = np.random.default_rng([7, number])
    method, case = random_method(rng, NAMES[number % len(NAMES)])
    network = random_network(rng, SPACE).astype(("float32", "float64")[int(rng.integers(2))])
    data, before = random_data(rng, network), network.copy()
    optimizer = sorted(OPTIMIZERS)[rng.integers(len(OPTIMIZERS))]
    seed = int(rng.integers(100))

    def watch(state: TrainState) -> None:
        if case.zeros:
            absent_is_zero(state)

    def run() -> Run:
        return train(
            network, data, method, epochs=4, batch=16, optimizer=OPTIMIZERS[optimizer](), rate=Cosine(0.01),
            seed=seed, progress=watch,
        )  # fmt: skip

    with np.errstate(all="ignore"):
        try:
            first, second = run(), run()
        except MinisparseError as error:
            assert "\n" not in str(error)
            return type(error).__name__
    assert same(network, before), "the network given was changed"
    assert same(first.network, second.network), "two runs differ"
    assert repr(first.history) == repr(second.history) and first.note == second.note
    if first.status == "diverged":
        return first.status
    assert all(np.isfinite(a).all() for a in first.network.state().values())
    if case.counts and size(first.network) == size(network):
        # where whole units leave and one of each layer stays, narrow networks may keep more than is asked
        off, slack = kept(first.network) - asked_count(method, first.network), case.slack(network)
        assert off == 0 if slack == 0 else off >= -slack, f"kept {off} too many"
    save(first.network, folder)
    assert same(load(folder), first.network), "saved and loaded"
    return first.status


def test_methods_keep_their_promises_on_random_networks(tmp_path: Path) -> None:
    ends: Counter[str] = Counter()
    for number in range(TRIALS):
        try:
            ends[conform(number, tmp_path / str(number))] += 1
        except BaseException as error:
            error.add_note(f"trial {number}: method {NAMES[number % len(NAMES)]}")
            raise
    assert ends["done"] + ends["collapsed"] > TRIALS / 2, ends
    assert ends.keys() <= {"done", "collapsed", "diverged", "MethodError", "SparsityError", "UsageError"}, (
        ends
    )


def test_a_broken_promise_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = NAMES.index("magnitude")
    assert conform(number, tmp_path) in ("done", "collapsed")
    monkeypatch.setattr("minisparse.training.state.TrainState._moved", lambda self, sources: None)
    with pytest.raises(AssertionError, match="slot 'u'|slot 'm'|slot 'v'"):
        for k in range(3):
            conform(number + k * len(NAMES), tmp_path)
