"""DCT plus sparse: what the offset gives at the start, its controls, and how the support moves."""

import numpy as np
import pytest

from minisparse import data as datasets
from minisparse.errors import UsageError
from minisparse.methods.dynamic.rigl import RigL, exchange
from minisparse.methods.random import Random
from minisparse.methods.subspace.dctps import SUPPORTS, DCTpS
from minisparse.nn import models
from minisparse.nn.optim import SGD
from minisparse.sparsity import EqualPerLayer, kept_count
from minisparse.training.run import train
from minisparse.weights.dct import cosine_rows
from tests.methods.problems import clusters, conv_net, descend, mlp, state_of

MOVES = tuple(name for name, grow in SUPPORTS.items() if grow is not None)


def started(method, widths=(6, 12, 9, 3), seed=0):
    """Network and state after setup, biases 0."""
    rng = np.random.default_rng(1)
    network = mlp(widths, rng, biases=False)
    state = state_of(network, rng.standard_normal((20, widths[0])), rng.integers(0, 3, 20), seed=seed)
    method.setup(state)
    return network, state


def supports(network):
    return {n: layer.weight.sparse.mask for n, layer in network.prunable().items()}


def test_at_the_start_it_is_the_network_of_transforms():
    network, state = started(DCTpS(0.9))
    x = state.train_x
    for width in (12, 9):
        x = np.maximum(cosine_rows(x, width), 0)
    np.testing.assert_allclose(network.forward(state.train_x), cosine_rows(x, 3), atol=1e-13)
    assert not any(layer.weight.sparse.dense().any() for layer in network.prunable().values())


def test_the_gradient_of_the_sparse_part_is_the_dense_gradient_on_its_support():
    network, state = started(DCTpS(0.8))
    descend(state)
    for layer in network.prunable().values():
        dense = layer.dense_grad()
        s = layer.weight.sparse
        np.testing.assert_allclose(s.grads, dense[s.mask], atol=1e-13)
        assert layer.weight.scale.grad[0] == pytest.approx((dense * layer.weight.offset()).sum(), abs=1e-12)


@pytest.mark.parametrize("support", SUPPORTS)
def test_only_the_support_its_scale_and_biases_are_trained_and_their_number_is_exact(support):
    network = mlp((6, 20, 12, 3), np.random.default_rng(2), dtype=np.float32)
    size = sum(layer.weight.size for layer in network.prunable().values())

    def watch(state):
        layers = state.network.prunable().values()
        assert sum(layer.weight.kept for layer in layers) == kept_count(size, 0.85)
        for layer in layers:
            s = layer.weight.sparse
            assert s.param.value.shape == s.param.grad.shape == (s.kept,)  # nothing absent is stored
        for name, layer in state.network.prunable().items():
            slots = state.optimizer.slots.get(f"{name}.weight", {})
            assert all(slot.shape == (layer.weight.kept,) for slot in slots.values())
        for layer in layers:
            s = layer.weight.sparse
            offset = layer.weight.dense() - s.dense()
            np.testing.assert_allclose(offset, layer.weight.scale.value * layer.weight.offset(), atol=1e-6)

    method = DCTpS(0.85, support=support, every=2)
    data = clusters(np.random.default_rng(3), (6,))
    run = train(network, data, method, epochs=4, batch=16, progress=watch)
    assert run.status == "done" and run.sparsity == pytest.approx(0.85, abs=0.5 / size)
    assert all(layer.weight.scale.value != 1 for layer in run.network.prunable().values())


def test_without_the_offset_it_is_its_control_bit_for_bit():
    network = mlp((6, 20, 12, 3), np.random.default_rng(2), dtype=np.float32)
    data = clusters(np.random.default_rng(3), (6,))
    pairs = {
        "static": (DCTpS(0.8, offset=False), Random(0.8)),
        "rigl": (DCTpS(0.8, support="rigl", offset=False, every=2), RigL(0.8, every=2)),
    }
    for ours, control in pairs.values():
        runs = [train(network, data, m, epochs=4, batch=16, seed=7).network.state() for m in (ours, control)]
        for key, value in runs[0].items():
            np.testing.assert_array_equal(value, runs[1][key])


