"""Side by side of storages, and SRigL's layer in all formats: tables, equal products, estimates."""

import numpy as np
import pytest

from minisparse.cli.bench import BENCHES
from minisparse.experiments import dynamic_scale, srigl_speed
from minisparse.experiments.bench_sparse_training import Sizes, drawn, large, state_of, step
from minisparse.experiments.dynamic_scale import Case
from minisparse.nn.models import make

SIZES = Sizes(rounds=2, units=300, samples=256, part=128, inputs=50, fan_in=5, factors=(0.5, 1.0))


def tables(rows):
    found = {}
    for row in rows:
        found.setdefault(next(iter(row)), []).append(row)
    return found


def test_tables_of_the_side_by_side():
    rows = dynamic_scale.records((1,), sizes=SIZES, cases=(Case("mlp:40-50-30-10", 40, 0.8),))
    found = tables(rows)
    assert list(found) == ["side by side", "large network", "epoch", "linear fit"]
    pairs = [(row["method"], row["storage"]) for row in found["side by side"]]
    assert pairs == [("set", "csr"), ("rigl", "csr"), ("set", "masked"), ("rigl", "masked")]
    assert len({row["connections"] for row in found["side by side"]}) == 1
    csr, _, masked, _ = found["side by side"]
    assert csr["held_MB"] < masked["held_MB"] and csr["step_ms"] > 0 < csr["exchange_ms"]
    (big,) = found["large network"]
    assert big["connections"] == 1500 and big["measured"] == 1
    half, whole = found["epoch"]
    assert (half["connections"], whole["connections"]) == (750, 1500)
    assert {"fixed_s", "slope_ns/sample", "R2"} <= found["linear fit"][0].keys()


def test_an_estimated_exchange_is_of_the_order_of_the_measured_one(monkeypatch):
    network, _ = large(SIZES, 1.0)
    x, target = drawn(64, 50, 0)
    state = state_of(network, x, target)
    state.step = 1
    step(state, x, target)
    flats = {name: layer.weight.flat for name, layer in network.prunable().items()}
    monkeypatch.setattr(dynamic_scale, "MOST", 100)
    seconds, share = dynamic_scale.rigl_exchange(state)
    size = sum(layer.weight.size for layer in network.prunable().values())
    assert share == 100 / size and seconds > 0
    for name, layer in network.prunable().items():  # only looked at
        np.testing.assert_array_equal(layer.weight.flat, flats[name])
    monkeypatch.undo()
    assert dynamic_scale.rigl_exchange(state)[1] == 1
    assert any((layer.weight.flat != flats[n]).any() for n, layer in network.prunable().items())


def test_an_exchange_is_estimated_where_the_rows_that_are_looked_at_have_little_room(monkeypatch):
    network = make("mlp:20-40-10", (20,), 10)
    for layer in network.prunable().values():
        mask = np.zeros(layer.weight.shape, dtype=bool)
        mask[: len(mask) // 2] = True
        layer.weight.rewire(mask)
        layer.weight.assign(np.where(np.arange(len(mask)) < 5, 10.0, 1.0)[:, None] * layer.weight.dense())
    x, target = drawn(16, 20, 0)
    state = state_of(network, x, target)
    step(state, x, target)
    monkeypatch.setattr(dynamic_scale, "MOST", 100)
    monkeypatch.setattr("minisparse.nn.layer.block_rows", lambda *sizes: 5)
    assert dynamic_scale.rigl_exchange(state)[0] > 0


@pytest.mark.parametrize("gamma", srigl_speed.GAMMAS)
def test_all_formats_of_srigls_layer_give_the_same_product(gamma):
    found = srigl_speed.trained_layer(0.9, gamma, (48, 96), epochs=2)
    fans = np.bincount(found.weight.flat // 96, minlength=48)
    assert set(fans[fans > 0]) == {found.weight.kept // found.active}
    assert (found.active == 48) == (gamma == 0)
    for batch in (1, 5):
        x = np.random.default_rng(0).standard_normal((batch, 96)).astype(np.float32)
        works = srigl_speed.products(found.weight, x)
        assert {"masked", "condensed", "structured", "sliced", srigl_speed.SCIPY} <= works.keys()
        expected = x @ found.weight.dense().T
        for name, (work, size) in works.items():
            np.testing.assert_allclose(work(), expected, rtol=1e-4, atol=1e-4, err_msg=name)
            assert size is None or 0 < size < 1e6


def test_the_table_of_srigls_layer(monkeypatch):
    monkeypatch.setattr(srigl_speed, "GAMMAS", (0.0,))
    rows = srigl_speed.records((1,), quick=True, shape=(32, 64))
    assert {row["batch"] for row in rows} == {1, 256} and len({tuple(row) for row in rows}) == 1
    for batch in (1, 256):
        own = {row["format"]: row for row in rows if row["batch"] == batch}
        assert own["masked"]["masked/it"] == own[srigl_speed.SCIPY]["SciPy/it"] == 1
        assert sum(row["compress"] != "" for row in own.values()) <= 1
        ratio = own["masked"]["median_us"] / own["condensed"]["median_us"]
        assert own["condensed"]["masked/it"] == pytest.approx(ratio)
        assert (own["condensed"]["active"], own["condensed"]["fan_in"]) == (32, 6)


def test_both_are_benchmarks_of_the_command():
    assert {"dynamic", "srigl"} <= BENCHES.keys()
