"""What every method of the catalogue promises, on a perceptron and on a small residual network.

A new method is tested without being named here. It gets an entry in CASES if its defaults are too long for
twelve steps, or if it keeps a promise in another way, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pytest

import minisparse
from minisparse.data.dataset import Dataset
from minisparse.errors import MethodError
from minisparse.methods.base import NEEDS, Method
from minisparse.methods.dense import Dense
from minisparse.methods.registry import catalogue
from minisparse.nn.lr import Cosine
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm1d
from minisparse.nn.optim import SGD, Adam, AdamW, Optimizer
from minisparse.sparsity import (
    Allocation,
    Control,
    Pattern,
    Schedule,
    kept_count,
    parse_allocation,
    parse_control,
    parse_pattern,
    parse_schedule,
    to_text,
)  # fmt: skip
from minisparse.sparsity.groups import groups_of
from minisparse.training.run import Run, train
from minisparse.training.state import TrainState
from tests.methods.problems import clusters, conv_net, mlp


@dataclass(frozen=True)
class Case:
    """How a method is run here, and where it keeps a promise in its own way.

    settings    beside the sparsity, for a run of 12 steps
    counts      the final number of kept weights is the one the sparsity asks for
    slack       by how many weights it may differ, of this network; 0 unless whole units are removed
    zeros       weight, gradient and slots of absent entries are 0 after every step
    nothing     settings under which the method must be dense training, bit for bit; None if there are none
    reason      why, if a promise is not the usual one
    """

    settings: dict[str, Any] = field(default_factory=dict)
    counts: bool = True
    slack: Callable[[Network], int] = lambda network: 0
    zeros: bool = True
    nothing: dict[str, Any] | None = field(default_factory=lambda: {"sparsity": 0.0})
    reason: str = ""


def largest_row(network: Network) -> int:
    return max(layer.weight.shape[1] for layer in network.prunable().values())


def largest_unit(network: Network) -> int:
    """Weights that leave with the unit of a group that has the most, in rows and columns."""
    layers, most = network.prunable(), 0
    for group in groups_of(network):
        rows = sum(layers[name].weight.shape[1] * index.shape[1] for name, index in group.producers)
        columns = sum(layers[name].weight.shape[0] * index.shape[1] for name, index in group.consumers)
        most = max(most, rows + columns)
    return most


UNITS = Case(slack=largest_unit, reason="whole units leave: the count is the nearest that units can make")
ROWS = Case(slack=largest_row, reason="whole rows leave: the count is the nearest that rows can make")

CASES: dict[str, Case] = {
    "c-obd": ROWS,
    "c-obs": ROWS,
    "kron-obd": ROWS,
    "kron-obs": ROWS,
    "eigendamage": Case(
        counts=False,
        zeros=False,
        reason="rows and columns of a bottleneck leave, of which some must stay; what they span is dense",
    ),
    "dense": Case(nothing={}),
    "dctps": Case(
        {"support": "rigl", "every": 2},
        zeros=False,
        nothing={"sparsity": 0.0, "offset": False},
        reason="no entry of W is 0: the count is that of its sparse part, where the offset is added to it",
    ),
    "imp": Case({"rounds": 2, "rewind": 0.25}),
    "scratch": Case({"budget": 2}),
    "early-bird": Case({"window": 2, "threshold": 0.3}),
    "amc": Case(
        {"episodes": 4, "warmup": 2, "validation": 24, "samples": 24},
        counts=False,
        reason="the sparsity is a share of MACs, and what the agent finds may cost less",
    ),
    "channel-pruning": Case(
        {"samples": 32},
        counts=False,
        reason="whole channels leave, those of residual streams stay: never more weights than asked, or one "
        "channel each",
    ),
    "filter-norm": UNITS,
    "taylor": UNITS,
    "group-lasso": replace(UNITS, nothing={"sparsity": 0.0, "strength": 0.0}),
    "slimming": replace(UNITS, nothing={"sparsity": 0.0, "strength": 0.0}),
    "rigl": Case({"every": 2, "alpha": 0.6}),
    "srigl": Case(
        {"every": 2, "alpha": 0.6},
        counts=False,
        reason="equal fan-ins: up to one weight a unit is left over",
    ),
    "topkast": Case(
        zeros=False,
        nothing={"sparsity": 0.0, "decay": 0.0},
        reason="weights that are not used keep their value and may be trained; its penalty is a weight decay",
    ),
    "granet": Case({"every": 2}),
    "itop": Case({"every": 2}),
    "mest": Case({"every": 2}),
    "importance-pruning": Case(
        {"begin": 0.0, "every": 1},
        counts=False,
        nothing={"sparsity": 0.0, "share": 0.0},
        reason="weights of removed units leave beside those that are exchanged",
    ),
    "dsr": Case({"every": 2, "move": 0.3, "threshold": 0.05}),
    "l0": Case(
        counts=False,
        zeros=False,
        nothing=None,
        reason="sparsity is found; a shut gate leaves its weight's value; gates are never surely open",
    ),
    "movement": Case(
        zeros=False, reason="a masked weight keeps its value and is scored, so that it may return"
    ),
    "powerprop": Case(nothing={"sparsity": 0.0, "alpha": 1.0}),
    "soft-movement": Case(
        counts=False,
        zeros=False,
        nothing={"threshold": 0.0},
        reason="sparsity is found; a masked weight keeps its value, as in movement",
    ),
    "sr-ste": Case(
        {"keep": 1, "of": 2},
        counts=False,
        zeros=False,
        nothing={"keep": 2, "of": 2},
        reason="N:M sets the sparsity, columns left over stay; masked weights train straight through",
    ),
    "str": Case(
        counts=False,
        zeros=False,
        nothing={"initial": -100.0, "decay": 0.0},
        reason="sparsity is found; a weight below the threshold keeps its value",
    ),
    "subspace": Case(
        {"dimension": 5},
        nothing=None,
        reason="all weights are kept; with all directions it is dense training up to rounding only",
    ),
    "variational-dropout": Case(
        counts=False,
        zeros=False,
        nothing=None,
        reason="sparsity is found; an absent weight keeps mean and variance; noise is never nothing",
    ),
}

NAMES = list(catalogue())
SPARSITY = 0.7
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "momentum": lambda: SGD(0.9, weight_decay=1e-2),
    "nesterov": lambda: SGD(0.9, nesterov=True, weight_decay=1e-2),
    "adam": lambda: Adam(weight_decay=1e-2),
    "adamw": lambda: AdamW(weight_decay=1e-2),
}
NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": lambda: mlp((8, 12, 9, 3), np.random.default_rng(1), dtype=np.float32),
    "conv": lambda: conv_net(np.random.default_rng(1), np.float32),
}
NARROW: dict[str, Callable[[], Network]] = {
    "mlp": lambda: mlp((8, 1, 3), np.random.default_rng(1), dtype=np.float32),
    "conv": lambda: conv_net(np.random.default_rng(1), np.float32, width=1),
}
# a network that lacks what each need asks for
VIOLATIONS: dict[str, Callable[[], Network]] = {
    "prunable layers": lambda: Network({"norm": BatchNorm1d(8)}, (8,)),
    "hidden units": lambda: mlp((8, 3), np.random.default_rng(0)),
    "normalised hidden units": lambda: mlp((8, 5, 3), np.random.default_rng(0)),
    "homogeneous activations": lambda: mlp((8, 5, 3), np.random.default_rng(0), activation="tanh"),
}


def case_of(name: str) -> Case:
    return CASES.get(name, Case())


def make(name: str, **changes: Any) -> Method:
    """The method at the sparsity of this file, if it has such a setting."""
    cls = catalogue()[name].cls
    known = {f.name for f in fields(cls)}
    asked = {"sparsity": SPARSITY} if "sparsity" in known else {}
    return cls(**(asked | case_of(name).settings | changes))


def suits(method: Method, network: Network) -> bool:
    try:
        method.check(network)
    except MethodError:
        return False
    return True


PAIRS = [(name, kind) for name in NAMES for kind in NETWORKS if suits(make(name), NETWORKS[kind]())]


def data_for(network: Network) -> Dataset:
    return clusters(np.random.default_rng(2), network.input_shape)


def run(network: Network, method: Method, optimizer: str = "momentum", **settings: Any) -> Run:
    """Four epochs of three steps, on data of three clusters unless told otherwise."""
    data = settings.pop("data", None) or data_for(network)
    usual = {"epochs": 4, "batch": 16, "optimizer": OPTIMIZERS[optimizer](), "rate": Cosine(0.03)}
    found = train(network, data, method, **(usual | settings))
    assert found.status != "diverged", found.note
    return found


def kept(network: Network) -> int:
    return sum(layer.weight.kept for layer in network.prunable().values())


def size(network: Network) -> int:
    return sum(layer.weight.size for layer in network.prunable().values())


def asked_count(method: Method, network: Network) -> int:
    return kept_count(size(network), getattr(method, "sparsity", 0.0))


def assert_equal_states(a: Network, b: Network) -> None:
    first, second = a.state(), b.state()
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
    for name, mask in a.masks().items():
        np.testing.assert_array_equal(mask, b.masks()[name])


def absent_entries_are_zero(state: TrainState) -> None:
    for name, layer in state.network.prunable().items():
        mask = layer.weight.mask
        assert layer.weight.kept == np.count_nonzero(mask)
        assert not layer.weight.dense()[~mask].any(), f"step {state.step}: weight of {name}"
        for key, p in layer.weight.params().items():
            if p.value.shape == mask.shape:
                assert not p.value[~mask].any(), f"step {state.step}: parameter of {name}"
                assert not p.grad[~mask].any(), f"step {state.step}: gradient of {name}"
            for slot, array in state.optimizer.slots.get(f"{name}.{key}", {}).items():
                if array.shape == mask.shape:
                    assert not array[~mask].any(), f"step {state.step}: slot {slot} of {name}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_count_is_exact_and_what_is_absent_stays_zero(name, kind, optimizer):
    network, method, case = NETWORKS[kind](), make(name), case_of(name)
    steps = []

    def watch(state: TrainState) -> None:
        steps.append(state.step)
        if case.zeros:
            absent_entries_are_zero(state)

    found = run(network, method, optimizer, progress=watch)
    assert steps == list(range(method.length(12) + 1))
    if case.counts:
        assert abs(kept(found.network) - asked_count(method, network)) <= case.slack(network)


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n, k in PAIRS if case_of(n).nothing is not None])
def test_pruning_nothing_is_dense_training_bit_for_bit(name, kind):
    network = NETWORKS[kind]()
    found = run(network, make(name, **(case_of(name).nothing or {})), seed=3)
    assert kept(found.network) == size(network)
    assert_equal_states(found.network, run(network, Dense(), seed=3).network)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_seed_fixes_every_bit_and_another_seed_does_not(name, kind):
    network, method = NETWORKS[kind](), make(name)
    first, again, other = (run(network, method, seed=s).network for s in (5, 5, 6))
    assert_equal_states(first, again)
    assert any((first.state()[key] != other.state()[key]).any() for key in first.state())


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_training_changes_neither_network_nor_data_nor_method(name, kind):
    network, method = NETWORKS[kind](), make(name)
    data = data_for(network)
    twin, arrays = network.copy(), [a.copy() for a in (data.train_x, data.train_y, data.test_x, data.test_y)]
    before, settings = hash(method), repr(method)
    found = run(network, method, data=data)
    assert found.network is not network and found.method is method
    assert_equal_states(network, twin)
    for a, b in zip(arrays, (data.train_x, data.train_y, data.test_x, data.test_y), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (hash(method), repr(method)) == (before, settings)


AXES = (
    (Schedule, parse_schedule),
    (Allocation, parse_allocation),
    (Pattern, parse_pattern),
    (Control, parse_control),
)


def to_json(method: Method) -> str:
    axes = tuple(kind for kind, _ in AXES)
    values = {f.name: getattr(method, f.name) for f in fields(method)}
    return json.dumps({k: to_text(v) if isinstance(v, axes) else v for k, v in values.items()})


def from_json(cls: type[Method], text: str) -> Method:
    """Axis settings are known by the type of the class's default."""
    values = json.loads(text)
    for f in fields(cls):
        for kind, parse in AXES:
            if isinstance(f.default, kind):
                values[f.name] = parse(values[f.name])
    return cls(**values)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_a_value(name):
    method, cls = make(name), catalogue()[name].cls
    assert method == make(name) and hash(method) == hash(make(name))
    assert from_json(cls, to_json(method)) == method
    assert from_json(cls, to_json(cls())) == cls()
    for f in fields(cls):
        assert f.metadata.get("help"), f"setting {f.name} of {name} has no explanation"
        with pytest.raises(FrozenInstanceError):
            setattr(method, f.name, None)


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_says_what_a_method_is(name):
    entry = catalogue()[name]
    assert entry.cls.__doc__ and entry.family and entry.paper
    assert 20 < len(entry.idea) <= 110 and entry.idea.endswith(".")
    assert getattr(minisparse, entry.cls.__name__) is entry.cls
    assert any(pair[0] == name for pair in PAIRS), "no network of this file suits it"


