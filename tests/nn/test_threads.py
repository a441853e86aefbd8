"""Threads of BLAS during a training: by size of the products, by who makes them, and given back."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import minisparse as ms
from minisparse.data import load
from minisparse.kernels.jit import COMPILED
from minisparse.nn.models import build, make
from minisparse.nn.threads import LARGE, Threads, division, kernels_alone
from minisparse.sparsity.schedule import OneShot
from minisparse.weights.formats import FORMATS, convert

WIDE = "mlp:2000-2000-10"


def threads() -> set[int]:
    """Of all BLAS libraries of this process."""
    return {lib["num_threads"] for lib in ThreadpoolController().info() if lib["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def three_threads():
    """A number that nothing else sets."""
    with threadpool_limits(3, user_api="blas"):
        if threads() != {3}:
            pytest.skip("this BLAS has no more than one thread")
        yield


def test_a_second_thread_is_for_large_products():
    assert division(build("lenet-300-100", load("digits")).work(64)) == (1, None)
    assert division(make(WIDE, (2000,), 10).work(64)) == (None, None)
    assert division(make(WIDE, (2000,), 10).work(2)) == (1, None)


def test_one_of_the_two_has_several_threads():
    assert division([(True, LARGE), (False, LARGE)]) == (None, 1)
    assert division([(True, LARGE), (False, LARGE + 1)]) == (1, None)
    assert division([(True, LARGE - 1), (True, LARGE - 1)]) == (1, None)
    assert division([(False, 10 * LARGE)]) == (1, None) == division([])


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "reduced"])
def test_a_stored_layer_is_not_multiplied_by_blas(name):
    network = make(WIDE, (2000,), 10)
    layer = network.prunable()["fc1"]
    mask = np.zeros(layer.weight.shape, dtype=bool)
    mask[:, ::4] = True  # fits every format
    layer.weight.rewire(mask)
    layer.weight = convert(layer.weight, name)
    assert not layer.by_blas and division(network.work(64)) == (1, None)


def test_a_reduced_layer_is_a_smaller_matrix():
    layer = make(WIDE, (2000,), 10).prunable()["fc1"]
    layer.weight = convert(layer.weight, "reduced")
    assert layer.by_blas


def test_convolutions_are_ours_in_float32_and_unfolded_else():
    network = make("lenet-5", (1, 28, 28), 10)
    conv, fc = network.prunable()["conv1"], network.prunable()["fc1"]
    assert (conv.by_blas, fc.by_blas) == (not COMPILED, True)
    wide = network.astype(np.float64)
    assert wide.prunable()["conv1"].by_blas
    assert division(network.work(1024))[0] == (1 if COMPILED else None)
    assert division(wide.work(1024)) == (None, None)


def test_the_limit_follows_the_formats_and_is_lifted():
    network = make(WIDE, (2000,), 10)
    with Threads(network, 64) as limit:
        assert threads() == {3}
        layer = network.prunable()["fc1"]
        layer.weight.rewire(np.arange(layer.weight.size).reshape(layer.weight.shape) % 20 == 0)
        layer.weight = convert(layer.weight, "csr")
        limit.suit(network)
        assert threads() == {1}
        layer.weight = convert(layer.weight, "masked")
        limit.suit(network)
        assert threads() == {3}
    with pytest.raises(KeyError), Threads(network, 2):
        assert threads() == {1}
        raise KeyError
    assert threads() == {3}


def test_blocks_of_several_python_threads_end_in_any_order():
    first, second = kernels_alone(), kernels_alone()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert threads() == {1}
    second.__exit__(None, None, None)
    assert threads() == {3}


def test_a_mixed_network_that_blas_has_most_of_leaves_one_thread_to_kernels():
    network = make("mlp:100-2000-2000-10", (100,), 10)
    layer = network.prunable()["fc1"]
    layer.weight.rewire(np.arange(layer.weight.size).reshape(layer.weight.shape) % 20 == 0)
    layer.weight = convert(layer.weight, "csr")
    before = numba.get_num_threads()
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    with Threads(network, 64):
        assert threads() == {3} and numba.get_num_threads() == 1
    assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    numba.set_num_threads(before)


def test_predictions_divide_threads_too(monkeypatch):
    network, seen = make("mlp:20-8-10", (20,), 10), []
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda *args: seen.append(threads()) or forward(*args))
    network.predict(np.zeros((5, 20)), 2)
    assert seen == [{1}] * 3 and threads() == {3}


def test_training_follows_the_storage():
    data = ms.data.load("digits")
    network, seen = ms.models.build("mlp:64-600-600-10", data, seed=0), {}
    for storage in (None, "csr"):
        method = ms.Random(sparsity=0.9, schedule=OneShot(0.5))
        ms.train(
            network, data, method, epochs=1, batch=100, storage=storage,
            progress=lambda state, key=storage: seen.setdefault(key, []).append(threads()),
        )  # fmt: skip
        assert threads() == {3}
    assert seen[None] == [{3}] * len(seen[None])
    assert seen["csr"][0] == {3} and seen["csr"][-1] == {1}


@pytest.mark.parametrize(("given", "found"), [(None, "20"), ("26", "26")])
def test_idle_threads_of_blas_soon_sleep_unless_told_otherwise(given, found):
    """Set before NumPy, which reads it, is loaded."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_THREAD_TIMEOUT"}
    environment |= {} if given is None else {"OPENBLAS_THREAD_TIMEOUT": given}
    code = "import os, sys, minisparse; print(os.environ['OPENBLAS_THREAD_TIMEOUT'], 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert done.stdout.split() == [found.encode(), b"False"]
