"""G-1: what is no number, no name or no size is refused in one line that says what was expected."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np
import pytest

import minisparse as ms
from minisparse.data.dataset import Dataset
from minisparse.errors import MinisparseError, ShapeError, UnknownNameError, UsageError
from minisparse.experiments.settings import build_method
from minisparse.methods.base import Method
from minisparse.methods.registry import catalogue
from minisparse.nn import lr
from minisparse.nn.activation import Activation
from minisparse.nn.models import make
from minisparse.nn.norm import BatchNorm1d
from minisparse.nn.optim import SGD, Adam
from minisparse.nn.pool import Dropout
from minisparse.nn.window import Window
from minisparse.sparsity import allocation, control, pattern, schedule
from minisparse.sparsity.allocation import Global
from minisparse.sparsity.pattern import NM, Block
from minisparse.sparsity.select import select
from minisparse.sparsity.shape import LayerShape
from minisparse.testing.problems import NETWORKS
from minisparse.training.born import make_sparse
from minisparse.weights.compress import compress
from minisparse.weights.formats import convert

BAD: tuple[Any, ...] = (float("nan"), float("inf"), True, "0.5", 0.5j, [0.5], None, -1)
AXES = (schedule.Schedule, allocation.Allocation, pattern.Pattern, control.Control)
WORDS = (bool, str)  # settings that are flags and choices


def below(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from below(sub)


def public(classes: Iterator[type]) -> list[type]:
    return [c for c in classes if c.__module__.startswith("minisparse.") and not inspect.isabstract(c)]


CLASSES = [entry.cls for entry in catalogue().values()] + public(
    c for base in (lr.Rate, *AXES) for c in below(base) if c is not control.Combined
)
# numbers that may be below 0: logarithms, and positions before a logistic function
SIGNED = {"STR initial", "VariationalDropout initial", "VariationalDropout threshold"}


def made(cls: type, **settings: Any) -> None:
    """The value, and a method's own check before its first step."""
    value = cls(**settings)
    if isinstance(value, Method):
        value.check(NETWORKS["mlp"]())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_setting_takes_what_it_is_not(cls: type) -> None:
    hints = get_type_hints(cls)
    for f in fields(cls):
        optional = "None" in str(hints[f.name])
        for bad in BAD:
            fits = (
                (bad is None and optional)
                or (hints[f.name] is bool and bad is True)
                or (bad == -1 and f"{cls.__name__} {f.name}" in SIGNED)
                or (f.name == "milestones" and isinstance(bad, list))
            )
            if not fits:
                with pytest.raises(MinisparseError) as caught:
                    made(cls, **{f.name: bad})
                assert "\n" not in str(caught.value) and "expected" in str(caught.value), f.name


DATA = ms.data.load("digits").subset(60, 20)


def net() -> ms.nn.Network:
    return make("mlp:64-8-10", (1, 8, 8), 10)


def train(**settings: Any) -> None:
    given = {"network": net(), "data": DATA, "method": ms.Dense(), "epochs": 1} | settings
    ms.train(given.pop("network"), given.pop("data"), given.pop("method"), **given)


