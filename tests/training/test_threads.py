"""Threads of BLAS during a training: by size of the products, by who makes them, and given back."""

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import minisparse as ms
from minisparse.data import load
from minisparse.kernels.jit import COMPILED
from minisparse.nn.models import build, make
from minisparse.sparsity.schedule import OneShot
from minisparse.training.threads import BlasThreads, blas_threads
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
    assert blas_threads(build("lenet-300-100", load("digits")), 64) == 1
    assert blas_threads(make(WIDE, (2000,), 10), 64) is None
    assert blas_threads(make(WIDE, (2000,), 10), 2) == 1


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "reduced"])
def test_a_stored_layer_is_not_multiplied_by_blas(name):
    network = make(WIDE, (2000,), 10)
    layer = network.prunable()["fc1"]
    mask = np.zeros(layer.weight.shape, dtype=bool)
    mask[:, ::4] = True  # fits every format
    layer.weight.rewire(mask)
    layer.weight = convert(layer.weight, name)
    assert not layer.by_blas and blas_threads(network, 64) == 1


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
    assert blas_threads(network, 1024) == (1 if COMPILED else None) and blas_threads(wide, 1024) is None


def test_the_limit_follows_the_formats_and_is_lifted():
    network = make(WIDE, (2000,), 10)
    with BlasThreads(network, 64) as limit:
        assert threads() == {3}
        layer = network.prunable()["fc1"]
        layer.weight.rewire(np.arange(layer.weight.size).reshape(layer.weight.shape) % 20 == 0)
        layer.weight = convert(layer.weight, "csr")
        limit.suit(network)
        assert threads() == {1}
        layer.weight = convert(layer.weight, "masked")
        limit.suit(network)
        assert threads() == {3}
    with pytest.raises(KeyError), BlasThreads(network, 2):
        assert threads() == {1}
        raise KeyError
    assert threads() == {3}


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
