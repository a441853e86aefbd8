"""What a traced run consists of: steps, and events, which are differences between two copies of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minisparse.data.dataset import Dataset
from minisparse.experiments.listening import Asked, Line
from minisparse.methods.base import Method
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.nn.weight import Weight
from minisparse.sparsity.count import kept_count

CLOSE = (1e-5, 1e-7)  # values this near to each other, relatively and absolutely, differ by rounding only


@dataclass(frozen=True)
class Step:
    """One step of training: loss of its batch with the penalty, learning rate, weights kept by its update."""

    step: int
    loss: float
    penalty: float
    lr: float
    kept: int


@dataclass(frozen=True, eq=False)
class Change:
    """One layer's Weight before and after: class, count of what it keeps, matrix and mask (out, in).

    extra: parameters afterwards that are not the matrix itself; 'theta' is the one it is made of.
    """

    kinds: tuple[str, str]
    kept: tuple[int, int]
    values: tuple[Array, Array]
    masks: tuple[Array, Array]
    extra: dict[str, Array]

    @property
    def left(self) -> Array:
        """(out, in) bool: present before, absent now."""
        return self.masks[0] & ~self.masks[1]

    @property
    def entered(self) -> Array:
        """(out, in) bool: absent before, present now."""
        return ~self.masks[0] & self.masks[1]

    @property
    def moved(self) -> Array:
        """(out, in) bool: present before and now, with another value."""
        same = np.isclose(self.values[0], self.values[1], *CLOSE)
        return self.masks[0] & self.masks[1] & ~same

    @property
    def rewired(self) -> bool:
        """Whether the Weight is of another class or has another mask."""
        return self.kinds[0] != self.kinds[1] or bool((self.masks[0] != self.masks[1]).any())


def change_of(before: Weight, after: Weight) -> Change:
    """The difference between two states of one layer's Weight, all arrays copied."""

    def both(read: Callable[[Weight], Any]) -> tuple[Any, Any]:
        return read(before), read(after)

    values = both(lambda w: w.dense().copy())
    extra = {key: p.value.copy() for key, p in after.params().items()}
    extra.pop("weight", None)
    matrix = after.trained().copy()
    if not np.allclose(np.where(after.mask, matrix, 0), matrix * 0 + values[1], *CLOSE):
        extra = {"theta": matrix} | extra
    kinds, kept, masks = (both(f) for f in (lambda w: type(w).__name__, lambda w: w.kept, lambda w: w.mask))
    return Change(kinds, kept, values, masks, extra)


@dataclass(frozen=True, eq=False)
class Event:
    """What one hook, or one round of it, changed.

    step       steps that were complete
    hook       the method's hook in which it happened
    layers     every prunable layer, changed or not
    others     biases and normalisations that changed: (before, after) by name
    remembers  what the method began to keep in the state's memory: shapes of arrays by names
    clock      (before, after) the position of the learning rate, if it was moved
    forgets    whether the optimiser lost what it remembered
    loss       (before, after) of all training samples
    asked      the last count asked for, of the whole network
    scores     of the method's `score`, by layer or by group of units
    gradients  dL/dW (out, in) on the batch of the last step before it, by layer
    ran        the method's functions that ran, in the order of their first call
    """

    step: int
    hook: str
    layers: dict[str, Change]
    others: dict[str, tuple[Array, Array]]
    remembers: dict[str, dict[str, tuple[int, ...]]]
    clock: tuple[int, int] | None
    forgets: bool
    loss: tuple[float, float]
    asked: Asked | None
    scores: dict[str, Array]
    gradients: dict[str, Array]
    ran: tuple[Line, ...]

    @property
    def kept(self) -> tuple[int, int]:
        """Weights present before and after."""
        before, after = (sum(c.kept[k] for c in self.layers.values()) for k in (0, 1))
        return before, after

    def total(self, what: str) -> int:
        """Entries of all layers that 'left', 'entered' or 'moved'."""
        return sum(int(getattr(change, what).sum()) for change in self.layers.values())

    @property
    def substituted(self) -> dict[str, tuple[str, str]]:
        """Layers whose Weight is of another class: (before, after)."""
        return {n: c.kinds for n, c in self.layers.items() if c.kinds[0] != c.kinds[1]}


