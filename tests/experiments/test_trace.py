"""A traced run is the run that is traced, and what its events say is what happened."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest

from minisparse.cli.console import plain
from minisparse.errors import MethodError
from minisparse.experiments.events import Event, Step, Trace, as_data
from minisparse.experiments.listening import Asked, Listener, equations_of
from minisparse.experiments.miniature import (
    CLASSES,
    LIGHT,
    NETWORKS,
    TRAIN,
    clusters,
    demonstration,
    network_for,
)
from minisparse.experiments.trace import BATCH, EPOCHS, LOSS, LR, trace
from minisparse.methods.base import Method, Scored, layer_shapes, setting
from minisparse.methods.dynamic.rigl import RigL
from minisparse.methods.initial.force import FORCE
from minisparse.methods.lottery.imp import IMP
from minisparse.methods.reconstruct.sparsegpt import SparseGPT
from minisparse.methods.registry import catalogue
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.methods.structured.filter_norm import FilterNorm
from minisparse.nn.conv import Conv2d
from minisparse.nn.loss import LOSSES
from minisparse.nn.lr import Cosine
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity import kept_count
from minisparse.sparsity.schedule import Cubic, Exponential, OneShot
from minisparse.training.run import evaluate, train
from minisparse.training.state import TrainState

NAMES = list(catalogue())


@cache
def traced(name: str) -> Trace:
    return trace(demonstration(catalogue()[name].cls))


@dataclass
class Seen:
    """What an untraced run was after a step, and the loss of its batch."""

    masks: dict[str, Array]
    values: dict[str, Array]
    kept: int
    loss: float
    value: float


def plainly(method: Method) -> tuple[Network, dict[int, Seen]]:
    """The same training by `train`, with another callback."""
    network = network_for(method, 0)
    data = clusters(network.input_shape, 0)
    seen = {}

    def watch(state: TrainState) -> None:
        layers = state.network.prunable()
        loss = evaluate(state.network.copy(), LOSSES[LOSS](), data.train_x, data.train_y)[0]
        kept = sum(layer.weight.kept for layer in layers.values())
        values = {name: layer.weight.dense().copy() for name, layer in layers.items()}
        seen[state.step] = Seen(state.network.masks(), values, kept, loss, state.value)

    run = train(
        network,
        data,
        method,
        epochs=EPOCHS,
        batch=BATCH,
        rate=Cosine(LR),
        loss=LOSS,
        progress=watch,
        strict=False,
    )
    assert run.status != "diverged"
    return run.network, seen


def last_before(events: list[Event], step: int) -> Event | None:
    """The last event that lies before the end of this step's after_update."""
    within = ("before_forward", "penalty", "update")
    past = [e for e in events if e.hook != "finish" and e.step + (e.hook in within) <= step]
    return past[-1] if past else None


@pytest.mark.parametrize("name", NAMES)
def test_a_traced_run_is_the_run_of_train_and_its_events_tell_all_masks_counts_and_losses(name: str) -> None:
    found = traced(name)
    network, seen = plainly(found.method)
    state = network.state()
    assert state.keys() == found.network.state().keys()
    for key, array in found.network.state().items():
        np.testing.assert_array_equal(array, state[key], err_msg=key)
    assert [s.step for s in found.steps] == list(seen)[1:] == list(range(1, len(seen)))
    assert [s.loss for s in found.steps] == [seen[k].value for k in list(seen)[1:]]
    assert bool(found.events) == (name != "dense")
    full = {
        n: np.ones(x.weight.shape, dtype=bool) for n, x in network_for(found.method, 0).prunable().items()
    }
    for step, then in seen.items():
        event = last_before(found.events, step)
        for layer, mask in then.masks.items():
            told = full[layer] if event is None else event.layers[layer].masks[1]
            np.testing.assert_array_equal(told, mask, err_msg=f"{layer} after step {step}")
        assert then.kept == (found.size if event is None else event.kept[1])
        if event is not None and event.step == step and event.hook in ("setup", "after_update"):
            assert event.loss[1] == then.loss
            for layer, values in then.values.items():
                np.testing.assert_array_equal(event.layers[layer].values[1], values)


