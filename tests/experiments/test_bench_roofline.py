"""The roof on numbers that are known, and measurements that measure what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.experiments import roofline
from minisparse.kernels.lanes import LANES, aligned

rates = st.floats(1e-3, 1e6)


def test_the_bound_of_williams_on_both_sides_of_the_ridge():
    assert roofline.attainable(0.25, peak=100.0, bandwidth=20.0) == 5.0
    assert roofline.attainable(50.0, peak=100.0, bandwidth=20.0) == 100.0
    assert roofline.ridge(100.0, 20.0) == 5.0


@given(rates, rates, rates)
def test_the_bound_is_the_lower_of_both_and_they_meet_at_the_ridge(intensity, peak, bandwidth):
    bound = roofline.attainable(intensity, peak, bandwidth)
    assert bound <= peak and bound <= intensity * bandwidth
    assert bound == peak or bound == intensity * bandwidth
    corner = roofline.ridge(peak, bandwidth)
    assert roofline.attainable(corner, peak, bandwidth) == pytest.approx(peak)
    assert roofline.attainable(corner / 2, peak, bandwidth) == pytest.approx(peak / 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_reading_adds_up_every_number_as_often_as_asked(threads):
    x = aligned(threads * 3 * LANES * roofline.STREAMS)
    x[...] = np.arange(x.size) % 7
    sums = np.empty(threads, dtype=np.float32)
    roofline.read_all(x, sums, 5)
    np.testing.assert_array_equal(sums, 5 * x.reshape(threads, -1).sum(axis=1))


def test_multiply_adds_are_as_many_as_counted():
    """v <- v / 2 + 1 from k is 2 + (k - 2) / 2^n after n steps."""
    sums = np.empty(2, dtype=np.float32)
    roofline.multiply_all(sums, np.float32(0.5), 3)
    expected = LANES * sum(2 + (k - 2) / 8 for k in range(roofline.CHAINS))
    np.testing.assert_allclose(sums, expected, rtol=1e-6)


def test_measurements_have_every_level_and_kernel(monkeypatch):
    monkeypatch.setattr(roofline, "levels", lambda threads: {"L2": 1 << 16, "L3": 1 << 17, "RAM": 1 << 18})
    monkeypatch.setattr(roofline, "BYTES", 1e6)
    monkeypatch.setattr(roofline, "CALLS", 1000)
    monkeypatch.setattr(roofline, "SIDE", 32)
    found = roofline.machine(1)
    assert found["threads"] == 1
    assert list(found["bandwidth"]) == ["L2", "L3", "RAM"] and list(found["peak"]) == ["sgemm", "fma"]
    assert all(rate > 0 for part in ("bandwidth", "peak") for rate in found[part].values())


def test_rates_are_work_over_time(monkeypatch):
    """With a clock by which everything takes two seconds."""
    monkeypatch.setattr(roofline, "levels", lambda threads: {"RAM": 1 << 16})
    monkeypatch.setattr(roofline, "seconds", lambda work: 2.0)
    monkeypatch.setattr(roofline, "BYTES", 10.4 * (1 << 16))
    monkeypatch.setattr(roofline, "SIDE", 10)
    assert roofline.bandwidth(1) == {"RAM": pytest.approx(10 * (1 << 16) / 2e9)}
    fma = 2 * LANES * roofline.CHAINS * roofline.CALLS / 2e9
    assert roofline.peak(1) == {"sgemm": pytest.approx(2000 / 2e9), "fma": pytest.approx(fma)}


def test_cache_sizes_are_read_as_the_system_writes_them(tmp_path, monkeypatch):
    for at, facts in enumerate([("1", "Data", "48K"), ("2", "Unified", "1024K"), ("3", "Unified", "32M")]):
        (tmp_path / f"index{at}").mkdir()
        for name, text in zip(("level", "type", "size"), facts, strict=True):
            (tmp_path / f"index{at}" / name).write_text(f"{text}\n")
    monkeypatch.setattr(roofline, "CACHES", tmp_path)
    roofline.cache_size.cache_clear()
    try:
        assert (roofline.cache_size(2), roofline.cache_size(3)) == (1 << 20, 32 << 20)
        assert roofline.levels(2) == {"L2": 1 << 20, "L3": 8 << 20, "RAM": 128 << 20}
        assert roofline.levels(8)["L3"] == 16 << 20  # half of it at most
        monkeypatch.setattr(roofline, "CACHES", tmp_path / "nowhere")
        roofline.cache_size.cache_clear()
        assert roofline.cache_size(3) == roofline.USUAL[3]
    finally:
        roofline.cache_size.cache_clear()
