"""Networks born sparse: their topology, their values, and that no matrix is ever formed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.data.registry import load
from minisparse.errors import MinisparseError, SparsityError, UnknownNameError, UsageError
from minisparse.methods.base import layer_shapes
from minisparse.nn.init import INITIALIZERS
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.nn.weight import MaskedWeight
from minisparse.rng import generator
from minisparse.sparsity.allocation import ERK, ErdosRenyi, FirstDense, Global, Uniform
from minisparse.sparsity.count import kept_count
from minisparse.training.born import DRAWS, build_sparse, make_sparse, unit_std
from minisparse.weights.csr import CSRWeight
from minisparse.weights.sliced import SlicedWeight
from minisparse.weights.stored import StoredWeight

MODELS = {"mlp:12-30-20-5": ((12,), 5), "lenet-5": ((1, 8, 8), 10), "resnet-20:0.125": ((3, 8, 8), 5)}


def size_of(network: Network) -> int:
    return sum(layer.weight.size for layer in network.prunable().values())


def born(sparsity: float = 0.8, model: str = "mlp:12-30-20-5", **settings: object) -> Network:
    return make_sparse(model, *MODELS[model], sparsity, **settings)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rule", [ErdosRenyi(), ERK(), Uniform(), FirstDense(compensate=True), Global()])
def test_counts_are_the_allocations(model, rule):
    network = born(0.5, model, allocation=rule)
    kept = {name: layer.weight.kept for name, layer in network.prunable().items()}
    counts = rule.counts(layer_shapes(network), 0.5)
    assert sum(kept.values()) == kept_count(size_of(network), 0.5)
    assert counts is None or kept == counts
    for layer in network.prunable().values():
        full = layer.weight.kept == layer.weight.size
        assert type(layer.weight) is (MaskedWeight if full else CSRWeight)
    assert network.name == model and network.dtype == np.float32


def test_the_default_allocation_is_erdos_renyi():
    a, b, c = born(), born(allocation=ErdosRenyi()), born(allocation=Uniform())
    kept = [[x.weight.kept for x in n.prunable().values()] for n in (a, b, c)]
    assert kept[0] == kept[1] != kept[2]


@pytest.mark.parametrize("init", DRAWS)
def test_without_absent_weights_it_is_the_dense_network(init):
    dense = make("mlp:12-30-20-5", (12,), 5, seed=3, init=init).state()
    for key, value in born(0.0, seed=3, init=init).state().items():
        np.testing.assert_array_equal(value, dense[key])


@pytest.mark.parametrize("init", DRAWS)
def test_each_units_input_varies_as_in_the_dense_layer(init):
    """Equation (1): f_i var(w_ij) = n_in var(v_ij), whatever a unit's fan-in."""
    network = make_sparse("mlp:40-9000-2", (40,), 2, 0.8, allocation=Uniform(), init=init)
    weight = network.prunable()["fc1"].weight
    fan_in = np.bincount(weight.flat // 40, minlength=9000)
    rows = np.repeat(fan_in, fan_in)
    dense = INITIALIZERS[init]((9000, 40, 1, 1), generator(1, "oracle"))
    wanted = 40 * dense.var()
    counts = [f for f in np.unique(fan_in) if np.count_nonzero(rows == f) > 4000]
    assert len(counts) >= 5 and counts[-1] > 1.5 * counts[0]
    for f in counts:
        values = weight.values[rows == f].astype(float)
        assert f * values.var() == pytest.approx(wanted, rel=0.12)
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(values.size)


def test_the_rule_in_numbers():
    np.testing.assert_allclose(unit_std(np.array([1, 4, 16, 0]), 16, 0.5), [2.0, 1.0, 0.5, 2.0])


def squares(network: Network, x: np.ndarray) -> list[float]:
    """Mean square of the pre-activations, layer by layer."""
    found, y = [], x
    for layer in network.layers.values():
        y = layer.forward(y)
        if hasattr(layer, "weight"):
            found.append(float((y**2).mean()))
    return found


def test_a_deep_relu_network_keeps_its_signal_where_dense_variance_loses_it():
    """Evci et al.: with units' own fan-in the mean square is kept in depth; else it falls by the density."""
    width, density = 400, 0.05
    model = f"mlp:{'-'.join([str(width)] * 6)}-2"
    network = make_sparse(model, (width,), 2, 1 - density, allocation=Uniform())
    x = np.random.default_rng(0).standard_normal((200, width)).astype(np.float32)
    ours = squares(network, x)
    for layer in network.prunable().values():
        weight = layer.weight
        rows = weight.flat // width
        share = np.bincount(rows, minlength=weight.shape[0])[rows] / width
        weight.param.value[...] *= np.sqrt(share).astype(np.float32)
    control = squares(network, x)
    assert ours[4] / ours[0] == pytest.approx(1, abs=0.5)
    assert control[4] / control[0] == pytest.approx(density**4, rel=0.5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9, 0.97]))
