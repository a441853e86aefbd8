"""Break-even on curves whose crossing is known, and targets on records whose ratios are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.experiments.bench_cases import SWEEP, Target
from minisparse.experiments.bench_summary import (
    break_even,
    break_evens,
    crossing,
    fastest,
    levels,
    lines,
    merits,
)
from tests.experiments.bench_rows import COST, DENSE_S, FIXED_S, even, synthetic


@given(st.floats(0.11, 0.98), st.floats(0.01, 0.9))
def test_an_affine_curve_breaks_even_exactly_where_it_does(star, fixed):
    """Time / dense = fixed + cost (1 - s), with the cost for which it is 1 at star."""
    cost = (1 - fixed) / (1 - star)
    side, found = break_even((s, fixed + cost * (1 - s)) for s in SWEEP)
    assert side == "at" and found == pytest.approx(star, abs=1e-9)


def test_the_last_crossing_counts_and_order_does_not_matter():
    points = [(0.9, 0.5), (0.1, 0.8), (0.5, 1.5), (0.3, 2.0), (0.7, 0.5)]
    assert break_even(points) == ("at", pytest.approx(0.6))


def test_curves_without_a_crossing():
    assert break_even([(0.2, 0.9), (0.5, 1.0)]) == ("below", 0.2)
    assert break_even([(0.2, 0.9), (0.5, 1.1)]) == ("never", None)
    assert break_even([]) == ("never", None)


def test_break_evens_of_every_swept_kernel():
    rows = synthetic()
    found = {(b["kernel"], b["shape"], b["threads"], b["format"]): b for b in break_evens(rows)}
    assert {key[0] for key in found} == {"matvec unstructured", "matmat unstructured"}
    assert len(found) == 2 * 2 * (4 + 3)
    for (_, _, _, name), entry in found.items():
        costs = [COST[name]] if name in COST else [COST["csr"]]  # csr costs least in each of the two
        assert entry["side"] == ("below" if even_of(costs[0]) <= SWEEP[0] else "at")
        assert entry["sparsity"] == pytest.approx(max(even_of(costs[0]), SWEEP[0]))


def even_of(cost: float) -> float:
    return 1 - (1 - FIXED_S / DENSE_S) / cost


def test_the_fastest_format_of_each_product():
    rows = synthetic()
    best = fastest(rows)
    assert len(best) == len(
        {(r["kernel"], r["shape"], r["batch"], r["sparsity"], r["threads"]) for r in rows}
    )
    assert {r["format"] for r in best} <= {"csr", "bitmask", "panels"}


def test_merits_are_ranges_of_the_fastest_formats():
    target = Target("P9", ("matvec fan-in",), 1, (0.9, 0.95), 5.0, 3.0, (1,))
    dense, scipy = merits(synthetic(), (target,))
    low, high = (DENSE_S / (FIXED_S + d * DENSE_S) for d in (0.1, 0.05))
    assert dense["ranges"] == [[1, pytest.approx(low), pytest.approx(high)]] and dense["met"]
    assert scipy["ranges"] == [[1, pytest.approx(3.0), pytest.approx(3.0)]] and scipy["against"] == "scipy"
    assert dense["formats"] == ["csr"] and dense["work"] == "matvec fan-in, batch 1"
    harder = Target("P9", ("matvec fan-in",), 1, (0.9, 0.95), low * 1.01)
    assert merits(synthetic(), (harder,))[0]["met"] is False
    assert merits([], (target,))[0]["met"] is None


def test_lines_have_a_column_per_number_of_threads():
    rows = lines(merits(synthetic()))
    assert [row["target"] for row in rows] == ["P1", "P1", "P2", "P3", "P3", "P3", "P3", "P3", "P4", "P4"]
    assert rows[0]["1 thread"] == "5.00x to 5.00x" and rows[0]["2 threads"] is None
    assert (
        rows[0]["met"] == "NOT MET" and rows[0]["against"] == "dense BLAS" and rows[0]["required"] == ">= 8x"
    )
    assert rows[2]["sparsity"] == "30 to 99 %" and rows[2]["required"] == "> 1x"
    assert rows[-1]["work"] == "matmat 2:4 and 4:8, batch 256"
    assert {row["met"] for row in lines(merits([]))} == {"not measured"}


def test_words():
    assert crossing("at", 0.543) == "54 %" and crossing("below", 0.1) == "< 10 %"
    assert (
        crossing("never", None) == "never" and levels((0.5,)) == "50 %" and even("csr") == pytest.approx(0.1)
    )
