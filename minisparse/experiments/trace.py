"""One method on a network small enough to print: every change it makes, with the numbers as they were.

The run is the one that `train` makes of the same arguments, bit for bit. It is watched from three sides, none
of which computes anything the run uses:

    hooks of the method     the network is copied before and after each
    rewire, rewire_flat     copied before they act too, so that several rounds are seen one by one
    functions that run      `listening`: which equations, which scores, which counts were asked for

What differs between two copies is an event. A step of the optimiser alone is none, unless masks that the
parameters decide themselves change in it; nor is a call of `rewire` with the masks that are there already.
Losses of events are those of all training samples in evaluation mode, computed on the copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import numpy as np

from minisparse.data.batches import batches, probe, steps_per_epoch
from minisparse.data.dataset import Dataset
from minisparse.experiments.events import CLOSE, Event, Step, Trace, change_of
from minisparse.experiments.listening import Heard, Listener
from minisparse.experiments.miniature import clusters, network_for
from minisparse.methods.base import Method
from minisparse.nn.loss import LOSSES
from minisparse.nn.lr import Cosine
from minisparse.nn.network import Network
from minisparse.nn.optim import SGD
from minisparse.nn.param import Array
from minisparse.training.collapse import collapse
from minisparse.training.loop import fit
from minisparse.training.run import PROBE_PER_CLASS, evaluate
from minisparse.training.state import TrainState

EPOCHS, BATCH, LR = 4, 8, 0.3
LOSS = "cross-entropy"


@dataclass(frozen=True, eq=False)
class Moment:
    """Copies of all that an event may change."""

    network: Network
    clock: int
    memory: dict[str, dict[str, tuple[int, ...]]]
    slots: bool


def moment(state: TrainState) -> Moment:
    """The state as it is now."""
    memory = {key: {k: np.shape(a) for k, a in kept.items()} for key, kept in state.memory.items()}
    slots = any(state.optimizer.slots.values())
    return Moment(state.network.copy(), state.clock, memory, slots)


def other_params(network: Network) -> dict[str, Array]:
    """Values of all parameters that belong to no Weight."""
    layers = network.prunable().items()
    own = {f"{name}.{key}" for name, layer in layers for key in layer.weight.params()}
    return {name: p.value for name, p in network.params().items() if name not in own}


class Recorder:
    """Turns what happens to a state into steps and events of a trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.listener = Listener(trace.method, trace.size)
        self.hook = ""
        self.start: Moment | None = None
        self.heard: Heard | None = None  # what led to the change of topology that is under way
        self.gradients: dict[str, Array] = {}
        self.penalty = 0.0
        self.lr = 0.0
        self.kept = trace.kept

    @contextmanager
    def during(self, hook: str, state: TrainState) -> Iterator[None]:
        """Watch one hook."""
        with self.listener.pause():
            if hook == "penalty":  # the first thing after the backward pass of a step
                self.gradients = {n: x.dense_grad() for n, x in state.network.prunable().items()}
            self.hook, self.start, self.heard = hook, moment(state), None
            self.listener.forget()
        yield
        with self.listener.pause():
            rest = self.listener.heard
            self._note(state, rest if self.heard is None else self.heard.then(rest))
            self.start = None
            if hook == "update":
                self.kept = self.trace.kept

    def turn(self, state: TrainState) -> None:
        """The topology is about to change: what came before in this hook is an event of its own."""
        if self.start is None or state.network is not self.trace.network:
            return
        with self.listener.pause():
            self._note(state, self.heard or Heard())
            self.start, self.heard = moment(state), self.listener.heard
            self.listener.forget()

    def _note(self, state: TrainState, heard: Heard) -> None:
        event = self._event(state, heard)
        if event is not None:
            self.trace.events.append(event)

    def _event(self, state: TrainState, heard: Heard) -> Event | None:
        """What is different from the start, None if nothing is, or nothing but what an optimiser does."""
        assert self.start is not None
        a, b = self.start, moment(state)
        old, new = a.network.prunable(), b.network.prunable()
        layers = {name: change_of(layer.weight, new[name].weight) for name, layer in old.items()}
        values = other_params(b.network)
        others = {
            name: (v, values[name])
            for name, v in other_params(a.network).items()
            if v.shape != values[name].shape or not np.allclose(v, values[name], *CLOSE)
        }
        clock = (a.clock, b.clock) if a.clock != b.clock else None
        remembers = {key: shapes for key, shapes in b.memory.items() if key not in a.memory}
        forgets = a.slots and not b.slots
        happened = bool(remembers) or forgets or clock is not None or any(c.rewired for c in layers.values())
        if self.hook != "update" or self.heard is not None:
            happened |= bool(others) or any(c.moved.any() for c in layers.values())
        if not happened:
            return None
        return Event(
            state.step, self.hook, layers, others, remembers, clock, forgets,
            (self.loss(a.network), self.loss(b.network)), heard.asked, heard.scores, self.gradients,
            tuple(self.listener.line(code) for code in heard.ran),
        )  # fmt: skip

    def loss(self, network: Network) -> float:
        """Mean loss of a copied network on all training samples, in evaluation mode."""
        data = self.trace.data
        return evaluate(network, LOSSES[LOSS](), data.train_x, data.train_y)[0]

    def step_done(self, state: TrainState) -> None:
        """A step and all that belongs to it are complete."""
        if state.step:
            self.trace.steps.append(Step(state.step, state.value, self.penalty, self.lr, self.kept))


