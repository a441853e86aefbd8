"""A network trains the same course whether its sparse layers are masked matrices or stored entries."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import minisparse as ms
from minisparse.errors import MethodError, SparseFormatError, UnknownNameError
from minisparse.methods.base import Method
from minisparse.methods.dense import Dense
from minisparse.methods.dynamic.rigl import RigL
from minisparse.methods.dynamic.set import SET
from minisparse.methods.dynamic.srigl import SRigL
from minisparse.methods.initial.snip import SNIP
from minisparse.methods.lottery.imp import IMP
from minisparse.methods.random import Random
from minisparse.methods.registry import catalogue
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD, Adam, Optimizer
from minisparse.nn.param import Array
from minisparse.nn.weight import MaskedWeight
from minisparse.sparsity.allocation import ERK, FirstDense
from minisparse.sparsity.pattern import NM
from minisparse.sparsity.schedule import Cubic, OneShot
from minisparse.training.born import make_sparse
from minisparse.training.run import Run, train
from minisparse.training.state import TrainState
from minisparse.training.storage import NAMES, adopt, format_of, layout, numbers
from minisparse.weights.csr import CSRWeight
from minisparse.weights.formats import FORMATS, MASKED, convert
from minisparse.weights.stored import StoredWeight
from tests.contracts.test_every_method import CASES as CONTRACT
from tests.contracts.test_every_method import Case
from tests.methods.problems import clusters, conv_net, mlp, state_of

METHODS: dict[str, Method] = {
    "static": Random(0.8),
    "snip": SNIP(0.8),
    "gradual": Magnitude(0.9, schedule=Cubic(0.2, 0.7, every=2)),
    "set": SET(0.8),
    "rigl": RigL(0.8, every=3),
    "first dense": RigL(0.8, every=3, allocation=FirstDense()),
}
OPTIMIZERS = {"momentum": lambda: SGD(0.9, weight_decay=1e-2), "adam": lambda: Adam(weight_decay=1e-2)}


def course(
    method: Method, storage: str | None, optimizer: Optimizer, network: Network, shape: tuple[int, ...]
) -> tuple[list[dict[str, Array]], Run]:
    """Matrices, masks, gradients and slots (as matrices) after each step, and the run."""
    steps: list[dict[str, Array]] = []

    def watch(state: TrainState) -> None:
        found: dict[str, Array] = {}
        for name, layer in state.network.prunable().items():
            weight = layer.weight
            found |= {f"{name}.mask": weight.mask, f"{name}.weight": weight.dense().copy()}
            found[f"{name}.grad"] = weight.grads.copy()
            for key, slot in state.optimizer.slots.get(f"{name}.weight", {}).items():
                assert slot.shape == weight.params()["weight"].value.shape
                found[f"{name}.{key}"] = numbers(weight, slot).copy()
        steps.append(found)

    run = train(
        network, clusters(np.random.default_rng(2), shape), method, epochs=4, batch=12,
        optimizer=optimizer, storage=storage, progress=watch,
    )  # fmt: skip
    return steps, run


def same(found: list[dict[str, Array]], wanted: list[dict[str, Array]]) -> None:
    assert len(found) == len(wanted) == 17
    for a, b in zip(found, wanted, strict=True):
        assert a.keys() == b.keys()
        for key, array in b.items():
            if array.dtype == bool:
                np.testing.assert_array_equal(a[key], array)
            else:
                scale = max(np.abs(array).max(initial=0), 1e-3)
                assert np.abs(a[key] - array).max(initial=0) <= 1e-12 * scale, key


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", METHODS)
def test_the_course_is_that_of_masked_matrices(name: str, optimizer: str) -> None:
    courses = [
        course(METHODS[name], s, OPTIMIZERS[optimizer](), mlp((8, 14, 9, 3), np.random.default_rng(1)), (8,))
        for s in ("csr", None)
    ]
    same(courses[0][0], courses[1][0])
    (_, run), (_, masked) = courses
    assert [r.test_loss for r in run.history] == pytest.approx([r.test_loss for r in masked.history], 1e-12)
    assert (run.status, run.sparsity) == (masked.status, masked.sparsity)
    for layer in run.network.prunable().values():
        full = layer.weight.kept == layer.weight.size
        assert type(layer.weight) is (MaskedWeight if full else CSRWeight)
        assert layer.weight.params()["weight"].value.size == layer.weight.kept


def test_convolutions_too() -> None:
    courses = [
        course(RigL(0.7, every=3), s, SGD(0.9), conv_net(np.random.default_rng(1)), (2, 6, 6))[0]
        for s in ("csr", "masked")
    ]
    same(*courses)


@pytest.mark.parametrize(
    ("storage", "method"),
    [
        ("condensed", SRigL(0.7, every=3, gamma=0.9)),
        ("nm", Magnitude(0.5, schedule=OneShot(0.25), pattern=NM(2, 4))),
        *(
            (name, Magnitude(0.7, schedule=OneShot(0.25)))
            for name in ("sliced", "panels", "bitmask", "reduced")
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_format_trains_as_the_matrix_does(storage: str, method: Method) -> None:
    """Formats with padding and orders of their own; slots have to follow into them in mid-training."""
    net = mlp((8, 16, 12, 4), np.random.default_rng(1))
    data = clusters(np.random.default_rng(2), (8,), classes=4)
    runs = [
        train(net, data, method, epochs=4, batch=12, optimizer=Adam(weight_decay=1e-2), storage=s)
        for s in (storage, None)
    ]
    for name, layer in runs[0].network.prunable().items():
        wanted = runs[1].network.prunable()[name].weight.dense()
        np.testing.assert_allclose(layer.weight.dense(), wanted, rtol=1e-11, atol=1e-13)
    kinds = {type(layer.weight) for layer in runs[0].network.prunable().values()}
    assert FORMATS[storage] in kinds and kinds <= {FORMATS[storage], MaskedWeight}


def test_layers_change_format_when_they_become_sparse_and_when_dense_again() -> None:
    """AC/DC alternates between dense and sparse phases."""
    seen = []
    net = mlp((8, 14, 9, 3), np.random.default_rng(1))
    method = ms.ACDC(0.8, begin=0.125, phase=0.125, last=0.75)
    runs = []
    for storage in ("csr", None):
        runs.append(
            train(
                net, clusters(np.random.default_rng(2), (8,)), method, epochs=4, batch=12, storage=storage,
                progress=lambda s: seen.append(format_of(s.network.prunable()["fc1"].weight)),
            )
        )  # fmt: skip
    assert {"csr", "masked"} == set(seen[:17]) and set(seen[17:]) == {"masked"}
    assert sum(a != b for a, b in zip(seen[:16], seen[1:17], strict=True)) >= 2
    for name, layer in runs[0].network.prunable().items():
        wanted = runs[1].network.prunable()[name].weight.dense()
        np.testing.assert_allclose(layer.weight.dense(), wanted, rtol=1e-11, atol=1e-13)


def state_with_slots(weight: MaskedWeight) -> TrainState:
    """Of one layer, whose gradient and slot u are numbered by their place in the matrix."""
    net = mlp((6, 5), np.random.default_rng(0))
    layer = net.prunable()["fc1"]
    layer.weight = weight
    numbered = np.arange(1.0, 31.0).reshape(5, 6) * weight.mask
    weight.param.grad[...] = -numbered
    state = state_of(net, np.zeros((2, 6)), np.zeros(2, dtype=int))
    state.optimizer.slots["fc1.weight"] = {"u": numbered.copy()}
    return state


@pytest.mark.parametrize("storage", [s for s in FORMATS if s not in ("nm", "condensed", "block")])
def test_slots_and_gradients_go_with_their_entries_and_come_back(storage: str) -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((5, 6)) < 0.5
    state = state_with_slots(MaskedWeight(rng.standard_normal((5, 6)), mask=mask))
    before = state.network.prunable()["fc1"].weight
    adopt(state, storage)
    weight = state.network.prunable()["fc1"].weight
    slot = state.optimizer.slots["fc1.weight"]["u"]
    assert type(weight) is FORMATS[storage] and slot.shape == weight.params()["weight"].value.shape
    np.testing.assert_array_equal(numbers(weight, slot), weight.flat + 1)
    np.testing.assert_array_equal(weight.grads, -(weight.flat + 1))
    assert np.count_nonzero(slot) == weight.kept  # padding is 0
    adopt(state, MASKED)
    back = state.network.prunable()["fc1"].weight
    assert type(back) is MaskedWeight
    np.testing.assert_array_equal(back.dense(), before.dense())
    np.testing.assert_array_equal(back.mask, mask)
    np.testing.assert_array_equal(state.optimizer.slots["fc1.weight"]["u"], -before.param.grad)
    np.testing.assert_array_equal(back.param.grad, before.param.grad)


def test_from_one_format_to_another() -> None:
    rng = np.random.default_rng(4)
    state = state_with_slots(MaskedWeight(rng.standard_normal((5, 6)), mask=rng.random((5, 6)) < 0.5))
    for storage in ("sliced", "csr", "reduced"):
        adopt(state, storage)
        weight = state.network.prunable()["fc1"].weight
        assert format_of(weight) == storage
        np.testing.assert_array_equal(
            numbers(weight, state.optimizer.slots["fc1.weight"]["u"]), weight.flat + 1
        )


def test_a_network_that_is_sparse_already_is_converted_before_the_first_step() -> None:
    net = mlp((8, 14, 9, 3), np.random.default_rng(1))
    rng = np.random.default_rng(5)
    for layer in net.prunable().values():
        layer.weight.rewire(rng.random(layer.weight.shape) < 0.4)
    data = clusters(np.random.default_rng(2), (8,))
    kinds: list[Any] = []
    runs = [
        train(
            net, data, Dense(), epochs=2, batch=12, storage=s,
            progress=lambda state: kinds.append(type(state.network.prunable()["fc1"].weight)),
        )
        for s in ("csr", None)
    ]  # fmt: skip
    assert set(kinds[:9]) == {CSRWeight} and set(kinds[9:]) == {MaskedWeight}
    assert runs[0].history[-1].test_loss == pytest.approx(runs[1].history[-1].test_loss, rel=1e-12)
    for layer in net.prunable().values():
        assert type(layer.weight) is MaskedWeight  # what was given stays as it was


def test_a_stored_network_stays_as_it_is_unless_asked() -> None:
    net = mlp((8, 14, 3), np.random.default_rng(1))
    for layer in net.prunable().values():
        layer.weight.rewire(np.random.default_rng(5).random(layer.weight.shape) < 0.4)
        layer.weight = convert(layer.weight, "sliced")
    data = clusters(np.random.default_rng(2), (8,))
    for storage, wanted in ((None, "sliced"), ("csr", "csr"), ("masked", "masked")):
        run = train(net, data, Dense(), epochs=1, batch=12, storage=storage)
        assert {format_of(layer.weight) for layer in run.network.prunable().values()} == {wanted}


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (ms.L0(), "L0 cannot train in storage 'csr': got HardConcreteWeight in layer 'fc1'"),
        (ms.STR(), "STR cannot train in storage 'csr': got SoftThresholdWeight"),
        (IMP(0.8), "IMP cannot train in storage 'csr': got weights that are rewound"),
    ],
)
def test_a_method_that_cannot_says_so_before_the_first_step(method: Method, words: str) -> None:
    net, data = mlp((8, 14, 3), np.random.default_rng(1)), clusters(np.random.default_rng(2), (8,))
    steps: list[int] = []
    with pytest.raises(MethodError, match=words) as caught:
        train(net, data, method, epochs=1, storage="csr", progress=lambda state: steps.append(state.step))
    assert not steps and "\n" not in str(caught.value)
    assert train(net, data, method, epochs=1, storage="masked").steps > 0


def test_what_is_no_format_or_does_not_fit_is_refused() -> None:
    net, data = mlp((8, 14, 3), np.random.default_rng(1)), clusters(np.random.default_rng(2), (8,))
    with pytest.raises(UnknownNameError, match="Did you mean 'csr'"):
        train(net, data, Dense(), storage="csrr")
    with pytest.raises(SparseFormatError, match="layer 'fc1', condensed weight"):
        train(net, data, Random(0.5), epochs=1, storage="condensed")


def test_names_are_those_of_the_formats() -> None:
    assert set(NAMES.values()) == {MASKED, *FORMATS}


def test_static_training_never_asks_for_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """From birth to the verdict on collapse; 1,600 million entries in the middle layer."""

    def dense(self: StoredWeight) -> Array:
        raise AssertionError("a matrix was asked for")

    data = clusters(np.random.default_rng(2), (8,), train=8, test=6)
    net = make_sparse("mlp:8-40000-40000-3", (8,), 3, 1 - 3e5 / 1.60044e9, allocation=ERK())
    monkeypatch.setattr(StoredWeight, "dense", dense)
    monkeypatch.setattr(StoredWeight, "mask", property(dense))
    run = train(net, data, Dense(), epochs=2, batch=4, storage="csr")
    assert run.status == "done" and run.steps == 4
    assert run.history[-1].loss < run.history[1].loss


@pytest.mark.parametrize("name", catalogue())
def test_every_method_trains_as_in_matrices_or_says_before_the_first_step_that_it_cannot(name: str) -> None:
    cls = catalogue()[name].cls
    settings = dict(CONTRACT.get(name, Case()).settings)
    if "sparsity" in {f.name for f in fields(cls)}:
        settings["sparsity"] = 0.7
    method, steps = cls(**settings), []
    net, data = mlp((8, 12, 9, 3), np.random.default_rng(1)), clusters(np.random.default_rng(2), (8,))

    def run(storage: str | None, progress: Any = lambda state: None) -> Network:
        done = train(net, data, method, epochs=3, batch=12, storage=storage, progress=progress)
        return done.network

    try:
        stored = run("csr", lambda state: steps.append(state.step))
    except MethodError:
        assert not steps
        return
    masked = run(None).prunable()
    for key, layer in stored.prunable().items():
        wanted = masked[key].weight.dense()
        assert np.abs(layer.weight.dense() - wanted).max() <= 1e-11 * np.abs(wanted).max()
        if type(masked[key].weight) is MaskedWeight and masked[key].weight.kept < wanted.size:
            assert type(layer.weight) is CSRWeight


def test_a_snapshot_of_an_older_layout_is_that_of_another_run() -> None:
    for storage in (None, "masked", *FORMATS):
        number = FORMATS[storage].layout if storage in FORMATS else 1
        assert (layout(storage) == storage) == (number == 1)
