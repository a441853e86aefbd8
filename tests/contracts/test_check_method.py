"""check_method sees each broken promise, names it in one line, and says what it checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest

from minisparse.errors import MethodError, UnknownNameError, UsageError
from minisparse.methods.base import Method, Scored, setting
from minisparse.methods.dense import Dense
from minisparse.methods.dynamic.rigl import RigL
from minisparse.methods.saliency.magnitude import Magnitude
from minisparse.nn.network import Network
from minisparse.nn.param import Array
from minisparse.sparsity.schedule import OneShot, Schedule
from minisparse.testing import PROMISES, Case, check_method
from minisparse.testing.case import size
from minisparse.testing.problems import NETWORKS
from minisparse.training.state import TrainState

TICKS = count()


@dataclass(frozen=True)
class Sound(Scored):
    """Magnitude pruning once, halfway."""

    schedule: Schedule = setting(OneShot(0.5), "when")

    def score(self, state: TrainState) -> dict[str, Array]:
        return {n: np.abs(x.weight.dense()) for n, x in state.network.prunable().items()}


@dataclass(frozen=True)
class Leaky(Sound):
    """Writes into absent entries."""

    def after_update(self, state: TrainState) -> None:
        super().after_update(state)
        for p in state.network.params().values():
            p.value += 1e-3


@dataclass(frozen=True)
class Momentous(Sound):
    """Leaves momentum where weights left."""

    def after_update(self, state: TrainState) -> None:
        super().after_update(state)
        for slots in state.optimizer.slots.values():
            for array in slots.values():
                array += 1


@dataclass(frozen=True)
class Generous(Sound):
    """Keeps one weight more than asked."""

    def prune_to(self, state: TrainState, sparsity: float) -> None:
        super().prune_to(state, max(0.0, sparsity - 1 / size(state.network)))


@dataclass(frozen=True)
class Meddler(Sound):
    """Shrinks all weights, whatever the sparsity."""

    def update(self, state: TrainState) -> None:
        super().update(state)
        for p in state.network.params().values():
            p.value *= np.float32(0.99)


@dataclass(frozen=True)
class Random(Sound):
    """Draws from a place that no seed reaches."""

    def score(self, state: TrainState) -> dict[str, Array]:
        draw = np.random.default_rng(next(TICKS))
        return {n: draw.random(x.weight.shape) for n, x in state.network.prunable().items()}


@dataclass(frozen=True)
class Deaf(Sound):
    """Ends with the same network whatever it was trained on."""

    def finish(self, state: TrainState) -> None:
        for array in [*(p.value for p in state.network.params().values()), *state.network.buffers().values()]:
            array[...] = 0
        state.rewire({n: np.ones(x.weight.shape, bool) for n, x in state.network.prunable().items()})


@dataclass(frozen=True)
class Forgetful(Sound):
    """Keeps in itself what belongs into the state."""

    calls: int = setting(0, "a setting that is none")

    def after_update(self, state: TrainState) -> None:
        super().after_update(state)
        object.__setattr__(self, "calls", self.calls + 1)


@dataclass(frozen=True)
class Silent(Sound):
    """Explains nothing."""

    extra: float = 1.0


@dataclass(frozen=True)
class Lossy(Sound):
    """Another one after a round through its settings."""

    extra: float = setting(1.0, "rounded")

    def __post_init__(self) -> None:
        object.__setattr__(self, "extra", self.extra + 1)


@dataclass(frozen=True)
class Fragile(Sound):
    """Divides by the spread of the weights."""

    def after_update(self, state: TrainState) -> None:
        super().after_update(state)
        for layer in state.network.prunable().values():
            weight = layer.weight.dense()
            with np.errstate(all="ignore"):
                layer.weight.assign(weight / np.float32(weight.std() / weight.std()))


@dataclass(frozen=True)
class Reckless(Sound):
    """Declares a need and does not check it."""

    def check(self, network: Network) -> None:
        pass

    def prune_to(self, state: TrainState, sparsity: float) -> None:
        if state.network.prunable():
            super().prune_to(state, sparsity)

    def setup(self, state: TrainState) -> None:
        if state.network.prunable():
            super().setup(state)


@dataclass(frozen=True)
class Late(Sound):
    """Prunes behind the back of the history."""

    def impose(self, state: TrainState) -> None:
        pass

    def finish(self, state: TrainState) -> None:
        self.prune_to(state, self.sparsity)


BROKEN: list[tuple[type[Sound], str, str]] = [
    (Leaky, "sparse", r"after step 6 weight of 'fc1' is not 0 at \d+ absent entries"),
    (Momentous, "sparse", "slot 'u' of 'fc1.weight' is not 0"),
    (Generous, "sparse", r"kept 70 of 231 weights, expected 69"),
    (Meddler, "nothing", "'fc1.weight' is not that of dense training"),
    (Random, "seed", "when the same seed is run again"),
    (Deaf, "seed", "another seed gives the same network"),
    (Forgetful, "arguments", "the method itself is changed"),
    (Silent, "value", "setting 'extra' has no explanation"),
    (Lossy, "value", "a copy of it is not equal"),
    (Fragile, "degenerate", "diverged"),
    (Reckless, "needs", "it trains a network without prunable layers"),
    (Late, "history", "its last record"),
]


@pytest.mark.parametrize(("cls", "promise", "words"), BROKEN)
def test_a_broken_promise_is_seen_and_named_in_one_line(cls: type[Sound], promise: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words) as caught:
        check_method(cls(sparsity=0.7), [promise])
    text = str(caught.value)
    assert text.startswith(f"method {cls.__name__}, promise '{promise}'") and "\n" not in text
    with pytest.raises(AssertionError, match=rf"method {cls.__name__}, promise "):
        check_method(cls(sparsity=0.7))


def test_every_promise_is_broken_by_some_method_above() -> None:
    assert {promise for _, promise, _ in BROKEN} == set(PROMISES)


def test_what_a_sound_method_promises_is_reported() -> None:
    report = check_method(Sound(sparsity=0.7))
    assert report.networks == ("mlp", "conv") and report.excused == ()
    assert report.checked == {
        "sparse": 8, "nothing": 2, "seed": 2, "arguments": 2,
        "value": 1, "degenerate": 6, "needs": 1, "history": 2,
    }  # fmt: skip
    lines = str(report).splitlines()
    assert lines[0] == "Sound(sparsity=0.7) on mlp, conv" and len(lines) == 9
    assert check_method(Dense(), ["nothing"], Case(nothing={})).checked == {"nothing": 2}


def test_promises_can_be_chosen_and_excused() -> None:
    excused = Case({"every": 2}, counts=False, zeros=False, nothing=None, reason="for the sake of it")
    report = check_method(RigL(sparsity=0.7), ["nothing", "sparse"], excused)
    assert report.checked == {"sparse": 8} and len(report.excused) == 3
    assert report.method == RigL(sparsity=0.7, every=2)
    assert str(report).count("for the sake of it") == 3
    assert check_method(
        Leaky(sparsity=0.7), ["sparse"], Case(counts=False, zeros=False, reason="leaks")
    ).checked
    assert check_method(Generous(sparsity=0.7), ["sparse"], Case(slack=lambda network: 1)).checked
    with pytest.raises(AssertionError, match="expected 69$"):
        check_method(Generous(sparsity=0.7), ["sparse"], Case(slack=lambda network: 0))


@dataclass(frozen=True)
class Picky(Sound):
    """Refuses one network, or both."""

    names: tuple[str, ...] = field(default=(), metadata={"help": "which"})

    def check(self, network: Network) -> None:
        super().check(network)
        if any(NETWORKS[name]().name == network.name for name in self.names):
            raise MethodError(f"no: got {network.name}.")


def test_networks_that_do_not_suit_are_left_out_but_not_all_of_them() -> None:
    assert check_method(Picky(names=("conv",)), ["seed"]).networks == ("mlp",)
    with pytest.raises(MethodError, match="accepts no network"):
        check_method(Picky(names=("conv", "mlp")), ["seed"])


@dataclass(frozen=True)
class Raising(Sound):
    """Fails in its own way."""

    def score(self, state: TrainState) -> dict[str, Array]:
        raise KeyError("mine")


def test_an_error_of_the_method_comes_with_a_note() -> None:
    with pytest.raises(KeyError, match="mine") as caught:
        check_method(Raising(), ["sparse"])
    assert caught.value.__notes__ == [
        "raised while checking method Raising, promise 'sparse' (mlp, momentum)"
    ]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: check_method(Magnitude), UsageError, "expected a method with settings"),  # type: ignore[arg-type]
        (lambda: check_method(Sound(), ["sparce"]), UnknownNameError, "sparse"),
        (lambda: check_method(Sound(), exceptions=Case(counts=False)), UsageError, "reason"),
        (lambda: check_method(Sound(), exceptions=Case({"often": 1})), UsageError, "'often'"),
        (lambda: check_method(Dense()), UsageError, "'sparsity'.*nothing="),
    ],
)
def test_arguments_that_cannot_be_used(
    call: Callable[[], Method], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call()
