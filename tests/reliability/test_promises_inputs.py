"""B6: no function writes to what it is given: everything is hashed before and after.

The same for layers is in tests/nn/test_layers.py, for whole trainings in tests/contracts, for the products of
the formats in test_promises_kernels.py.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import minisparse.curvature as curvature
from minisparse.kernels import merge
from minisparse.methods.base import Scored
from minisparse.methods.dynamic import rules
from minisparse.methods.registry import catalogue
from minisparse.nn import CrossEntropy, Network
from minisparse.nn import largest as largest_
from minisparse.sparsity import ERK, NM, Block, Global, LayerShape, Row, Uniform, Unstructured, measure
from minisparse.sparsity import sample as sample_
from minisparse.sparsity.select import select, top_units
from minisparse.testing.check import trials
from minisparse.testing.promises import run
from minisparse.training.state import TrainState
from tests.contracts.test_every_method import NAMES, case_of, make
from tests.curvature.nets import case, mlp
from tests.methods.problems import descend, state_of

Array = np.ndarray
choosing = inspect.getmodule(top_units)  # the package has a function of the same name


def held(thing: Any) -> Iterator[bytes]:
    """Everything a value holds, as bytes, to be compared before and after."""
    if isinstance(thing, np.ndarray):
        yield f"{thing.dtype}{thing.shape}{thing.strides}".encode() + np.ascontiguousarray(thing).tobytes()
    elif isinstance(thing, Network):
        yield from held(thing.state())
        yield from held(thing.masks())
    elif isinstance(thing, Mapping):
        yield repr(list(thing)).encode()
        for value in thing.values():
            yield from held(value)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from held(value)
    else:
        yield repr(thing if isinstance(thing, int | float | str) else type(thing)).encode()


def fingerprint(thing: Any) -> str:
    return hashlib.sha256(b"".join(held(thing))).hexdigest()


def unchanged(function: Callable[..., Any], *args: Any, **settings: Any) -> None:
    """Call it; what it was given must be as before. Arrays it gives back are its own."""
    before = fingerprint((args, settings))
    result = function(*args, **settings)
    if inspect.isgenerator(result):
        result = list(result)
    assert fingerprint((args, settings)) == before, f"{function.__name__} changed what it was given"
    given = [a for a in arrays((args, settings)) if a.size]
    for a in arrays(result):
        shared = [b for b in given if a.flags.writeable and np.shares_memory(a, b)]
        assert not shared or function.__name__ in VIEWS, f"{function.__name__} gives back what it was given"


def arrays(thing: Any) -> Iterator[Array]:
    """All arrays in a value; those of a network are its own business."""
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, Mapping | list | tuple):
        for value in thing.values() if isinstance(thing, Mapping) else thing:
            yield from arrays(value)


VIEWS = {"check_scores", "unflatten", "flatten"}


def curvature_calls() -> dict[str, Callable[[], None]]:
    """A call of every public function of `curvature`, checked by `unchanged`."""
    rng = np.random.default_rng(0)
    c = case(mlp([3, 4, 2], "tanh", rng), CrossEntropy(), 5, rng)
    descend(state_of(c.network, c.x, c.target))  # gradients are there to be changed
    v = {k: rng.standard_normal(p.value.shape) for k, p in c.network.params().items()}
    square = np.cov(rng.standard_normal((4, 9)))
    extra: dict[str, dict[str, Any]] = {
        "fisher_diagonal_sampled": {"rng": np.random.default_rng(3)},
        "kfac_sampled": {"rng": np.random.default_rng(3)},
        "ggn_vector_product": {"v": v}, "hvp": {"v": v}, "hvps": {"vs": [v, v]},
        "hutchinson": {"rng": np.random.default_rng(3), "probes": 3},
        "hessian_eigenpairs": {"k": 2, "rng": np.random.default_rng(3)},
        "spectral_density": {"grid": np.linspace(-1, 1, 5), "sigma": 0.1, "rng": np.random.default_rng(3),
                             "probes": 2, "steps": 5},
    }  # fmt: skip
    other: dict[str, tuple[Any, ...]] = {
        "jacobian": (c.network, c.x), "input_grams": (c.network, [c.x, c.x]),
        "inverse_by_vectors": (rng.standard_normal((6, 4)), 0.1),
        "inverse_by_blocks": (rng.standard_normal((6, 4)), 0.1),
        "damped_cholesky": (square, 0.1), "cholesky_inverse": (np.linalg.cholesky(square),),
        "remove": (np.linalg.inv(square), 2), "flatten": (v,), "inner": (v, v),
        "unflatten": (curvature.flatten(v), v),
        "lanczos": (lambda w: square @ w, np.ones(4), 3, np.random.default_rng(3)),
        "top_eigenpairs": (lambda w: square @ w, 4, 2, np.random.default_rng(3)),
    }  # fmt: skip
    calls: dict[str, Callable[[], None]] = {}
    for name in curvature.__all__:
        function = getattr(curvature, name)
        if inspect.isfunction(function):
            args, settings = other.get(name, tuple(c)), extra.get(name, {})
            calls[name] = lambda f=function, a=args, k=settings: unchanged(f, *a, **k)
    return calls


def selection_calls() -> dict[str, Callable[[], None]]:
    """The same for functions on scores, masks and positions."""
    rng = np.random.default_rng(1)
    shapes = {"a": LayerShape(4, 6), "b": LayerShape(3, 4)}
    scores = {n: rng.standard_normal(s.matrix) for n, s in shapes.items()}
    among = {n: rng.random(s.matrix) < 0.8 for n, s in shapes.items()}
    flat, masks = np.flatnonzero(among["a"]), list(among.values())
    ones, units = np.ones(6, int), rng.standard_normal(6)
    calls: dict[str, tuple[Any, ...]] = {
        "top_k": (scores["a"], 5, among["a"]), "check_scores": ("x", scores["a"]),
        "top_units": (units, 4 * ones, np.array([4, 4, 0, 4, 2, 4]), 0.6),
        "drop_smallest": (scores["a"].ravel(), 7),
        "largest_together": ({n: a.ravel() for n, a in scores.items()}, 6),
        "grow_largest": (flat, np.array_split(scores["a"], 3), 2), "union": (flat, flat[:0]),
        "grow_random": (flat, 24, 2, np.random.default_rng(3)), "first_largest": (scores["a"].ravel(), 5),
        "share_out": (5, {"a": 1.0, "b": 2.0}, {"a": 3, "b": 4}),
        "largest": (np.array_split(scores["a"], 3), 3, flat),
        "largest_by_row": (np.array_split(scores["a"], 2), np.array([1, 0, 2, 1]), flat[:3]),
        "sample_distinct": (3, 24, np.random.default_rng(3), flat[:9]),
        "free_positions": (np.arange(5), flat[:7]),
        "sample_layers": (shapes, 0.6, ERK(), np.random.default_rng(3)),
        "sample_counts": (5, {"a": 4, "b": 4}, np.random.default_rng(3)),
        "sample_rows": (2, 4, 6, np.random.default_rng(3)),
    }  # fmt: skip
    homes = (choosing, rules, largest_, sample_, merge)
    found: dict[str, Callable[[], None]] = {}
    for name, args in calls.items():
        function = next(getattr(home, name) for home in homes if hasattr(home, name))
        found[name] = lambda f=function, a=args: unchanged(f, *a)
    for pattern, s in ((Unstructured(), 0.6), (Block(2, 2), 0.6), (Row(), 0.6), (NM(1, 2), None)):
        for allocation in (Global(), Uniform()):
            arguments = (scores, shapes, s, allocation, pattern, among)
            loose = (*arguments[:5], None) if isinstance(pattern, NM) else arguments
            found[f"select {pattern} {allocation}"] = lambda a=loose: unchanged(select, *a)
    found["density"] = lambda: unchanged(measure.density, masks[0])
    found["effective_masks"] = lambda: unchanged(measure.effective_masks, masks)
    found["dead_units"] = lambda: unchanged(measure.dead_units, masks[0])
    return found


@pytest.mark.parametrize("name", list(curvature_calls()))
def test_curvature_leaves_networks_and_arrays_as_they_are(name: str) -> None:
    curvature_calls()[name]()


@pytest.mark.parametrize("name", list(selection_calls()))
def test_selection_leaves_scores_masks_and_positions_as_they_are(name: str) -> None:
    selection_calls()[name]()


def test_no_public_function_that_takes_arrays_is_left_out() -> None:
    checked = {name.split()[0] for name in selection_calls()}
    for home in (choosing, rules, largest_, sample_):
        for name, thing in vars(home).items():
            if inspect.isfunction(thing) and thing.__module__ == home.__name__ and not name.startswith("_"):
                assert name in checked or name in {"cosine", "block_rows"}, f"{home.__name__}.{name}"


@pytest.mark.parametrize("name", [n for n in NAMES if issubclass(catalogue()[n].cls, Scored)])
def test_scoring_leaves_the_network_and_the_data_as_they_are(name: str) -> None:
    method = make(name)
    for trial in trials("seed", method, case_of(name)):
        seen = []

        def watch(state: TrainState, seen: list[int] = seen) -> None:
            if state.step in (3, 7):
                given = state.network, state.train_x, state.train_t, state.probe_x, state.probe_t
                weights = {n: layer.weight.dense() for n, layer in state.network.prunable().items()}
                before = fingerprint((given, weights, state.optimizer.slots))
                method.score(state)  # type: ignore[attr-defined]
                after = {n: layer.weight.dense() for n, layer in state.network.prunable().items()}
                assert fingerprint((given, after, state.optimizer.slots)) == before
                seen.append(state.step)

        run(trial.network(), method, progress=watch)
        assert seen[:2] == [3, 7]
