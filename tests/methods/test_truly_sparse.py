"""Networks born sparse train, statically or dynamically, and nothing of a matrix's size is formed."""

import numpy as np
import pytest

from minisparse.methods.dense import Dense
from minisparse.methods.dynamic.deep_r import DeepR
from minisparse.methods.dynamic.dsr import DSR
from minisparse.methods.dynamic.granet import GraNet
from minisparse.methods.dynamic.importance_pruning import ImportancePruning
from minisparse.methods.dynamic.itop import ITOP
from minisparse.methods.dynamic.mest import MEST
from minisparse.methods.dynamic.rigl import RigL
from minisparse.methods.dynamic.set import SET
from minisparse.methods.dynamic.snfs import SNFS
from minisparse.methods.dynamic.srigl import SRigL
from minisparse.nn.optim import SGD, Adam
from minisparse.sparsity import Global, Uniform, kept_count
from minisparse.training.run import train
from minisparse.weights.stored import StoredWeight
from tests.methods.dynamics import trained_state
from tests.methods.problems import clusters, mlp, state_of
from tests.methods.spy import (
    DenseFormed,
    born_condensed,
    born_sparse,
    born_sparse_convolution,
    no_matrices,
    peak_bytes,
)

SPARSITY, WIDTH = 0.998, 6000
MASK_BYTES = WIDTH * WIDTH
METHODS = {
    "static": Dense(),
    "set": SET(SPARSITY),
    "rigl": RigL(SPARSITY, every=2),
    "deep-r": DeepR(SPARSITY, l1=1e-3, temperature=1e-6),
    "dsr": DSR(SPARSITY, every=2, threshold=0.01),
    "srigl": SRigL(SPARSITY, every=2, gamma=0.5),
    "granet": GraNet(SPARSITY, initial=SPARSITY, every=2),
    "granet-shrinking": GraNet(0.998, initial=SPARSITY, every=2),
    "itop": ITOP(SPARSITY, every=2),
    "itop-random": ITOP(SPARSITY, every=2, growth="random"),
    "mest": MEST(SPARSITY, every=2, soft=True),
    "importance-pruning": ImportancePruning(SPARSITY, begin=0.0, every=1),
}


def data_for(network):
    return clusters(np.random.default_rng(0), network.input_shape)


def run(network, data, method, optimizer=None, epochs=3):
    """Train, three steps an epoch; which topologies were seen."""
    seen = set()

    def watch(state):
        flats = [layer.weight.flat for layer in state.network.prunable().values()]
        seen.add(tuple(hash(flat.tobytes()) for flat in flats))

    result = train(network, data, method, epochs=epochs, batch=16, optimizer=optimizer, progress=watch)
    assert all(isinstance(x.weight, StoredWeight) for x in result.network.prunable().values())
    return seen


def watched_peak(small, network, method, optimizer=SGD, epochs=3):
    """(most bytes of a run, how many topologies it saw), nothing of a matrix's size having been asked for."""
    found, data = [], data_for(network)
    with no_matrices():
        run(small, data_for(small), method, optimizer(), epochs)  # so that compiling is not counted
        peak = peak_bytes(lambda: found.append(run(network, data, method, optimizer(), epochs)))
    return peak, len(found[0])


@pytest.mark.parametrize("name", METHODS)
def test_training_takes_a_fraction_of_a_mask(name):
    small, network = born_sparse(300, SPARSITY), born_sparse(WIDTH, SPARSITY)
    peak, topologies = watched_peak(small, network, METHODS[name])
    assert peak < MASK_BYTES / 3
    assert topologies > 1 or name == "static"


def test_adam_and_condensed_weights_too():
    small, network = born_condensed(300, 15), born_condensed(WIDTH, 15)
    method = SRigL(SPARSITY, every=2, gamma=0.5, allocation=Uniform())
    peak, topologies = watched_peak(small, network, method, Adam)
    assert peak < MASK_BYTES / 3 and topologies > 1


@pytest.mark.parametrize("method", [SET(0.998), RigL(0.998, every=2), SRigL(0.998, every=2)])
def test_convolutions_too(method):
    # 2000 x 18000: a mask has 36 MB, the patches of 18 samples 2.6
    small, network = born_sparse_convolution(30, 0.9), born_sparse_convolution(2000, 0.998)
    peak, topologies = watched_peak(small, network, method, epochs=2)
    assert topologies > 1 and peak < 2000 * 18000 * 2 / 3


def test_the_spy_sees_what_it_is_there_to_see():
    network = born_sparse(WIDTH, SPARSITY)
    weight = network.prunable()["fc1"].weight
    assert peak_bytes(lambda: weight.mask) >= MASK_BYTES
    with no_matrices():
        for ask in (lambda: weight.mask, weight.dense, network.prunable()["fc1"].dense_grad):
            with pytest.raises(DenseFormed):
                ask()
        with pytest.raises(DenseFormed):
            small = born_sparse(50, 0.9)
            run(small, data_for(small), SNFS(0.9))  # dense by its definition
    assert weight.mask.sum() == weight.kept


@pytest.mark.parametrize("method", [SET(0.9), RigL(0.9), RigL(0.9, allocation=Global()), DSR(0.9)])
def test_a_network_that_is_sparse_as_asked_keeps_topology_and_values(method):
    network = born_sparse(30, 0.9)
    before = {n: (x.weight.flat, x.weight.values.copy()) for n, x in network.prunable().items()}
    state = state_of(network, np.zeros((2, 30)), np.zeros(2, dtype=int), seed=9)
    method.setup(state)
    for name, layer in network.prunable().items():
        np.testing.assert_array_equal(layer.weight.flat, before[name][0])
        np.testing.assert_array_equal(layer.weight.values, before[name][1])
    type(method)(0.8).setup(state)
    assert sum(x.weight.kept for x in network.prunable().values()) == kept_count(990, 0.8)


@pytest.mark.parametrize("allocation", [Global(), Uniform()])
def test_first_topologies_are_random_of_exact_size(allocation):
    seen = []
    for seed in range(20):
        network = mlp((8, 10, 3), np.random.default_rng(0))
        trained_state(RigL(0.7, allocation=allocation), network, seed)
        masks = network.masks().values()
        assert sum(int(mask.sum()) for mask in masks) == kept_count(110, 0.7)
        seen.append(tuple(int(mask.sum()) for mask in masks))
    assert (len(set(seen)) > 1) == (allocation == Global())


def test_momentum_slots_follow_their_entries():
    network = born_sparse(40, 0.9)
    method = SET(0.9)
    state = trained_state(method, network.astype(np.float64))
    state.step = state.steps_per_epoch
    slot = lambda name: state.optimizer.slots[f"{name}.weight"]["u"].copy()  # noqa: E731
    before = {n: dict(zip(x.weight.flat, slot(n), strict=True)) for n, x in state.network.prunable().items()}
    method.after_update(state)
    moved = 0
    for name, layer in state.network.prunable().items():
        for flat, now in zip(layer.weight.flat, slot(name), strict=True):
            assert now == before[name].get(flat, 0.0)
            moved += flat not in before[name]
    assert moved > 20 and isinstance(state.optimizer, SGD)
