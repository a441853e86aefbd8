"""The benchmark of sparse training: what rows hold and what bytes are counted; never how fast."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from minisparse.experiments import bench_sparse_training as bench
from minisparse.experiments.bench_memory import (
    activation_bytes,
    arrays_in,
    buffers,
    connection_bytes,
    resident,
)
from minisparse.experiments.bench_sparse_training import CASES, FULL, QUICK, Sizes, StepCase, connections
from minisparse.nn.linear import Linear
from minisparse.nn.network import Network
from minisparse.nn.weight import MaskedWeight

TINY = Sizes(rounds=2, units=90, samples=200, part=130, inputs=12, fan_in=4, factors=(0.5, 1.0, 2.0))
CASE = StepCase("mlp:20-30-10", 20, 0.7, "a target")


@pytest.fixture(scope="module")
def rows():
    before, bench.CASES = bench.CASES, (CASE,)
    try:
        return bench.records((1, 2), sizes=TINY)
    finally:
        bench.CASES = before


def test_rows_of_a_table_have_the_same_keys_and_tables_follow_each_other(rows):
    kinds = [next(iter(row)) for row in rows]
    assert kinds == ["sparse step"] * 2 + ["sparse epoch"] + ["cost"] * 3 + ["linear fit"]
    for kind in set(kinds):
        assert len({tuple(row) for row in rows if next(iter(row)) == kind}) == 1


def test_steps(rows):
    for row, threads in zip(rows[:2], (1, 2), strict=True):
        assert (row["sparse step"], row["threads"], row["target"]) == (CASE.model, threads, CASE.target)
        assert row["connections"] == 270  # 900 weights at 70 %
        assert 0 < row["q25_ms"] <= row["median_ms"] <= row["q75_ms"]
        assert row["dense/ours"] == pytest.approx(row["dense_ms"] / row["median_ms"])
        assert row["exchange_ms"] > 0


def test_cost_of_an_exchange():
    """Its own median and what the next step takes longer; a disturbed step never makes it cheaper."""
    assert bench.exchange_cost([3.0, 1, 2], [9.0, 7, 8], [5.0, 6, 4]) == 2 + (8 - 5)
    assert bench.exchange_cost([3.0, 1, 2], [4.0, 4, 1], [5.0, 6, 4]) == 2


def test_epoch(rows):
    row = rows[2]
    assert (row["units"], row["samples"], row["threads"]) == (90, 200, 2)
    assert row["connections"] == 360  # four for each unit
    parts = ("values_bytes", "gradients_bytes", "slots_bytes", "structure_bytes")
    assert row["held_bytes"] == pytest.approx(sum(row[name] for name in parts))
    assert row["values_bytes"] >= row["gradients_bytes"] == row["slots_bytes"] == 4
    assert row["structure_bytes"] > 2 and row["activations_MB"] > 0
    assert row["seconds"] >= row["step_s"] > 0
    assert (row["peak_MB"] is None) == (row["peak_bytes"] is None) == (resident() is None)


def test_costs_and_their_line(rows):
    costs, fit = rows[3:6], rows[6]
    assert [row["connections"] for row in costs] == [180, 360, 720]
    x = np.array([row["connections"] for row in costs])
    y = np.array([row["seconds"] for row in costs])
    fixed, slope = np.linalg.lstsq(np.stack([np.ones(3), x], 1), y, rcond=None)[0]
    assert fit["fixed_s"] == pytest.approx(fixed)
    assert fit["slope_ns"] == pytest.approx(1e9 * slope)
    assert fit["R2"] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)


def test_a_line_is_found():
    assert bench.line(np.array([1.0, 2, 4]), np.array([5.0, 7, 11])) == pytest.approx((3, 2, 1))
    fixed, slope, r2 = bench.line(np.array([1.0, 2, 3]), np.array([1.0, 3, 1]))
    assert (fixed, slope, r2) == pytest.approx((5 / 3, 0, 0))


def test_threads_are_set_while_measuring_and_put_back(monkeypatch):
    seen = []

    def stop(case, threads, sizes):
        seen.append((numba.get_num_threads(), threads))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "step_row", stop)
    before = numba.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        bench.records((1,), sizes=TINY)
    assert seen == [(1, 1)] and numba.get_num_threads() == before


def test_an_exchange_moves_connections_and_keeps_their_number():
    network, _ = bench.large(TINY, 1.0)
    state = bench.state_of(network, *bench.drawn(3, TINY.inputs, 0))
    bench.step(state, *bench.drawn(8, TINY.inputs, 0))
    before = {name: layer.weight.flat for name, layer in network.prunable().items()}
    count = connections(network)
    bench.exchange(state)
    after = {name: layer.weight.flat for name, layer in network.prunable().items()}
    assert connections(network) == count
    assert any(not np.array_equal(after[name], flat) for name, flat in before.items())


def test_a_step_learns():
    network, _ = bench.large(TINY, 1.0)
    x, target = bench.drawn(16, TINY.inputs, 0)
    state = bench.state_of(network, x, target)
    first = state.loss.value(network.forward(x), target)
    for _ in range(20):
        bench.step(state, x, target)
    assert state.loss.value(network.forward(x), target) < first


def test_targets_are_all_measured():
    found = {(case.model, case.sparsity): case.target for case in CASES}
    assert "P5" in found["set-mlp", 0.95] and "3 ms" in found["mlp:784-1000-1000-1000-10", 0.955]
    assert "8 ms" in found["set-mlp", 0.981]
    assert (FULL.units, FULL.samples, FULL.fan_in, FULL.factors) == (10**6, 10**4, 20, (0.25, 0.5, 1.0, 2.0))
    assert QUICK.units < FULL.units and QUICK.samples < FULL.samples


def test_memory_that_does_not_grow_with_the_batch(monkeypatch):
    """Equation (1): 1000 bytes, and 10 more for each sample."""
    network, _ = bench.large(TINY, 1.0)
    state = bench.state_of(network, *bench.drawn(3, TINY.inputs, 0))
    seen = []
    monkeypatch.setattr(bench, "step", lambda state, x, target: seen.append(len(x)))
    monkeypatch.setattr(bench, "resident", lambda what: 1000 + 10 * seen[-1])
    assert bench.lasting_bytes(state, TINY) == 1000
    monkeypatch.setattr(bench, "resident", lambda what: None)
    assert bench.lasting_bytes(state, TINY) is None


class Holder:
    """One of our own objects, with arrays in every kind of place."""

    __module__ = "minisparse.test"
    __slots__ = ("items", "twin")


def test_every_array_is_found_once_with_all_its_buffer():
    base = np.zeros(100, dtype=np.float32)
    holder = Holder()
    holder.items = {"a": [base[10:20]], "b": (base[50:], np.ones(3))}
    holder.twin = holder  # a circle
    assert len(list(arrays_in(holder))) == 3
    assert sorted(buffers(arrays_in(holder)).values()) == [24, 400]
    assert not list(arrays_in(np))  # modules and foreign objects are not looked into


def test_bytes_of_a_dense_layer_in_numbers():
    network = Network(
        {"fc": Linear(MaskedWeight(np.ones((4, 5), np.float32)), np.zeros(4, np.float32))}, (5,)
    )
    state = bench.state_of(network, np.ones((2, 5), np.float32), np.zeros(2, dtype=int))
    bench.step(state, state.train_x, state.train_t)
    assert connection_bytes(network, state.optimizer) == {
        "values": 80, "gradients": 80, "slots": 80, "structure": 0,
    }  # fmt: skip
    assert activation_bytes(network) == 2 * 5 * 4 + 2 * 4 * 4  # x and dy
    network.release()
    assert activation_bytes(network) == 0


def test_bytes_of_a_stored_layer_in_numbers():
    network, _ = bench.large(TINY, 1.0)
    state = bench.state_of(network, *bench.drawn(3, TINY.inputs, 0))
    weights = [layer.weight for layer in network.prunable().values()]
    held = connection_bytes(network, state.optimizer)
    entries, rows = sum(w.kept for w in weights), sum(w.shape[0] for w in weights)
    assert held["gradients"] == 4 * entries and held["slots"] == 0
    assert 4 * entries <= held["values"] <= 4 * entries + 64 * len(weights)  # a cache line of room
    assert held["structure"] == 2 * entries + 8 * (rows + len(weights))
    bench.step(state, *bench.drawn(8, TINY.inputs, 0))
    assert connection_bytes(network, state.optimizer)["slots"] == 4 * entries


def test_resident_memory_is_known_or_said_to_be_unknown():
    now, most = resident(), resident("VmHWM")
    assert now is None or 0 < now <= most
    assert resident("VmNothing") is None