# what takes one value -> the values of EVERY that are right there
EVERY = (*BAD, 0, 2.5)
PLACES: dict[str, tuple[Callable[[Any], Any], tuple[Any, ...]]] = {
    "epochs": (lambda v: train(epochs=v), ()),
    "batch": (lambda v: train(batch=v), ()),
    "seed": (lambda v: train(seed=v), (0,)),
    "loss": (lambda v: train(loss=v), (None,)),
    "storage": (lambda v: train(storage=v), (None,)),
    "optimizer": (lambda v: train(optimizer=v), (None,)),
    "rate": (lambda v: train(rate=v), (None,)),
    "method": (lambda v: train(method=v), ()),
    "network": (lambda v: train(network=v), ()),
    "data": (lambda v: train(data=v), ()),
    "model": (lambda v: make(v, (3,), 2), ()),
    "model's outputs": (lambda v: make("mlp:3-4-2", (3,), v), ()),
    "model's input": (lambda v: make("mlp:3-4-2", (v,), 2), ()),
    "model's image": (lambda v: make("lenet-5", (1, v, 8), 10), ()),
    "model's seed": (lambda v: make("mlp:3-4-2", (3,), 2, seed=v), (0,)),
    "initialiser": (lambda v: make("mlp:3-4-2", (3,), 2, init=v), ()),
    "born sparsity": (lambda v: make_sparse("mlp:8-8-2", (8,), 2, v), (0,)),
    "compress": (lambda v: compress(net(), v, cache=False), ()),
    "format": (lambda v: convert(net().prunable()["fc1"].weight, v), ()),
    "activation": (Activation, ()),
    "kernel": (Window.of, ()),
    "stride": (lambda v: Window.of(2, v), ()),
    "padding": (lambda v: Window.of(3, 1, v), (0,)),
    "dilation": (lambda v: Window.of(3, 1, 0, v), ()),
    "dropout": (Dropout, (0,)),
    "channels": (BatchNorm1d, ()),
    "BatchNorm's momentum": (lambda v: BatchNorm1d(3, momentum=v), (0,)),
    "BatchNorm's eps": (lambda v: BatchNorm1d(3, eps=v), (0,)),
    "momentum": (SGD, (0,)),
    "weight decay": (lambda v: SGD(0.9, weight_decay=v), (0, 2.5)),
    "beta1": (lambda v: Adam(beta1=v), (0,)),
    "beta2": (lambda v: Adam(beta2=v), (0,)),
    "eps": (lambda v: Adam(eps=v), (0, 2.5)),
    "N": (lambda v: NM(v, 4), ()),
    "M": (lambda v: NM(1, v), ()),
    "rows of a block": (lambda v: Block(v, 2), ()),
    "data set": (ms.data.load, ()),
    "seed of data": (lambda v: ms.data.load("moons", seed=v), (0,)),
    "rows of data": (lambda v: DATA.subset(v, 3), (None,)),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_argument_takes_what_it_is_not(place: str) -> None:
    take, right = PLACES[place]
    for value in EVERY:
        if not any(value is r or (type(value) is type(r) and value == r) for r in right):
            with pytest.raises(MinisparseError) as caught:
                take(value)
            assert "\n" not in str(caught.value) and "expected" in str(caught.value), value


# a name that is nearly right -> the one that is meant
NAMES: dict[str, tuple[Callable[[str], Any], str, str]] = {
    "method": (lambda n: build_method(n, {}), "magnitud", "magnitude"),
    "model": (lambda n: make(n, (1, 8, 8), 10), "lenet5", "lenet-5"),
    "data set": (ms.data.load, "digit", "digits"),
    "loss": (lambda n: train(loss=n), "cross-entrpy", "cross-entropy"),
    "storage": (lambda n: train(storage=n), "csrr", "csr"),
    "format": (lambda n: convert(net().prunable()["fc1"].weight, n), "bitmsk", "bitmask"),
    "activation": (Activation, "tahn", "tanh"),
    "initializer": (lambda n: make("mlp:3-4-2", (3,), 2, init=n), "kaiming-norml", "kaiming-normal"),
    "schedule": (ms.sparsity.parse_schedule, "cubc", "cubic"),
    "allocation": (ms.sparsity.parse_allocation, "unifrm", "uniform"),
    "pattern": (ms.sparsity.parse_pattern, "blok", "block"),
    "mode": (lambda n: ms.curvature.hessian_diagonal(net(), None, None, None, n), "exct", "exact"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_that_is_nearly_right_is_told_the_right_one(kind: str) -> None:
    take, wrong, right = NAMES[kind]
    with pytest.raises(UnknownNameError, match=f"Did you mean '{right}'") as caught:
        take(wrong)
    assert repr(wrong) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: NM(5, 4), UsageError, "got 5:4, expected N <= M"),
        (lambda: make("mlp:3-0-2", (3,), 2), UsageError, "3-0-2"),
        (lambda: make("mlp:3-4-3", (3,), 2), ShapeError, "expected 3 and 2"),
        (lambda: make("mlp:4-4-2", (3,), 2), ShapeError, "expected 3 and 2"),
        (lambda: make("lenet-5", (1, 3, 3), 10), ShapeError, "got an image of .* expected at least"),
        (lambda: ms.RigL(sparsity=90), UsageError, "Did you mean 0.90?"),
        (lambda: ms.RigL(allocation="uniform"), UsageError, "got 'uniform'.*parse_allocation"),
        (lambda: train(method="rigl"), UsageError, r"got 'rigl', expected a Method such as RigL"),
        (lambda: train(optimizer="sgd"), UsageError, r"got 'sgd', expected an Optimizer"),
        (lambda: train(network=make("mlp:9-10", (9,), 10)), ShapeError, "expected .* as in data set"),
        (lambda: train(loss="bce"), UsageError, "targets"),
    ],
)
def test_what_does_not_fit_together(call: Callable[[], object], error: type, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("columns", range(1, 13))
def test_groups_that_do_not_divide_a_layer_are_refused_unless_the_rest_may_be_dense(columns: int) -> None:
    scores, shapes = {"fc": np.arange(3.0 * columns).reshape(3, columns)}, {"fc": LayerShape(3, columns)}
    rest = columns % 4
    if rest:
        with pytest.raises(ShapeError, match=f"got {columns} input columns, expected a multiple of 4"):
            select(scores, shapes, None, Global(), NM(2, 4))
    mask = select(scores, shapes, None, Global(), NM(2, 4, remainder="dense"))["fc"]
    assert mask[:, columns - rest :].all()
    assert (mask[:, : columns - rest].reshape(3, -1, 4).sum(axis=2) == 2).all()


def test_one_class_is_a_problem_like_any_other() -> None:
    x, y = np.ones((6, 3), np.float32), np.zeros(6, int)
    run = ms.train(make("mlp:3-4-2", (3,), 2), Dataset("one", x, y, x, y, 2), ms.Magnitude(0.5), epochs=2)
    assert run.status in ("done", "collapsed") and run.accuracy == 1