def test_the_seed_decides_all(seed, sparsity):
    a, b, c = (born(sparsity, seed=s) for s in (seed, seed, seed + 1))
    for name, layer in a.prunable().items():
        twin, other = b.prunable()[name].weight, c.prunable()[name].weight
        np.testing.assert_array_equal(layer.weight.flat, twin.flat)
        np.testing.assert_array_equal(layer.weight.values, twin.values)
        if layer.weight.kept < layer.weight.size:
            assert not np.array_equal(layer.weight.flat, other.flat)


def test_every_position_is_as_likely_as_any_other():
    masks = sum(born(0.7, seed=s, allocation=Uniform()).masks()["fc1"].astype(int) for s in range(400))
    share = masks / 400
    assert share.mean() == pytest.approx(0.3, abs=0.01)
    assert np.abs(share - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 400)


def test_formats():
    masks = [born(storage=s).masks() for s in ("csr", "sliced", "panels")]
    for other in masks[1:]:
        assert all(np.array_equal(m, masks[0][name]) for name, m in other.items())
    assert isinstance(born(storage="sliced").prunable()["fc1"].weight, SlicedWeight)
    with pytest.raises(MinisparseError, match="condensed"):
        born(storage="condensed")


def test_outputs_are_those_of_the_same_masked_network():
    network = born(0.8, "lenet-5")
    x = np.random.default_rng(0).standard_normal((5, 1, 8, 8)).astype(np.float32)
    masked = network.copy()
    for layer in masked.prunable().values():
        weight = layer.weight
        layer.weight = MaskedWeight(weight.dense().copy(), weight.geometry, weight.mask)
    np.testing.assert_allclose(network.predict(x), masked.predict(x), rtol=1e-4, atol=1e-5)


def test_shapes_may_come_from_a_data_set():
    network = build_sparse("lenet-300-100", load("digits"), 0.5, seed=1)
    assert (network.input_shape, network.outputs) == ((1, 8, 8), 10)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"sparsity": 90}, SparsityError, "expected 0 <= sparsity < 1"),
        ({"storage": "csrr"}, UnknownNameError, "csrr"),
        ({"storage": "masked"}, UnknownNameError, "masked"),
        ({"init": "orthogonal"}, UsageError, "expected one of kaiming-normal"),
        ({"init": "x"}, UnknownNameError, "initializer"),
        ({"allocation": FirstDense(compensate=True), "sparsity": 0.99}, SparsityError, "first-dense"),
    ],
)
def test_what_cannot_be_is_refused(settings, error, words):
    with pytest.raises(error, match=words):
        born(**settings)
    with pytest.raises(MinisparseError):
        make_sparse("nothing", (3,), 2, 0.5)


def test_no_matrix_is_formed_for_a_wide_network(monkeypatch):
    """A layer of 60,000 x 60,000 entries: 3.6 GB as a mask, 14 GB as a matrix."""

    def dense(self):
        raise AssertionError("a matrix was asked for")

    monkeypatch.setattr(StoredWeight, "dense", dense)
    monkeypatch.setattr(StoredWeight, "mask", property(dense))
    network = make_sparse("mlp:50-60000-60000-10", (50,), 10, 1 - 400_000 / 3_603_600_000)
    kept = [layer.weight.kept for layer in network.prunable().values()]
    assert sum(kept) == 400_000
    held = sum(layer.weight.bytes for layer in network.prunable().values())
    assert held < 12 * 400_000 + 8 * 120_000
    assert network.forward(np.ones((2, 50), dtype=np.float32)).shape == (2, 10)