@dataclass(eq=False)
class Trace:
    """A watched run. `calls`: every function of the method that ran, and how often; loss of all samples."""

    method: Method
    network: Network
    data: Dataset
    seed: int
    batch: int
    steps: list[Step] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    calls: list[tuple[Line, int]] = field(default_factory=list)
    loss: tuple[float, float] = (float("nan"), float("nan"))
    accuracy: float = float("nan")
    note: str = ""

    @property
    def size(self) -> int:
        """Prunable weights, absent ones included."""
        return sum(layer.weight.size for layer in self.network.prunable().values())

    @property
    def kept(self) -> int:
        """Prunable weights that are present at the end."""
        return sum(layer.weight.kept for layer in self.network.prunable().values())

    @property
    def asked(self) -> int | None:
        """Weights the method's sparsity leaves; None for a method that finds its sparsity."""
        sparsity = getattr(self.method, "sparsity", None)
        return None if sparsity is None else kept_count(self.size, sparsity)

    @property
    def history(self) -> list[Step | Event]:
        """Steps and events in the order they happened."""
        rest, merged = list(self.steps), list[Step | Event]()
        for event in self.events:
            while rest and rest[0].step <= event.step:
                merged.append(rest.pop(0))
            merged.append(event)
        return [*merged, *rest]


def as_data(trace: Trace) -> dict[str, Any]:
    """The trace as names, numbers and lists."""
    return {
        "settings": {name: repr(value) for name, value in vars(trace.method).items()},
        "network": trace.network.name,
        "layers": {name: layer.weight.shape for name, layer in trace.network.prunable().items()},
        "data": {
            "name": trace.data.name, "train": trace.data.n_train, "classes": trace.data.classes,
            "batch": trace.batch, "seed": trace.seed,
        },
        "steps": trace.steps,
        "events": [event_data(event) for event in trace.events],
        "end": {
            "accuracy": trace.accuracy, "loss_before": trace.loss[0], "loss": trace.loss[1],
            "kept": trace.kept, "size": trace.size, "asked": trace.asked, "note": trace.note,
            "weights": {n: layer.weight.dense() for n, layer in trace.network.prunable().items()},
            "masks": trace.network.masks(),
        },
        "functions": [line_data(line) | {"calls": calls} for line, calls in trace.calls],
    }  # fmt: skip


def line_data(line: Line) -> dict[str, Any]:
    """A function that ran."""
    return {"name": line.name, "place": line.place, "equations": line.equations}


def event_data(event: Event) -> dict[str, Any]:
    """One event; layers that did not change have no matrices."""
    return {
        "step": event.step,
        "hook": event.hook,
        "kept": event.kept,
        "asked": event.asked,
        "loss": event.loss,
        "layers": {name: layer_data(name, event) for name in event.layers},
        "unit_scores": {k: s for k, s in event.scores.items() if s.ndim == 1},
        "others": {k: {"before": a, "after": b} for k, (a, b) in event.others.items()},
        "remembers": event.remembers,
        "clock": event.clock,
        "optimizer_forgets": event.forgets,
        "functions": [line_data(line) for line in event.ran],
    }


def layer_data(name: str, event: Event) -> dict[str, Any]:
    """One layer of an event."""
    change = event.layers[name]
    score = event.scores.get(name)
    return {
        "weight": change.kinds,
        "kept": change.kept,
        "values": change.values,
        "masks": change.masks,
        "score": score if score is not None and score.ndim == 2 else None,
        "gradient": event.gradients.get(name),
        "parameters": change.extra,
    }
