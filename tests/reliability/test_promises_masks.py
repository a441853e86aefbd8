"""B: exact counts, ties, nothing that comes back. (B6, nothing that is written to: test_promises_inputs.py.)

B4 (scores that are not finite), B5 (nothing leaks) and B7 (removal keeps outputs) are held by
tests/sparsity/test_selection.py, tests/contracts/test_every_method.py and tests/sparsity/test_surgery.py.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction

import numpy as np
import pytest

from minisparse.errors import SparsityError
from minisparse.methods.registry import catalogue
from minisparse.nn.network import Network
from minisparse.sparsity import (
    ERK,
    Allocation,
    Cubic,
    EqualPerLayer,
    ErdosRenyi,
    FirstDense,
    FirstLast,
    Global,
    LayerShape,
    Uniform,
    Unstructured,
    kept_count,
    select,
    top_k,
)
from minisparse.testing.case import size
from minisparse.testing.check import trials
from minisparse.testing.promises import Trial, run, sparse
from minisparse.training.state import TrainState
from tests.contracts.test_every_method import NAMES, case_of, make
from tests.reliability import tied
from tests.reliability.counts import examples, profile
from tests.reliability.processes import ROOT, python

Array = np.ndarray
Fill = Callable[[np.random.Generator, tuple[int, ...]], Array]

FILLS: dict[str, Fill] = {
    "equal": lambda rng, shape: np.full(shape, 0.25),
    "zero": lambda rng, shape: np.zeros(shape),
    "signed zeros": lambda rng, shape: rng.choice([0.0, -0.0], shape),
    "denormal": lambda rng, shape: rng.choice([1.4e-45, -2.8e-45, 1e-40], shape),
    "tied": lambda rng, shape: rng.choice([0.5, -0.5, 0.25, 0.0], shape),
}
ALLOCATIONS: tuple[Allocation, ...] = (
    Global(), Uniform(), ErdosRenyi(), ERK(), EqualPerLayer(), FirstLast(), FirstDense(compensate=True),
)  # fmt: skip


def sparsities(n: int) -> tuple[float, ...]:
    """Those of the promise that a method takes; 1 is refused."""
    return 0.0, 1 / n, 0.1, 0.5, 0.9, 0.999


def rounded_half_even(x: float) -> int:
    """The nearest whole number of exactly this float, of two the even one."""
    low = Fraction(x).__floor__()
    rest = Fraction(x) - low
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1)
    return low + up


def cuts(n: int) -> Iterator[dict[str, LayerShape]]:
    """n weights in one layer, in two, and in three of which two have one weight."""
    yield {"a": LayerShape(1, n)}
    if n > 1:
        yield {"a": LayerShape(n // 3 or 1, 1), "b": LayerShape(1, n - (n // 3 or 1))}
    if n > 2:
        yield {"a": LayerShape(1, 1), "b": LayerShape(1, n - 2), "c": LayerShape(1, 1)}


def first_of_the_largest(scores: Mapping[str, Array], kept: Mapping[str, int] | int) -> dict[str, Array]:
    """The rule, one comparison of (-score, place) after another."""
    together = isinstance(kept, int)
    pools = [list(scores)] if together else [[name] for name in scores]
    masks = {name: np.zeros(a.shape, dtype=bool) for name, a in scores.items()}
    for pool in pools:
        ranked = sorted(
            (-float(v), order, k)
            for order, name in enumerate(pool)
            for k, v in enumerate(scores[name].reshape(-1))
        )
        for _, order, k in ranked[: kept if together else kept[pool[0]]]:  # type: ignore[index]
            masks[pool[order]].flat[k] = True
    return masks


def test_every_size_to_64_every_allocation_every_sparsity_and_every_kind_of_tie() -> None:
    """B1, B3: exact counts, and of equal scores the first, in all layers of all sizes."""
    checked = refused = 0
    every = list(itertools.product(range(7), range(6), FILLS))
    for n in range(1, 65):
        for shapes in cuts(n):
            chosen = every if profile() != "dev" else every[(n * 3 + len(shapes)) % 14 :: 14]
            for which, level, fill in chosen:
                s, allocation = sparsities(n)[level], ALLOCATIONS[which]
                rng = np.random.default_rng([n, which, level])
                scores = {name: np.abs(FILLS[fill](rng, shape.matrix)) for name, shape in shapes.items()}
                try:
                    allocation.check(shapes, s)
                except SparsityError:
                    # everything would go, or more must stay than may
                    assert s == 1 or isinstance(allocation, FirstLast | FirstDense)
                    refused += 1
                    continue
                masks = select(scores, shapes, s, allocation, Unstructured())
                kept = n - rounded_half_even(s * n)
                assert sum(int(m.sum()) for m in masks.values()) == kept == kept_count(n, s)
                counts = allocation.counts(shapes, s)
                expected = first_of_the_largest(scores, kept if counts is None else counts)
                for name, mask in masks.items():
                    np.testing.assert_array_equal(
                        mask, expected[name], err_msg=f"{n} {s} {allocation} {fill}"
                    )
                checked += 1
        with pytest.raises(SparsityError):
            select(scores, shapes, 1, Global(), Unstructured())
        assert kept_count(n, 1) == 0 and not top_k(np.zeros(n), 0).any()
    assert checked > examples(2_000, 30_000, 30_000) and refused < checked


@dataclass(frozen=True)
class Filled(Trial):
    """A trial whose weights are tied, zero or denormal at first."""

    fill: str = "tied"

    def network(self) -> Network:
        network = super().network()
        for k, layer in enumerate(network.prunable().values()):
            values = FILLS[self.fill](np.random.default_rng(k), layer.weight.shape)
            layer.weight.assign(values.astype(np.float32))
        return network


def counted(name: str) -> list[tuple[Trial, float, str]]:
    """Trials of a method with each sparsity and each kind of weights; three of them in development."""
    method, particular = make(name), case_of(name)
    found = []
    for trial in trials("sparse", method, particular):
        if trial.variant == "momentum":
            levels = sparsities(size(trial.network())) if hasattr(method, "sparsity") else (0.0,)
            found += [(trial, s, fill) for s in levels for fill in ("", *FILLS)]
    step = examples(max(1, len(found) // 3), 1, 1)
    return found[NAMES.index(name) % step :: step]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_keeps_the_exact_count_at_every_sparsity(name: str) -> None:
    """B1, B5: and what is absent is 0 in value, gradient and slots after every step."""
    for trial, s, fill in counted(name):
        method = replace(trial.method, sparsity=s) if hasattr(trial.method, "sparsity") else trial.method
        kind = Filled(method, trial.case, trial.kind, trial.variant, fill) if fill else None
        sparse(kind or replace(trial, method=method))


# Methods whose definition lets an absent weight return; every other one only removes.
MAY_RETURN = {name for name, entry in catalogue().items() if entry.family == "dynamic"} | {
    "acdc", "dctps", "force", "l0", "movement", "soft-movement", "sr-ste", "str", "variational-dropout",
}  # fmt: skip
SLOW = {"amc"}  # each level of a schedule is a search of its own


@pytest.mark.parametrize("name", [n for n in NAMES if n not in MAY_RETURN])
def test_what_was_pruned_never_returns(name: str) -> None:
    """B2, with a gradual schedule where the method has one."""
    method = make(name)
    if "schedule" in {f.name for f in fields(method)} and name not in SLOW:
        method = replace(method, schedule=Cubic(0.1, 0.8, 1))  # type: ignore[call-arg]
    for trial in trials("sparse", method, case_of(name)):
        if trial.variant in examples(("momentum",), *[("momentum", "nesterov", "adam", "adamw")] * 2):
            gone: dict[str, Array] = {}
            levels = []

            def watch(state: TrainState, gone: dict[str, Array] = gone, levels: list[int] = levels) -> None:
                for layer, mask in state.network.masks().items():
                    if layer in gone and gone[layer].shape == mask.shape:
                        assert not (mask & gone[layer]).any(), f"{layer}, step {state.step}"
                    gone[layer] = ~mask
                levels.append(sum(int(m.sum()) for m in state.network.masks().values()))

            run(trial.network(), method, optimizer=trial.variant, progress=watch)
            assert levels == sorted(levels, reverse=True)


def test_those_that_may_return_do() -> None:
    """Or they would belong among the others. (l0 and soft-movement need longer than twelve steps.)"""
    for name in ("acdc", "force", "movement", "rigl", "set", "str", "topkast"):
        method, returned = make(name), []
        (trial, *_) = trials("sparse", method, case_of(name))
        gone: dict[str, Array] = {}

        def watch(state: TrainState, gone: dict = gone, returned: list = returned) -> None:
            for layer, mask in state.network.masks().items():
                returned.append(int((mask & gone.get(layer, ~mask)).sum()))
                gone[layer] = ~mask

        run(trial.network(), replace(method, schedule=Cubic(0.1, 0.8, 1)) if name == "force" else method,
            progress=watch)  # fmt: skip
        assert any(returned), name


def test_instructions_of_the_processor_choose_no_other_weights() -> None:
    """B3: the same masks among ties when NumPy may not use what this processor adds."""
    names = tied.features()
    done = python(["-m", "tests.reliability.tied"], ROOT, NPY_DISABLE_CPU_FEATURES=" ".join(names))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["features"]  # none is left
    assert found["digests"] == tied.digests() and len(found["digests"]) > 100
