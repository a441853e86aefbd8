"""G-1 to G-5 where no other file has them: bad values, poisoned layers, singular curvature, odd sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from minisparse.data.dataset import Dataset
from minisparse.errors import MinisparseError, NonFiniteError, UsageError
from minisparse.experiments.runner import execute
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.methods.base import Method
from minisparse.methods.dense import Dense
from minisparse.methods.registry import catalogue
from minisparse.nn.layer import Layer
from minisparse.nn.lr import Constant
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.training import run as module
from minisparse.training.run import Run, train
from tests.reliability.counts import examples

Array = np.ndarray
SPARSE = [name for name, entry in catalogue().items() if "sparsity" in {f.name for f in fields(entry.cls)}]
BAD = (1.0, -0.1, 90, float("nan"), float("inf"), True, "0.5", 0.5j, [0.5])


@pytest.mark.parametrize("name", SPARSE)
def test_no_method_takes_a_sparsity_that_is_none(name: str) -> None:
    assert catalogue()[name].cls(sparsity=np.float32(0.5)).sparsity == 0.5  # type: ignore[call-arg]
    for bad in BAD:
        with pytest.raises(UsageError, match="sparsity") as caught:
            catalogue()[name].cls(sparsity=bad)  # type: ignore[call-arg]
        assert "\n" not in str(caught.value)


def data(
    shape: tuple[int, ...], classes: int = 3, n: int = 24, change: Callable[[Array], Array] = lambda x: x
) -> Dataset:
    rng = np.random.default_rng(0)
    x = change(rng.standard_normal((n, *shape)).astype(np.float32))
    y = rng.integers(0, classes, n)
    return Dataset("small", x, y, x, y, classes)


class Poison(Dense):
    """From step 2 on, one entry of a layer's output is this."""

    def __init__(self, layer: str, value: float) -> None:
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "value", value)

    def before_forward(self, state) -> None:
        if state.step == 2:
            spoil(dict(state.network.walk())[self.layer], self.value)


def spoil(layer: Layer, value: float) -> None:
    real = layer.forward

    def forward(x: Array, mode=None) -> Array:
        y = real(x) if mode is None else real(x, mode)
        y = y.copy()
        y.reshape(-1)[0] = value
        return y

    layer.forward = forward  # type: ignore[method-assign]


def leaves(network: Network) -> list[str]:
    """Layers that have no layers within."""
    names = [name for name, _ in network.walk()]
    return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]


MODELS = {"lenet-5": (1, 8, 8), "resnet-20:0.125": (3, 8, 8), "mlp:5-4-3:tanh": (5,)}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_poisoned_output_of_any_layer_stops_the_run_at_that_step(model: str, value: float) -> None:
    shape = MODELS[model]
    network = make(model, shape, 3)
    problem = data(shape)
    for name in leaves(network):
        with np.errstate(all="ignore"):
            run = train(network, problem, Poison(name, value), epochs=2, batch=6)
        if run.status == "done":  # tanh and ReLU may hide one infinite number, and then nothing diverges
            assert value == np.inf and all(np.isfinite(a).all() for a in run.network.state().values()), name
            continue
        assert (run.status, run.steps) == ("diverged", 2), name
        assert "at step 2" in run.note and ("layer" in run.note or "gradient of" in run.note), run.note
        assert "\n" not in run.note