def test_the_support_is_the_mask_of_the_controls():
    for allocation in (None, EqualPerLayer()):
        extra = {} if allocation is None else {"allocation": allocation}
        network, _ = started(DCTpS(0.8, **extra), seed=4)
        control, state = started(Random(0.8, **extra), seed=4)
        for name, support in supports(network).items():
            np.testing.assert_array_equal(support, control.masks()[name])


@pytest.mark.parametrize("support", MOVES)
def test_an_exchange_drops_the_smallest_and_keeps_the_count(support):
    method = DCTpS(0.7, support=support, every=5, drop=0.6)
    network, state = started(method)
    rng = np.random.default_rng(5)
    for layer in network.prunable().values():
        layer.weight.sparse.assign(rng.standard_normal(layer.weight.shape))
    descend(state)
    state.step = 5
    before = {n: layer.weight.sparse.dense().copy() for n, layer in network.prunable().items()}
    grads = {n: layer.dense_grad() for n, layer in network.prunable().items()}
    old = supports(network)
    method.update(state)
    f = 0.3 * (1 + np.cos(np.pi * 5 / (0.75 * state.horizon)))
    for name, new in supports(network).items():
        k = round(f * old[name].sum())
        s = network.prunable()[name].weight.sparse.dense()
        ranked = np.sort(np.abs(before[name][old[name]]))
        stayed = old[name] & (np.abs(before[name]) > ranked[k - 1])
        assert k > 0 and new.sum() == old[name].sum() and (new & stayed).sum() == stayed.sum()
        np.testing.assert_array_equal(s[stayed], before[name][stayed])
        assert not s[new & ~old[name]].any()
        if support == "rigl":
            positions = np.flatnonzero(old[name])
            wanted = exchange(positions, before[name].ravel()[positions], iter([grads[name]]), k)
            np.testing.assert_array_equal(np.flatnonzero(new), wanted)
    state.step = 6
    still = supports(network)
    descend(state)
    method.update(state)
    assert all((still[n] == m).all() for n, m in supports(network).items())


def test_it_trains_where_a_sparse_network_cannot():
    data, found = datasets.load("digits"), {True: [], False: []}
    for seed in range(3):
        network = models.build("mlp:64-128-64-10", data, seed=seed)
        for offset, accuracies in found.items():
            run = train(network, data, DCTpS(0.99, offset=offset), epochs=8, seed=seed)
            accuracies.append(run.accuracy)
    assert min(found[True]) > max(found[False])


def test_convolutions_get_an_offset_too():
    network = conv_net(np.random.default_rng(6), np.float32)
    data = clusters(np.random.default_rng(7), network.input_shape)
    run = train(network, data, DCTpS(0.9, support="rigl", every=2), epochs=3, batch=16)
    assert run.status == "done"
    for name, layer in run.network.prunable().items():
        assert layer.weight.geometry == network.prunable()[name].weight.geometry
        assert layer.weight.scale.value != 1


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_the_scale_moves_by_its_share_of_the_learning_rate(rate):
    network, state = started(DCTpS(0.8, rate=rate))
    state.optimizer = SGD(0.0, weight_decay=0.1)
    descend(state)
    DCTpS(0.8, rate=rate).update(state)
    for layer in network.prunable().values():
        scale = layer.weight.scale
        assert scale.value[0] == pytest.approx(1 - 0.1 * rate * scale.grad[0], rel=1e-12)
        assert scale.grad[0] != 0


@pytest.mark.parametrize(
    "wrong",
    [{"support": "dynamic"}, {"rate": -1}, {"offset": 1}, {"drop": 1.5}, {"every": 0}, {"until": -0.1}],
)
def test_settings_are_checked(wrong):
    with pytest.raises(UsageError):
        DCTpS(**wrong)