def uniform_weights(network: Network) -> Network:
    """All weights of a layer equal."""
    for layer in network.prunable().values():
        layer.weight.assign(np.full(layer.weight.shape, 0.25, dtype=np.float32))
    return network


def silent_data(network: Network) -> Dataset:
    """Regression of zeros on zeros: with biases 0 every output and every gradient is 0."""
    x, y = np.zeros((48, *network.input_shape), np.float32), np.zeros((48, network.outputs), np.float32)
    return Dataset("silent", x, y, x, y, None)


def without_biases(network: Network) -> Network:
    for layer in network.prunable().values():
        if layer.bias is not None:
            layer.bias.set(np.zeros_like(layer.bias.value))
    return network


DEGENERATE: dict[str, Callable[[str], tuple[Network, Dataset | None]]] = {
    "one row": lambda kind: (NARROW[kind](), None),
    "equal weights": lambda kind: (uniform_weights(NETWORKS[kind]()), None),
    "no gradient": lambda kind: (without_biases(NETWORKS[kind]()), silent_data(NETWORKS[kind]())),
}


@pytest.mark.parametrize("problem", DEGENERATE)
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_degenerate_layers_give_finite_weights_and_exact_counts(name, kind, problem):
    network, data = DEGENERATE[problem](kind)
    method = make(name)
    found = run(network, method, data=data)
    assert all(np.isfinite(value).all() for value in found.network.state().values())
    case = case_of(name)
    if case.counts:
        assert abs(kept(found.network) - asked_count(method, network)) <= case.slack(network)