def test_poisoned_data_is_found_at_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set refuses such samples; here they come in behind it."""

    def poisoned(*args: object):
        for k, (x, y) in enumerate(real(*args)):  # type: ignore[arg-type]
            x[0, 0] = np.nan if k == 3 else x[0, 0]
            yield x, y

    real = module.batches
    monkeypatch.setattr(module, "batches", poisoned)
    network = make("mlp:5-4-3", (5,), 3)
    with pytest.raises(NonFiniteError, match="at step 3: loss is nan.*output of layer 0 'flatten'"):
        train(network, data((5,)), Dense(), epochs=2, batch=6, strict=True)


@pytest.mark.parametrize("model", ["mlp:5-4-3", "lenet-5"])
def test_an_absurd_rate_ends_as_diverged_without_a_warning(model: str) -> None:
    shape = {"mlp:5-4-3": (5,), "lenet-5": (1, 8, 8)}[model]
    with np.errstate(all="ignore"):
        run = train(make(model, shape, 3), data(shape), Dense(), epochs=3, batch=6, rate=Constant(1e30))
    assert run.status == "diverged" and np.isnan(run.accuracy) and run.steps < 12


def test_a_run_that_diverged_is_a_result_and_keeps_its_network(tmp_path: Path) -> None:
    spec = RunSpec("dense", model="mlp:64-6-10", epochs=1, batch=512, rate="constant:lr=1e30")
    with np.errstate(all="ignore"):
        outcome = execute(spec)
    assert outcome.status == "diverged" and outcome.finished
    with Store(tmp_path) as store:
        store.put(outcome)
        assert store.get(spec.key) is not None
        kept = store.network(spec.key).state()
    assert outcome.network is not None
    for key, value in outcome.network.state().items():
        np.testing.assert_array_equal(kept[key], value)


def copies(x: Array) -> Array:
    return np.repeat(x[:1], len(x), axis=0)


def zeros(x: Array) -> Array:
    return np.zeros_like(x)


# degenerate problems: all of them have singular or empty curvature somewhere
PROBLEMS: dict[str, Callable[[], tuple[Network, Dataset]]] = {
    "one sample": lambda: (make("mlp:5-4-3", (5,), 3), data((5,), n=1)),
    "one feature": lambda: (make("mlp:1-3-3", (1,), 3), data((1,))),
    "layers of one": lambda: (make("mlp:1-1-2", (1,), 2), data((1,), classes=2)),
    "equal samples": lambda: (make("mlp:5-4-3", (5,), 3), data((5,), change=copies)),
    "samples of zeros": lambda: (make("mlp:5-4-3", (5,), 3), data((5,), change=zeros)),
    "equal labels": lambda: (make("mlp:5-4-3", (5,), 3), one_label()),
    "columns a million apart": lambda: (make("mlp:5-4-3", (5,), 3), data((5,), change=spread)),
}


def one_label() -> Dataset:
    found = data((5,))
    y = np.full(len(found.train_y), 1)
    return Dataset("one label", found.train_x, y, found.test_x, y, 3)


def spread(x: Array) -> Array:
    return (x * np.logspace(-6, 6, x.shape[1])).astype(np.float32)


# silent data, equal weights and single units are in the promises of every method (minisparse.testing) too
FEWER = ("one sample", "layers of one", "columns a million apart")
CHOSEN = examples(FEWER, tuple(PROBLEMS), tuple(PROBLEMS))


@pytest.mark.parametrize("problem", CHOSEN)
def test_every_method_has_a_defined_end_on_degenerate_problems(problem: str) -> None:
    """A finite network, a divergence that is told, or an error of ours; never one of NumPy's or Python's."""
    network, given = PROBLEMS[problem]()
    for name in catalogue():
        method: Method = catalogue()[name].cls()
        try:
            with np.errstate(all="ignore"):
                run: Run = train(network, given, method, epochs=2, batch=6)
        except MinisparseError as error:
            assert "\n" not in str(error), name
            continue
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__} {error}") from error
        if run.status != "diverged":
            assert all(np.isfinite(a).all() for a in run.network.state().values()), name
            assert 0 <= run.accuracy <= 1


def test_a_batch_larger_than_the_data_is_the_data() -> None:
    network, given = make("mlp:5-4-3", (5,), 3), data((5,))
    large, exact = (train(network, given, Dense(), epochs=2, batch=n) for n in (10**6, 24))
    assert large.steps == exact.steps == 2
    for key, value in large.network.state().items():
        np.testing.assert_array_equal(value, exact.network.state()[key])
