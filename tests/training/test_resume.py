"""A run that was interrupted goes on bit for bit as if it had not been: every method, at any step."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from minisparse.errors import MethodError, MinisparseWarning, ResumeMismatchError, UsageError
from minisparse.methods.base import Method
from minisparse.methods.registry import catalogue
from minisparse.nn.lr import Constant, Cosine
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD, Adam, Optimizer
from minisparse.nn.pool import Dropout
from minisparse.sparsity.parse import parse_control
from minisparse.testing import Case
from minisparse.testing.problems import NETWORKS, data_for
from minisparse.training import keeper, snapshot
from minisparse.training.interrupt import SIGNALS, Interrupts
from minisparse.training.run import Run, train
from minisparse.training.state import TrainState
from minisparse.weights.csr import CSRWeight
from tests.contracts.test_every_method import CASES
from tests.reliability.counts import examples

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "momentum": lambda: SGD(0.9, weight_decay=1e-2),
    "adam": lambda: Adam(weight_decay=1e-2),
}
NAMES = list(catalogue())


def make(name: str, **changes: Any) -> Method:
    """The method with settings under which it acts within twelve steps."""
    cls = catalogue()[name].cls
    asked = {"sparsity": 0.7} if "sparsity" in {f.name for f in fields(cls)} else {}
    return cls(**(asked | dict(CASES.get(name, Case()).settings) | changes))


def suits(name: str, kind: str) -> bool:
    try:
        make(name).check(NETWORKS[kind]())
    except MethodError:
        return False
    return True


PAIRS = [(name, kind) for name in NAMES for kind in NETWORKS if suits(name, kind)]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C is heard, which it is not where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Stop(Exception):
    """What ends a run in these tests."""


def digest(state: TrainState) -> str:
    """Of all that a state has, bit by bit; no more than the loop and the methods could see."""
    found = hashlib.sha256()

    def add(name: str, array: Any) -> None:
        a = np.asarray(array)
        found.update(f"{name} {a.dtype} {a.shape}".encode() + a.tobytes())

    for name, value in state.network.state().items():
        add(name, value)
    for name, mask in state.network.masks().items():
        add(f"mask of {name}", mask)
    for name, layer in state.network.prunable().items():
        add(f"matrix of {name}", layer.weight.dense())
    for tree in (state.optimizer.slots, state.memory):
        for name in sorted(tree):
            for key in sorted(tree[name]):
                add(f"{name} {key}", tree[name][key])
    for key in ("step", "clock", "topology", "value", "lr"):
        add(key, getattr(state, key))
    add("t", state.optimizer.t)
    return found.hexdigest()


def train_on(network: Network, method: Any, optimizer: str, **settings: Any) -> Run:
    usual = {"epochs": 4, "batch": 16, "rate": Cosine(0.03), "seed": 3}
    data = settings.pop("data", None) or data_for(network)
    return train(network, data, method, **({"optimizer": OPTIMIZERS[optimizer]()} | usual | settings))


def course(
    network: Network, method: Any, optimizer: str, stop: int | None = None, **settings: Any
) -> tuple[list[str], Run | None]:
    """The digest after every step, and what is returned; None if the run was stopped after step `stop`."""
    seen: list[str] = []

    def watch(state: TrainState) -> None:
        seen.append(f"{state.step} {digest(state)}")
        if state.step == stop:
            raise Stop

    try:
        run = train_on(network, method, optimizer, progress=watch, **settings)
    except Stop:
        return seen, None
    return seen, run


def assert_same_end(run: Run | None, twin: Run | None) -> None:
    assert run is not None and twin is not None
    assert (run.status, run.note, run.steps) == (twin.status, twin.note, twin.steps)
    assert repr(run.history) == repr(twin.history)
    a, b = run.network.state(), twin.network.state()
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].tobytes() == b[key].tobytes(), key
    others = twin.network.prunable()
    for name, layer in run.network.prunable().items():
        assert type(layer.weight) is type(others[name].weight)
        np.testing.assert_array_equal(layer.weight.mask, others[name].weight.mask, err_msg=name)


def check(
    folder: Path,
    network: Network,
    method: Any,
    optimizer: str,
    stops: tuple[int, ...],
    every: int,
    **settings: Any,
) -> None:
    """Stop after each of these steps in turn and go on; snapshots are made every so many steps."""
    whole, run = course(network, method, optimizer, **settings)
    kept = {"checkpoint": folder, "every": every}
    for stop in stops:
        part, nothing = course(network, method, optimizer, stop, **settings, **kept)
        assert nothing is None
        assert part == whole[stop + 1 - len(part) : stop + 1]
    rest, twin = course(network, method, optimizer, **settings, **kept)
    assert rest == whole[len(whole) - len(rest) :]
    assert len(rest) < len(whole)  # it did go on, and did not begin again
    assert_same_end(run, twin)


# after which of twelve steps a run is stopped, and how often it is saved
STOPS, EVERY = examples((3, 7), (1, 2, 3, 5, 6, 7, 10, 11), tuple(range(12))), examples(2, 1, 1)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_every_method_goes_on_bit_for_bit(tmp_path, name, kind):
    optimizer = "adam" if NAMES.index(name) % 2 else "momentum"
    check(tmp_path, NETWORKS[kind](), make(name), optimizer, STOPS, EVERY)


SOME = ("acdc", "imp", "l0", "variational-dropout", "snfs", "deep-r", "dctps", "subspace", "eigendamage")


@pytest.mark.parametrize("name", SOME)
def test_some_methods_at_every_step(tmp_path, name):
    method = make(name)
    check(tmp_path, NETWORKS["conv"](), method, "adam", tuple(range(1, method.length(12))), 1)


@pytest.mark.parametrize("storage", ["masked", "csr"])
@pytest.mark.parametrize("name", ["rigl", "set", "deep-r", "snfs", "magnitude", "synflow", "dsr"])
def test_storage_formats(tmp_path, name, storage):
    check(tmp_path, NETWORKS["mlp"](), make(name), "adam", (1, 5, 8), 1, storage=storage)
    kinds = {type(layer.weight) for layer in snapshot.load(tmp_path).network.prunable().values()}
    assert (CSRWeight in kinds) is (storage == "csr")


def test_a_network_with_dropout(tmp_path):
    network = NETWORKS["mlp"]()
    layers = dict(network.layers)
    layers = {"fc1": layers.pop("fc1"), "drop": Dropout(0.4), **layers}
    check(tmp_path, Network(layers, network.input_shape), make("dense"), "momentum", (4, 5, 9), 1)


def test_signals_stop_after_the_step_and_the_run_goes_on(tmp_path):
    method, network = make("rigl"), NETWORKS["conv"]()
    whole, run = course(network, method, "adam")
    before = [signal.getsignal(number) for number in SIGNALS]
    for number, at in ((signal.SIGINT, 2), (signal.SIGTERM, 5), (signal.SIGINT, 6)):
        reached: list[int] = []

        def send(state: TrainState, number: int = number, at: int = at, reached: list[int] = reached) -> None:
            reached.append(state.step)
            if state.step == at:
                signal.raise_signal(number)

        with pytest.raises(KeyboardInterrupt, match=f"step {at} is saved in"):
            train_on(network, method, "adam", progress=send, checkpoint=tmp_path)
        assert reached[-1] == at and snapshot.latest(tmp_path) == at
        assert [signal.getsignal(number) for number in SIGNALS] == before
    rest, twin = course(network, method, "adam", checkpoint=tmp_path)
    assert rest == whole[7:]
    assert_same_end(run, twin)


def test_a_second_signal_stops_at_once_and_leaves_what_was_saved(tmp_path):
    def twice(state: TrainState) -> None:
        if state.step == 5:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt):
        train_on(NETWORKS["mlp"](), make("set"), "adam", progress=twice, checkpoint=tmp_path, every=2)
    assert snapshot.latest(tmp_path) == 4


def test_a_signal_before_the_first_step_keeps_what_was_set_up(tmp_path, monkeypatch):
    method, network = make("synflow"), NETWORKS["mlp"]()
    whole, run = course(network, method, "adam")

    def early(state: TrainState) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="step 0 is saved"):
        train_on(network, method, "adam", progress=early, checkpoint=tmp_path)
    monkeypatch.setattr(type(method), "setup", lambda self, state: pytest.fail("set up again"))
    rest, twin = course(network, method, "adam", checkpoint=tmp_path)
    assert rest == whole[1:]
    assert_same_end(run, twin)


def test_a_signal_at_the_very_end_is_not_lost(tmp_path, monkeypatch):
    method = make("dense")
    monkeypatch.setattr(type(method), "finish", lambda self, state: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train_on(NETWORKS["mlp"](), method, "adam", checkpoint=tmp_path, every=4)
    assert snapshot.latest(tmp_path) == 12


def test_ignored_signals_stay_ignored_and_other_threads_hear_none(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
        assert not interrupts.asked
    finally:
        signal.signal(signal.SIGINT, before)
    found: list[Any] = []
    thread = Thread(
        target=lambda: found.append(train_on(NETWORKS["mlp"](), make("dense"), "adam", checkpoint=tmp_path))
    )
    thread.start()
    thread.join()
    assert found[0].status == "done"


def test_without_a_folder_nothing_is_heard_or_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    train_on(NETWORKS["mlp"](), make("dense"), "adam", progress=lambda s: seen.append(handler()))
    assert set(seen) == {handler()} and not list(tmp_path.iterdir())


def handler() -> Any:
    return signal.getsignal(signal.SIGTERM)


def halted(folder: Path) -> None:
    """Leave a snapshot of step 4 in a folder."""

    def stop(state: TrainState) -> None:
        if state.step == 5:
            raise Stop

    with pytest.raises(Stop):
        train_on(NETWORKS["mlp"](), make("rigl"), "adam", progress=stop, checkpoint=folder, every=4)


OTHER_RUNS: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 5},
    "batch": {"batch": 12},
    "seed": {"seed": 4},
    "rate": {"rate": Cosine(0.04)},
    "storage": {"storage": "csr"},
    "loss": {"loss": "mse"},
    "optimizer": {"optimizer": SGD()},
    "optimizer beta2": {"optimizer": Adam(beta2=0.9, weight_decay=1e-2)},
    "method": {"method": make("set")},
    "method sparsity": {"method": make("rigl", sparsity=0.6)},
    "network": {"network": NETWORKS["mlp"]().astype(np.float64)},
}


@pytest.mark.parametrize("field", OTHER_RUNS)
def test_another_run_does_not_go_on_and_the_error_names_what_differs(tmp_path, field):
    halted(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    usual = {"network": NETWORKS["mlp"](), "method": make("rigl"), "optimizer": OPTIMIZERS["adam"]()}
    usual |= {"epochs": 4, "batch": 16, "rate": Cosine(0.03), "seed": 3, "checkpoint": tmp_path}
    with pytest.raises(ResumeMismatchError, match=f"got {field} .*, expected .* as when it was saved"):
        train(data=data_for(usual["network"]), **(usual | OTHER_RUNS[field]))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_data_are_another_run(tmp_path):
    halted(tmp_path)
    network = NETWORKS["mlp"]()
    data = data_for(network)
    moved = replace(data, test_x=np.nextafter(data.test_x, np.float32(9)))
    with pytest.raises(ResumeMismatchError, match="got data"):
        train_on(network, make("rigl"), "adam", checkpoint=tmp_path, data=moved)


def test_starting_anew_discards_what_is_there(tmp_path):
    halted(tmp_path)
    seen = []
    settings = {"checkpoint": tmp_path, "every": 5, "resume": False, "seed": 9}
    train_on(NETWORKS["mlp"](), make("rigl"), "adam", progress=lambda s: seen.append(s.step), **settings)
    assert seen == list(range(13))
    assert sorted(snapshot._steps(tmp_path)) == [5, 10]


def test_a_run_that_is_done_ends_at_once_and_equal(tmp_path):
    first = train_on(NETWORKS["mlp"](), make("imp"), "adam", checkpoint=tmp_path, every=1)
    seen = []
    again = train_on(
        NETWORKS["mlp"](), make("imp"), "adam", checkpoint=tmp_path, progress=lambda s: seen.append(s.step)
    )
    assert not seen
    assert_same_end(first, again)


def test_a_run_that_diverges_after_it_went_on_says_the_same(tmp_path):
    settings = {"rate": Constant(1e30), "epochs": 4}
    with np.errstate(all="ignore"):
        network, method = NETWORKS["mlp"](), make("dense")
        whole = train_on(network, method, "momentum", **settings)
        train_on(network, method, "momentum", checkpoint=tmp_path, every=1, **settings)
        twin = train_on(network, method, "momentum", checkpoint=tmp_path, every=1, **settings)
    assert whole.status == twin.status == "diverged" and whole.note == twin.note


def test_short_runs_write_nothing_unless_asked(tmp_path, monkeypatch):
    folder = tmp_path / "x"
    train_on(NETWORKS["mlp"](), make("dense"), "adam", checkpoint=folder)
    assert not folder.exists()
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    train_on(NETWORKS["mlp"](), make("dense"), "adam", checkpoint=folder)
    assert sorted(snapshot._steps(folder)) == [9, 12]  # ends of epochs, the newest two


@pytest.mark.parametrize("every", [0, -1, True, 2.0, "3"])
def test_unusable_intervals_are_refused(tmp_path, every):
    with pytest.raises(UsageError, match="every: got .*, expected a whole number of steps >= 1"):
        train_on(NETWORKS["mlp"](), make("dense"), "adam", checkpoint=tmp_path, every=every)


def test_a_memory_that_is_not_arrays_is_refused(tmp_path, monkeypatch):
    method = make("dense")
    for odd in ({"a": [1, 2]}, {"a": np.array([object()])}, [1.0]):
        monkeypatch.setattr(type(method), "setup", lambda self, state, odd=odd: state.memory.update(m=odd))
        with pytest.raises(UsageError, match="memory.*cannot be saved"):
            train_on(NETWORKS["mlp"](), method, "adam", checkpoint=tmp_path, every=1)


def test_a_run_that_cannot_be_saved_is_made_all_the_same_unless_asked(tmp_path, monkeypatch):
    method = make("dense")
    monkeypatch.setattr(type(method), "setup", lambda self, state: state.memory.update(m={"a": "text"}))
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    with pytest.warns(MinisparseWarning, match="not saved on its way: array 'memory.0.0'") as caught:
        run = train_on(NETWORKS["mlp"](), method, "adam", checkpoint=tmp_path)
    assert run.status == "done" and len(caught) == 1 and snapshot.latest(tmp_path) is None
    with pytest.raises(KeyboardInterrupt) as stopped, pytest.warns(MinisparseWarning):
        watch = {"progress": lambda s: signal.raise_signal(signal.SIGINT) if s.step == 4 else None}
        train_on(NETWORKS["mlp"](), method, "adam", checkpoint=tmp_path, **watch)
    assert not str(stopped.value)


def test_an_initialiser_of_ones_own_is_that_of_the_network_given(tmp_path):
    def ones(geometry: Any, rng: np.random.Generator) -> np.ndarray:
        return np.ones((geometry[0], int(np.prod(geometry[1:]))))

    network = NETWORKS["mlp"]()
    network.init = ones
    check(tmp_path, network, make("scratch", control=parse_control("reinit")), "adam", (7,), 3)


def test_seconds_of_the_parts_are_added(tmp_path):
    halted(tmp_path)
    spent = snapshot.load(tmp_path).seconds
    run = train_on(NETWORKS["mlp"](), make("rigl"), "adam", checkpoint=tmp_path)
    assert run.seconds > spent > 0
