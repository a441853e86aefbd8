"""The per-layer table against counting by hand."""

from itertools import product

import numpy as np
import pytest

from minisparse.experiments.inspect import dense_macs, forward_seconds, layer_table, others, stored_bytes
from minisparse.nn.models import make
from minisparse.nn.network import Network
from minisparse.rng import generator


def pruned(name: str, shape: tuple[int, ...], dtype: str = "float32") -> Network:
    net, rng = make(name, shape, 10).astype(np.dtype(dtype)), generator(0, "test")
    for layer in net.prunable().values():
        mask = rng.random(layer.weight.shape) < 0.1
        mask[: len(mask) // 3] = False
        layer.weight.rewire(mask)
    return net


def counted(mask: np.ndarray, item: int) -> dict[str, int]:
    """Every number of a row, one entry at a time."""
    out, inputs = mask.shape
    present = [(o, i) for o, i in product(range(out), range(inputs)) if mask[o, i]]
    return {
        "kept": len(present),
        "total": out * inputs,
        "dead_in": inputs - len({i for _, i in present}),
        "dead_out": out - len({o for o, _ in present}),
        "dense": out * inputs * item,
        "csr": len(present) * (item + 4) + 4 * (out + 1),
        "bitmask": len(present) * item + (out * inputs + 7) // 8,
    }


@pytest.mark.parametrize(("dtype", "item"), [("float32", 4), ("float64", 8)])
@pytest.mark.parametrize(
    ("name", "shape", "positions"),
    [
        ("mlp:64-16-10", (1, 8, 8), {}),
        ("lenet-5", (1, 8, 8), {"conv1": 64, "conv2": 16}),
    ],
)
def test_rows(name: str, shape: tuple[int, ...], positions: dict[str, int], dtype: str, item: int) -> None:
    net = pruned(name, shape, dtype)
    rows = layer_table(net)
    assert [row.name for row in rows] == list(net.prunable())
    totals = dict.fromkeys(("dense", "csr", "bitmask"), 0)
    for row in rows:
        mask = net.masks()[row.name]
        expected = counted(mask, item)
        assert row.shape == mask.shape
        assert row.positions == positions.get(row.name, 1)
        assert row.macs == expected["kept"] * row.positions
        assert row.flops == 2 * row.macs
        assert row.sparsity == pytest.approx(1 - expected["kept"] / expected["total"], abs=1e-15)
        for key in ("kept", "total", "dead_in", "dead_out"):
            assert getattr(row, key) == expected[key]
        for key in totals:
            assert row.bytes[key] == expected[key]
            totals[key] += expected[key]
    biases = sum(layer.weight.shape[0] for layer in net.prunable().values())
    assert sum(a.size for a in others(net)) == biases
    assert stored_bytes(net, rows) == {key: total + biases * item for key, total in totals.items()}
    assert dense_macs(rows) == sum(row.total * positions.get(row.name, 1) for row in rows)


def test_macs_are_what_a_dense_product_would_count() -> None:
    """All weights present: MACs of a convolution are its multiplications, position by position."""
    net = make("conv-2", (3, 8, 8), 10)
    rows = {row.name: row for row in layer_table(net)}
    assert rows["conv2"].macs == sum(64 * 64 * 9 for _ in range(8 * 8))


def test_normalisation_counts_as_a_parameter_but_not_as_prunable() -> None:
    net = make("resnet-20:0.125", (3, 8, 8), 10)
    total = sum(p.value.size for p in net.params().values())
    assert sum(a.size for a in others(net)) + sum(row.total for row in layer_table(net)) == total


def test_forward_time_is_measured_and_leaves_the_network_alone() -> None:
    net = pruned("mlp:64-16-10", (1, 8, 8))
    before = net.state()
    assert 0 < forward_seconds(net, batch=4, repeats=3) < 10
    assert all(np.array_equal(before[key], value) for key, value in net.state().items())
