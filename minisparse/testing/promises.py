"""What every method promises: functions of a trial that raise AssertionError if the promise is broken.

A trial is a method on one small network, trained for four epochs of three steps on three clusters; a promise
that has variants is tried in each of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Any

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.errors import MethodError
from minisparse.methods.base import Method
from minisparse.methods.dense import Dense
from minisparse.nn.lr import Cosine
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD, Adam, AdamW, Optimizer
from minisparse.sparsity import (
    Allocation,
    Control,
    Pattern,
    Schedule,
    parse_allocation,
    parse_control,
    parse_pattern,
    parse_schedule,
    to_text,
)
from minisparse.testing.case import Case, asked_count, kept, size
from minisparse.testing.problems import DEGENERATE, NETWORKS, VIOLATIONS, data_for
from minisparse.training.run import Run, train
from minisparse.training.state import TrainState

EPOCHS, BATCH, STEPS = 4, 16, 12
OPTIMIZERS: Mapping[str, Callable[[], Optimizer]] = {
    "momentum": lambda: SGD(0.9, weight_decay=1e-2),
    "nesterov": lambda: SGD(0.9, nesterov=True, weight_decay=1e-2),
    "adam": lambda: Adam(weight_decay=1e-2),
    "adamw": lambda: AdamW(weight_decay=1e-2),
}
AXES: tuple[tuple[type, Callable[[str], Any]], ...] = (
    (Schedule, parse_schedule),
    (Allocation, parse_allocation),
    (Pattern, parse_pattern),
    (Control, parse_control),
)


@dataclass(frozen=True)
class Trial:
    """A method under its settings for the checks, what is particular about it, a network and a variant."""

    method: Method
    case: Case
    kind: str = ""
    variant: str = ""

    def network(self) -> Network:
        """A new network of this kind, always the same."""
        return NETWORKS[self.kind]()


def demand(condition: bool, text: str) -> None:
    """AssertionError with this text unless the condition holds."""
    if not condition:
        raise AssertionError(text)


def run(
    network: Network, method: Method, data: Dataset | None = None, optimizer: str = "momentum", seed: int = 0,
    progress: Callable[[TrainState], None] = lambda state: None,
) -> Run:  # fmt: skip
    """Four epochs of three steps, on clusters unless told otherwise."""
    found = train(
        network, data or data_for(network), method, epochs=EPOCHS, batch=BATCH,
        optimizer=OPTIMIZERS[optimizer](), rate=Cosine(0.03), seed=seed, progress=progress,
    )  # fmt: skip
    demand(found.status != "diverged", found.note)
    return found


def difference(a: Network, b: Network) -> str:
    """The first thing in which two networks differ, '' if they are the same bit for bit."""
    first, second = a.state(), b.state()
    if first.keys() != second.keys():
        return f"parameters {sorted(first.keys() ^ second.keys())}"
    for key, array in first.items():
        if not np.array_equal(array, second[key]):
            return f"'{key}'"
    others = b.masks()
    return next((f"mask of '{n}'" for n, m in a.masks().items() if not np.array_equal(m, others[n])), "")


def absent_is_zero(state: TrainState) -> None:
    """Weights, gradients and the optimiser's slots are 0 where the mask is False, and `kept` counts it."""
    at = f"after step {state.step} "
    for name, layer in state.network.prunable().items():
        mask = layer.weight.mask
        counted = int(np.count_nonzero(mask))
        demand(
            layer.weight.kept == counted,
            f"{at}kept of '{name}' is {layer.weight.kept}, its mask has {counted}",
        )
        held = {f"weight of '{name}'": layer.weight.dense()}
        for key, p in layer.weight.params().items():
            held |= {f"parameter '{name}.{key}'": p.value, f"gradient of '{name}.{key}'": p.grad}
            slots = state.optimizer.slots.get(f"{name}.{key}", {})
            held |= {f"slot '{slot}' of '{name}.{key}'": array for slot, array in slots.items()}
        for what, array in held.items():
            if array.shape == mask.shape:
                many = int(np.count_nonzero(array[~mask]))
                demand(not many, f"{at}{what} is not 0 at {many} absent entries")


def count_is_right(trial: Trial, method: Method, network: Network) -> None:
    """The number of kept weights is the one asked for, within the slack."""
    if trial.case.counts:
        got, asked, slack = kept(network), asked_count(method, network), trial.case.slack(network)
        within = f" within {slack}" if slack else ""
        demand(abs(got - asked) <= slack, f"kept {got} of {size(network)} weights, expected {asked}{within}")


def sparse(trial: Trial) -> None:
    """The kept count is exact, and what is absent is 0 after every step."""
    steps: list[int] = []

    def watch(state: TrainState) -> None:
        steps.append(state.step)
        if trial.case.zeros:
            absent_is_zero(state)

    found = run(trial.network(), trial.method, optimizer=trial.variant, progress=watch)
    length = trial.method.length(STEPS)
    demand(steps == list(range(length + 1)), f"it made {steps[-1]} steps, its length is {length}")
    count_is_right(trial, trial.method, found.network)


def dense_if_nothing_leaves(trial: Trial) -> None:
    """Settings that prune nothing give dense training, bit for bit."""
    method, network = replace(trial.method, **(trial.case.nothing or {})), trial.network()
    found = run(network, method, seed=3).network
    demand(kept(found) == size(network), f"{size(network) - kept(found)} weights are absent under {method}")
    other = difference(found, run(network, Dense(), seed=3).network)
    demand(not other, f"{other} is not that of dense training under {method}")


