"""D1 to D3: a run is a function of its spec. (Workers and the order of cells: test_grids.py.)"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import minisparse as ms
from minisparse.data.dataset import Dataset
from minisparse.experiments.runner import execute
from minisparse.experiments.spec import RunSpec
from minisparse.methods.base import layer_shapes
from minisparse.nn.loss import LOSSES
from minisparse.nn.mode import EVAL
from minisparse.nn.models import make
from minisparse.sparsity.allocation import ERK, Global, Uniform
from minisparse.sparsity.pattern import Unstructured
from minisparse.sparsity.select import select
from tests.reliability.counts import examples
from tests.reliability.determinism import RUNS, digest
from tests.reliability.processes import python

# what must not matter: name -> (arguments, folder, environment)
TWO = {"NUMBA_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
PLACES: dict[str, tuple[list[str], str, dict[str, str]]] = {
    "plain": ([], ".", {"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC"}),
    "elsewhere": (["--reversed"], "/", {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo"}),
    "later": (["--late"], ".", {"PYTHONHASHSEED": "2", **TWO}),
}
MORE: dict[str, tuple[list[str], str, dict[str, str]]] = {
    "hash seed 3": (["--reversed", "--late"], "/", {"PYTHONHASHSEED": "3", "LC_ALL": "C"}),
    "hash seed 4": ([], "/", {"PYTHONHASHSEED": "4", "TZ": "America/New_York"}),
}
PLACES |= examples({}, MORE, MORE)
THREADS = (1, 2, 4)


def digests(place: str, tmp_path: Path) -> dict[str, str]:
    arguments, folder, variables = PLACES[place]
    done = python(["-m", "tests.reliability.determinism", *arguments], tmp_path / folder, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_results_do_not_depend_on_surroundings(tmp_path: Path) -> None:
    """Hash seed, locale, time zone, working folder, order of runs, earlier runs, order of imports, threads.

    (These networks are so small that BLAS is held to one thread; for others see the last test.)
    """
    plain = digests("plain", tmp_path)
    assert len(set(plain.values())) == len(RUNS)  # they are different runs
    for place in PLACES:
        if place != "plain" and (place != "later" or (os.cpu_count() or 1) > 1):
            assert digests(place, tmp_path) == plain, place
    here = {str(k): digest(*run) for k, run in enumerate(RUNS)}
    assert here == plain  # nor on the process being this one


def test_two_runs_in_a_row_are_equal_and_another_seed_is_not() -> None:
    method, settings, parts = RUNS[1]
    first = digest(method, settings, parts)
    assert digest(method, settings, parts) == first
    assert digest(method, settings, {**parts, "seed": 1}) != first


def on_threads(count: int, what):
    """`what()` with so many threads of BLAS and of the kernels."""
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    with threadpool_limits(count):
        return what()


@pytest.mark.parametrize("allocation", [Global(), Uniform(), ERK()])
def test_equal_scores_give_equal_masks_on_any_number_of_threads(allocation) -> None:
    rng = np.random.default_rng(0)
    network = make("mlp:300-200-100-10", (300,), 10)
    shapes = layer_shapes(network)
    # a third of all scores are equal
    scores = {name: np.round(rng.standard_normal(shape.matrix), 1) for name, shape in shapes.items()}
    one, *others = (
        on_threads(n, lambda: select(scores, shapes, 0.9, allocation, Unstructured())) for n in THREADS
    )
    for name in scores:
        for other in others:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-14)])
def test_a_step_agrees_over_numbers_of_threads(dtype: str, bound: float) -> None:
    """Relative to the largest entry; not bit for bit, which BLAS does not promise."""
    rng = np.random.default_rng(1)
    network = make("lenet-300-100", (1, 28, 28), 10, seed=0).astype(dtype)
    x, y = rng.standard_normal((256, 1, 28, 28)).astype(dtype), rng.integers(0, 10, 256)

    def gradients() -> dict[str, np.ndarray]:
        loss = LOSSES["cross-entropy"]()
        loss.value(network.forward(x, EVAL), y)
        network.backward(loss.grad())
        return {name: p.grad.copy() for name, p in network.params().items()}

    one, *others = (on_threads(n, gradients) for n in THREADS)
    for name, g in one.items():
        for other in others:
            assert np.abs(g - other[name]).max() <= bound * np.abs(g).max(), name


def test_earlier_results_are_not_changed_by_later_runs() -> None:
    spec = RunSpec("rigl", (("sparsity", "0.8"),), model="mlp:64-12-10", epochs=1, batch=512)
    first = execute(spec)
    assert first.network is not None
    before = {name: array.copy() for name, array in first.network.state().items()}
    history = json.dumps(first.history)
    execute(RunSpec("rigl", (("sparsity", "0.8"),), model="mlp:64-12-10", epochs=1, batch=512, seed=1))
    assert json.dumps(first.history) == history
    assert all(np.array_equal(before[name], array) for name, array in first.network.state().items())


def test_data_sets_given_out_twice_are_the_same_and_cannot_be_written() -> None:
    one, two = ms.data.load("digits"), ms.data.load("digits")
    assert isinstance(one, Dataset) and np.array_equal(one.train_x, two.train_x)
    with pytest.raises(ValueError, match="read-only"):
        one.train_x[0] = 1