@pytest.mark.parametrize("name", NAMES)
def test_events_follow_each_other_and_their_counts_are_those_of_their_masks(name: str) -> None:
    found = traced(name)
    full = {
        n: np.ones(x.weight.shape, dtype=bool) for n, x in network_for(found.method, 0).prunable().items()
    }
    for event in found.events:
        assert (
            event.kept[1] == event.kept[0] + event.total("entered") - event.total("left") or event.substituted
        )
        for layer, change in event.layers.items():
            np.testing.assert_array_equal(change.masks[0], full[layer])
            full[layer] = change.masks[1]
            if change.kinds[1] == "MaskedWeight":
                assert change.kept[1] == change.masks[1].sum()
                assert not change.values[1][~change.masks[1]].any()
        happened = [event.total(what) for what in ("left", "entered", "moved")]
        assert any([*happened, event.others, event.remembers, event.clock, event.forgets, event.substituted])
    assert found.kept == (found.events[-1].kept[1] if found.events else found.size)
    if found.events and found.events[-1].hook in ("finish", "after_update"):
        last = found.events[-1]
        if last.step == len(found.steps):
            assert last.loss[1] == found.loss[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_is_data(name: str) -> None:
    found = traced(name)
    data = json.loads(json.dumps(plain(as_data(found)), allow_nan=False))
    assert len(data["events"]) == len(found.events) and len(data["steps"]) == len(found.steps)
    assert data["end"]["kept"] == np.sum([np.sum(mask) for mask in data["end"]["masks"].values()]) or any(
        type(x.weight).__name__ != "MaskedWeight" for x in found.network.prunable().values()
    )
    history = found.history
    assert [x for x in history if isinstance(x, Event)] == found.events
    assert [x for x in history if isinstance(x, Step)] == found.steps


def test_magnitude_shows_the_scores_it_ranked_and_the_counts_it_was_asked_for() -> None:
    method = Magnitude(sparsity=0.5, schedule=Cubic(every=2))
    found = trace(method)
    assert [e.step for e in found.events] == [4, 6, 8]
    for event in found.events:
        (level,) = method.schedule.levels(event.step, len(found.steps), 0.5)
        assert event.asked == Asked(level, kept_count(28, level))
        assert event.kept[1] == event.asked.kept
        leaving, staying = [], []
        for name, change in event.layers.items():
            np.testing.assert_array_equal(event.scores[name], np.abs(change.values[0]))
            leaving += list(event.scores[name][change.left])
            staying += list(event.scores[name][change.masks[1]])
        assert leaving and max(leaving) <= min(staying)
        assert any(line.name == "magnitude" and line.equations == "(1)" for line in event.ran)


def test_rigl_grows_where_the_gradient_it_shows_is_largest() -> None:
    found = trace(RigL(sparsity=0.5, every=3))
    grown = 0
    for event in found.events[1:]:
        assert event.hook == "update" and event.kept == (14, 14)
        for name, change in event.layers.items():
            size = np.abs(event.gradients[name])
            passed = ~change.masks[0] & ~change.masks[1]
            if change.entered.any() and passed.any():
                assert size[change.entered].min() >= size[passed].max()
                grown += int(change.entered.sum())
    assert grown
    calls = {line.name: count for line, count in found.calls}
    assert calls["exchange"] == 2 * len(found.events[1:]) == 4


def test_rounds_at_one_moment_are_events_of_their_own_with_their_own_scores() -> None:
    found = trace(FORCE(sparsity=0.5, schedule=Exponential(rounds=3)))
    rounds = [e for e in found.events if e.total("left")]
    assert [e.step for e in rounds] == [0, 0, 0]
    assert [e.kept[1] for e in rounds] == [e.asked.kept for e in rounds if e.asked] == [22, 18, 14]
    assert len({e.scores["fc1"].tobytes() for e in rounds}) == 3


def test_units_have_scores_and_take_their_biases_along() -> None:
    found = trace(FilterNorm(sparsity=0.5, schedule=OneShot(0.5)))
    (event,) = found.events
    assert event.scores["fc1"].shape == (4,)
    gone = event.layers["fc1"].left.all(axis=1)
    assert event.scores["fc1"][gone].max() <= event.scores["fc1"][~gone].min()
    before, after = event.others["fc1.bias"]
    assert not after[gone].any()
    np.testing.assert_array_equal(before[~gone], after[~gone])


def test_a_rewind_shows_weights_clock_and_optimiser() -> None:
    found = trace(IMP(sparsity=0.5, rounds=1))
    first, prune = found.events
    assert list(first.remembers) == ["imp: state at step k"]
    assert (prune.step, prune.clock, prune.forgets) == (12, (12, 0), True)
    start = network_for(found.method, 0)
    for name, change in prune.layers.items():
        np.testing.assert_array_equal(
            change.values[1], np.where(change.masks[1], start.prunable()[name].weight.dense(), 0)
        )
    assert len(found.steps) == 24 and found.asked == found.kept == 14


def test_reconstruction_moves_what_stays() -> None:
    (event,) = trace(SparseGPT(sparsity=0.5, samples=TRAIN)).events
    assert event.total("left") == 14 and 0 < event.total("moved") <= 14


@dataclass(frozen=True)
class Restless(Scored):
    """Ranks weights by their position, and rewires to the same masks again."""

    demo: ClassVar[Mapping[str, Any]] = {"sparsity": 0.25}

    picky: bool = setting(False, "whether only convolutions will do")

    def check(self, network: Network) -> None:
        super().check(network)
        if self.picky and not any(isinstance(layer, Conv2d) for _, layer in network.walk()):
            raise MethodError("no convolution.")

    def score(self, state: TrainState) -> dict[str, Array]:
        """Equation (7)."""
        return positions(state)

    def after_update(self, state: TrainState) -> None:
        super().after_update(state)
        state.rewire(state.network.masks())


def positions(state: TrainState) -> dict[str, Array]:
    """Scores by equations (3) and (4)."""
    return {n: np.arange(s.size).reshape(s.matrix) + 1.0 for n, s in layer_shapes(state.network).items()}


def test_a_method_of_ones_own_is_traced_and_rewiring_to_the_same_masks_is_no_event() -> None:
    found = trace(demonstration(Restless))
    assert found.asked == found.kept == 21
    (event,) = found.events
    assert event.step == 6
    heard = {line.name: line.equations for line in event.ran}
    assert heard == {"Restless.after_update": "", "Restless.score": "(7)", "positions": "(3) and (4)"}


def test_the_network_is_the_simplest_that_the_method_accepts() -> None:
    assert network_for(Restless(), 0).name == "perceptron 4-4-3"
    found = trace(Restless(sparsity=0.5, picky=True))
    assert found.network.input_shape == (1, 4, 4) and found.network.prunable()["conv"].weight.shape == (3, 4)
    assert "bn" in dict(network_for(demonstration(catalogue()["slimming"].cls), 0).walk())

    class Never(Restless):
        def check(self, network: Network) -> None:
            raise MethodError(f"not {network.name}.")

    with pytest.raises(MethodError, match="not convolution"):
        trace(Never())


def test_networks_are_small_and_data_is_as_described() -> None:
    for build, shape in zip(NETWORKS, ((4,), (4,), (1, 4, 4)), strict=True):
        assert build.__doc__
        data = clusters(shape, 3)
        x = data.train_x.reshape(TRAIN, -1)
        for k in range(CLASSES):
            means = x[data.train_y == k].mean(axis=0)
            light = np.arange(x.shape[1]) % 4 == k
            assert (means[light] > LIGHT / 2).all() and (np.abs(means[~light]) < LIGHT / 2).all()
    assert all((clusters((4,), 0).train_x != clusters((4,), 1).train_x).any(axis=1))


def test_listening_leaves_the_profile_hook_as_it_was_and_can_pause() -> None:
    method = Magnitude()
    listener = Listener(method, 100)

    def profile(*_: object) -> None:
        pass

    before = sys.getprofile()
    try:
        sys.setprofile(profile)
        with pytest.raises(KeyError), listener.listening():
            kept_count(100, 0.25)
            kept_count(99, 0.5)
            with listener.pause():
                kept_count(100, 0.75)
            raise KeyError
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(before)
    kept_count(100, 0.1)
    assert listener.heard.asked == Asked(0.25, 75)


@pytest.mark.parametrize(
    ("docstring", "numbers"),
    [
        ("Share, equation (1).", "(1)"),
        ("By equations (1) and\n    (2): x", "(1) and (2)"),
        ("By equations (1)-(3).", "(1)-(3)"),
        ("Equations (1) to (4).", "(1) to (4)"),
        ("The normal equations of (1).", ""),
        ("", ""),
    ],
)
def test_equations_are_read_from_docstrings(docstring: str, numbers: str) -> None:
    assert equations_of(docstring) == numbers