@pytest.mark.parametrize("name", NAMES)
def test_unmet_needs_are_refused_before_the_first_step(name):
    method = make(name)
    missing = set(method.needs) - set(VIOLATIONS)
    assert not missing, f"give VIOLATIONS a network without {missing}"
    for need in method.needs:
        network = VIOLATIONS[need]()
        data = clusters(np.random.default_rng(0), network.input_shape, classes=network.outputs)
        with pytest.raises(MethodError, match=need):
            train(network, data, method, epochs=1)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_history_tells_every_epoch_and_the_end(name, kind):
    method = make(name)
    found = run(NETWORKS[kind](), method)
    length = method.length(12)
    assert [r.step for r in found.history] == sorted({*range(0, length + 1, 3), length})
    assert found.steps == length and found.seconds > 0 and found.method == method
    for record in found.history:
        assert np.isfinite(record.test_loss) and 0 <= record.accuracy <= 1 and 0 <= record.sparsity < 1
        assert record.step == 0 or np.isfinite(record.loss)
    assert found.history[-1].sparsity == found.sparsity == 1 - kept(found.network) / size(found.network)


def test_exceptions_are_declared_with_a_reason_and_belong_to_a_method():
    assert set(CASES) <= set(NAMES)
    assert set(VIOLATIONS) <= set(NEEDS)
    for name, case in CASES.items():
        usual = case.counts and case.zeros and case.nothing is not None
        assert usual or case.reason, f"case {name} gives no reason"