def seeded(trial: Trial) -> None:
    """The seed fixes every bit of the result, and another seed gives another."""
    first, again, other = (run(trial.network(), trial.method, seed=s).network for s in (5, 5, 6))
    found = difference(first, again)
    demand(not found, f"{found} is another one when the same seed is run again")
    demand(bool(difference(first, other)), "another seed gives the same network")


def leaves_its_arguments_alone(trial: Trial) -> None:
    """Training changes neither the network nor the data nor the method."""
    network, method = trial.network(), trial.method
    data = data_for(network)
    arrays = {part: getattr(data, part) for part in ("train_x", "train_y", "test_x", "test_y")}
    twin, copies = network.copy(), {part: array.copy() for part, array in arrays.items()}
    before = hash(method), repr(method)
    found = run(network, method, data=data)
    demand(found.network is not network and found.method is method, "the network given is the one returned")
    changed = difference(network, twin)
    demand(not changed, f"{changed} of the network given is changed")
    for part, array in arrays.items():
        demand(np.array_equal(array, copies[part]), f"{part} is changed")
    demand(
        (hash(method), repr(method)) == before, "the method itself is changed; keep what changes in the state"
    )


def to_json(method: Method) -> str:
    """All settings, schedules and their like as text."""
    values = {f.name: getattr(method, f.name) for f in fields(method)}
    on_axis = Schedule | Allocation | Pattern | Control
    return json.dumps({k: to_text(v) if isinstance(v, on_axis) else v for k, v in values.items()})


def from_json(cls: type[Method], text: str) -> Method:
    """The method of these settings; schedules and their like are known by the class's defaults."""
    values = json.loads(text)
    for f in fields(cls):
        for kind, parse in AXES:
            if isinstance(f.default, kind):
                values[f.name] = parse(values[f.name])
    return cls(**values)


def a_value(trial: Trial) -> None:
    """It is a frozen value that compares, hashes and goes through JSON, and every setting is explained."""
    method, cls = trial.method, type(trial.method)
    demand(
        method == replace(method) and hash(method) == hash(replace(method)), "a copy of it is not equal to it"
    )
    for value in (method, cls()):
        demand(from_json(cls, to_json(value)) == value, f"{value} is another one after going through JSON")
    demand(bool(cls.__doc__), "its class has no docstring")
    for f in fields(cls):
        demand(
            bool(f.metadata.get("help")), f"setting '{f.name}' has no explanation; declare it by `setting`"
        )
        try:
            setattr(method, f.name, None)
        except FrozenInstanceError:
            continue
        demand(False, f"setting '{f.name}' can be changed; declare the class a frozen dataclass")


def survives_degenerate_layers(trial: Trial) -> None:
    """Single rows, equal weights and zero gradients give finite weights and the same counts."""
    network, data = DEGENERATE[trial.variant](trial.kind)
    found = run(network, trial.method, data=data).network
    for key, array in found.state().items():
        demand(bool(np.isfinite(array).all()), f"'{key}' is not finite")
    count_is_right(trial, trial.method, found)


def refuses_what_it_cannot_use(trial: Trial) -> None:
    """A network that lacks what `needs` declares is refused before the first step."""
    method = trial.method
    unknown = set(method.needs) - set(VIOLATIONS)
    demand(not unknown, f"no network of minisparse.testing.problems lacks {sorted(unknown)}")
    for need in sorted(method.needs):
        network = VIOLATIONS[need]()
        try:
            train(network, data_for(network), method, epochs=1)
        except MethodError as refusal:
            demand(
                need in str(refusal), f"its refusal of a network without {need} does not say so: {refusal}"
            )
            continue
        demand(False, f"it trains a network without {need}")


def tells_its_history(trial: Trial) -> None:
    """The history has a record of every epoch and of the end."""
    found = run(trial.network(), trial.method)
    length = trial.method.length(STEPS)
    expected = sorted({*range(0, length + 1, STEPS // EPOCHS), length})
    told = [record.step for record in found.history]
    demand(told == expected, f"its history has the steps {told}, expected {expected}")
    demand(found.steps == length, f"it made {found.steps} steps, its length is {length}")
    for r in found.history:
        usable = np.isfinite(r.test_loss) and 0 <= r.accuracy <= 1 and 0 <= r.sparsity < 1
        demand(bool(usable and (r.step == 0 or np.isfinite(r.loss))), f"its history has the record {r}")
    share = 1 - kept(found.network) / size(found.network)
    demand(
        found.history[-1].sparsity == found.sparsity == share,
        f"its last record is not of sparsity {share:.4f}",
    )


@dataclass(frozen=True)
class Promise:
    """A check, whether it is made on networks, its variants, and which exception of a case excuses it."""

    check: Callable[[Trial], None]
    on_networks: bool = True
    variants: tuple[str, ...] = ("",)
    excused: Callable[[Case], bool] = lambda case: False

    @property
    def text(self) -> str:
        """What is promised."""
        return (self.check.__doc__ or "").strip()


PROMISES: Mapping[str, Promise] = {
    "sparse": Promise(sparse, variants=tuple(OPTIMIZERS)),
    "nothing": Promise(dense_if_nothing_leaves, excused=lambda case: case.nothing is None),
    "seed": Promise(seeded),
    "arguments": Promise(leaves_its_arguments_alone),
    "value": Promise(a_value, on_networks=False),
    "degenerate": Promise(survives_degenerate_layers, variants=tuple(DEGENERATE)),
    "needs": Promise(refuses_what_it_cannot_use, on_networks=False),
    "history": Promise(tells_its_history),
}