@dataclass
class WatchedState(TrainState):
    """A TrainState that tells a recorder before topology changes."""

    recorder: Recorder | None = None

    def rewire(self, masks: dict[str, Array]) -> None:
        if self.recorder is not None:
            self.recorder.turn(self)
        super().rewire(masks)

    def rewire_flat(self, flats: dict[str, Array]) -> None:
        if self.recorder is not None:
            self.recorder.turn(self)
        super().rewire_flat(flats)


@dataclass(frozen=True)
class WatchedMethod(Method):
    """Calls the hooks of another method, watched."""

    method: Method
    recorder: Recorder

    def length(self, horizon: int) -> int:
        return self.method.length(horizon)

    def setup(self, state: TrainState) -> None:
        with self.recorder.during("setup", state):
            self.method.setup(state)

    def before_forward(self, state: TrainState) -> None:
        with self.recorder.during("before_forward", state):
            self.method.before_forward(state)

    def penalty(self, state: TrainState) -> float:
        with self.recorder.during("penalty", state):
            self.recorder.penalty = self.method.penalty(state)
        return self.recorder.penalty

    def update(self, state: TrainState) -> None:
        self.recorder.lr = state.lr
        with self.recorder.during("update", state):
            self.method.update(state)

    def after_update(self, state: TrainState) -> None:
        with self.recorder.during("after_update", state):
            self.method.after_update(state)

    def finish(self, state: TrainState) -> None:
        with self.recorder.during("finish", state):
            self.method.finish(state)


def stream(data: Dataset, seed: int) -> Iterator[tuple[Array, Array]]:
    """All batches of all epochs."""
    for epoch in count():
        yield from batches(data, BATCH, seed, epoch)


def trace(method: Method, seed: int = 0) -> Trace:
    """Watch `train(network, data, method, epochs=EPOCHS, batch=BATCH, rate=Cosine(LR), seed=seed)`.

    Network and data are those of `miniature`. Raises MethodError if the method accepts none of its networks.
    """
    network = network_for(method, seed)
    data = clusters(network.input_shape, seed)
    sample = probe(data, PROBE_PER_CLASS, seed)
    per_epoch = steps_per_epoch(data.n_train, BATCH)
    found = Trace(method, network, data, seed, BATCH)
    recorder = Recorder(found)
    state = WatchedState(
        network, SGD(), LOSSES[LOSS](), Cosine(LR), seed, EPOCHS * per_epoch, per_epoch,
        data.train_x, data.train_y, sample.x, sample.y, recorder=recorder,
    )  # fmt: skip
    first = recorder.loss(network.copy())
    with recorder.listener.listening():
        fit(state, WatchedMethod(method, recorder), stream(data, seed), recorder.step_done)
    found.loss = first, recorder.loss(network.copy())
    found.accuracy = evaluate(network.copy(), LOSSES[LOSS](), data.test_x, data.test_y)[1]
    found.note = collapse(network.copy(), sample.x) or ""
    heard = recorder.listener
    found.calls = [(heard.line(code), calls) for code, calls in heard.calls.items()]
    network.release()
    return found
