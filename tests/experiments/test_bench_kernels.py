"""The kernel benchmark: masks are what they say, compared products are equal, records complete and right."""

from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisparse.experiments import bench_kernels as bench
from minisparse.experiments.bench_cases import (
    CASES,
    DRAWS,
    SHAPES,
    TARGETS,
    Case,
    Target,
    ablated,
    columns,
    fan_in,
    groups,
    problem,
    target_of,
    unstructured,
)
from minisparse.experiments.bench_timing import pinned, quartiles, timed
from minisparse.sparsity.count import kept_count
from minisparse.weights.formats import FORMATS, accepts

KEYS = [
    "kernel", "format", "shape", "batch", "sparsity", "threads", "median_s", "q25_s", "q75_s", "dense_s",
    "scipy_s", "torch_dense_s", "torch_csr_s", "mkl_s", "speedup_dense", "speedup_scipy", "bytes",
    "dense_bytes", "flops", "bytes_moved", "gflops", "gbytes_per_s", "target", "met",
]  # fmt: skip


def small(case: Case) -> Case:
    shapes = ((24, 72),) if case.image else ((24, 64),)
    return replace(case, shapes=shapes, batch=min(case.batch, 5), image=min(case.image, 6))


def test_masks_have_their_structure_and_exact_sparsity():
    rng = np.random.default_rng(0)
    assert np.count_nonzero(unstructured((30, 50), 0.37, rng)) == 945
    assert (fan_in((30, 50), 0.9, rng).sum(axis=1) == 5).all()
    assert (groups(2, 4)((6, 16), 0.5, rng).reshape(6, 4, 4).sum(axis=2) == 2).all()
    counts = ablated((40, 100), 0.9, rng).sum(axis=1)
    assert sorted(set(counts.tolist())) == [0, 20] and np.count_nonzero(counts) == 20


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 9))
def test_masks_have_the_count_of_the_shared_rounding_rule(out, inputs, sparsity, seed):
    rng = np.random.default_rng(seed)
    assert np.count_nonzero(unstructured((out, inputs), sparsity, rng)) == kept_count(out * inputs, sparsity)
    assert (fan_in((out, inputs), sparsity, rng).sum(axis=1) == kept_count(inputs, sparsity)).all()


def test_a_problem_is_the_same_whenever_it_is_drawn():
    first, again = (problem("unstructured", "k", (8, 12), 0.5) for _ in range(2))
    assert np.array_equal(first.dense, again.dense) and np.array_equal(first.mask, again.mask)
    assert np.array_equal(columns(first, 3), columns(again, 3, by_rows=True))
    assert not np.array_equal(first.dense, problem("unstructured", "other", (8, 12), 0.5).dense)
    assert columns(first, 3).flags.c_contiguous and columns(first, 3, by_rows=True).flags.f_contiguous


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.kernel} {c.batch} {c.image}")
def test_every_case_compares_equal_products(case):
    case = small(case)
    for sparsity in case.sparsities:
        found = problem(case.masks, case.kernel, case.shapes[0], sparsity)
        assert all(accepts(name, found.mask) for name in case.formats)
        found = replace(found, dense=found.dense * found.mask)
        works, sizes = (bench._images if case.image else bench._works)(case, found)
        libraries = ["dense"] if case.product == "pullback" else ["dense", "scipy"]
        assert list(works) == [*libraries, *case.formats] and set(sizes) == set(case.formats)
        if case.product == "pullback":
            continue  # writes a gradient and returns nothing
        results = [np.asarray(work()) for work in works.values()]
        for result in results[1:]:
            # samples may be rows or columns, filters the first or the last axis
            flat = sorted(result.reshape(-1).tolist())
            np.testing.assert_allclose(flat, sorted(results[0].reshape(-1).tolist()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("at", [0, 8, 9, 10], ids=lambda at: CASES[at].kernel)
def test_records_are_complete_and_their_arithmetic_is_right(at):
    case = replace(small(CASES[at]), sparsities=(0.9,))
    before = numba.get_num_threads()
    rows = list(bench.measured(case, (1,), quick=True))
    assert numba.get_num_threads() == before
    assert [row["format"] for row in rows] == list(case.formats)
    found = problem(case.masks, case.kernel, case.shapes[0], 0.9)
    nnz, (out, inputs) = np.count_nonzero(found.mask), case.shapes[0]
    for row in rows:
        weight = FORMATS[row["format"]].from_dense(found.dense, found.mask)
        places, channels = (5 * 36, inputs // 9) if case.image else (case.batch, inputs)
        assert list(row) == KEYS and row["shape"] == f"{out}x{inputs}"
        assert row["bytes"] == weight.bytes and row["dense_bytes"] == found.dense.nbytes
        assert row["flops"] == 2 * nnz * places
        assert row["bytes_moved"] == weight.bytes + 4 * places * (out + channels)
        assert 0 < row["q25_s"] <= row["median_s"] <= row["q75_s"]
        assert row["gflops"] == pytest.approx(row["flops"] / row["median_s"] / 1e9)
        assert row["gbytes_per_s"] == pytest.approx(row["bytes_moved"] / row["median_s"] / 1e9)
        assert row["speedup_dense"] == pytest.approx(row["dense_s"] / row["median_s"])
        assert row["torch_dense_s"] is row["torch_csr_s"] is row["mkl_s"] is None
        if case.product == "pullback":
            assert row["scipy_s"] is row["speedup_scipy"] is None
        else:
            assert row["speedup_scipy"] == pytest.approx(row["scipy_s"] / row["median_s"])


def test_figures_of_other_libraries_go_to_their_product(monkeypatch):
    case = replace(small(CASES[0]), sparsities=(0.8, 0.9))
    there = {((24, 64), 0.9, 1): {"torch_csr_s": 2.0, "mkl_s": 3.0}}
    monkeypatch.setattr(bench, "CASES", (case,))
    monkeypatch.setattr(bench, "others", lambda cases, threads, quick: [there])
    found = {(r["sparsity"], r["format"]): (r["torch_csr_s"], r["mkl_s"]) for r in bench.records((1,), True)}
    assert found[0.9, "csr"] == found[0.9, "sliced"] == (2.0, 3.0) and found[0.8, "csr"] == (None, None)


def made(times: dict[str, list[float]], sparsity: float = 0.9, threads: int = 1) -> dict:
    setting = bench.Setting(CASES[0], (10, 20), sparsity, threads)
    return bench.record(setting, "csr", times, 100, 20)


def test_a_record_says_whether_the_target_is_met():
    fast = made({"csr": [1.0] * 3, "dense": [8.0] * 3, "scipy": [3.0] * 3})
    assert (fast["speedup_dense"], fast["speedup_scipy"], fast["met"]) == (8.0, 3.0, True)
    assert fast["target"] == "P1 >= 8x dense, >= 3x SciPy"
    assert not made({"csr": [1.0] * 3, "dense": [7.9] * 3, "scipy": [9.0] * 3})["met"]
    assert not made({"csr": [1.0] * 3, "dense": [9.0] * 3, "scipy": [2.9] * 3})["met"]
    assert not made({"csr": [1.0] * 3, "dense": [9.0] * 3})["met"]
    for other in ({"sparsity": 0.8}, {"threads": 2}):
        row = made({"csr": [1.0] * 3, "dense": [9.0] * 3, "scipy": [9.0] * 3}, **other)
        assert row["target"] is row["met"] is None


def test_a_strict_target_is_not_met_by_equality():
    assert Target("P", ("k",), 1, (0.5,), 1.0).met(1.0, None)
    assert not Target("P", ("k",), 1, (0.5,), 1.0, strict=True).met(1.0, None)


def test_targets_are_those_of_the_design_and_all_measured():
    asked = {(t.name, t.batch, s): t.dense for t in TARGETS for s in t.sparsities}
    assert asked["P1", 1, 0.9] == 8 and all(asked["P2", 1, s] == 1 for s in (0.3, 0.5, 0.7, 0.8, 0.99))
    assert [asked["P3", 256, s] for s in (0.6, 0.8, 0.9, 0.95, 0.99)] == [1, 2.5, 6, 9, 25]
    assert asked["P4", 1, 0.5] == 1.8 and asked["P4", 256, 0.5] == 1.3
    for target in TARGETS:
        for kernel in target.kernels:
            for sparsity in target.sparsities:
                cases = [c for c in CASES if c.kernel == kernel and c.batch == target.batch]
                assert any(sparsity in c.sparsities and c.shapes == SHAPES for c in cases)
                assert target_of(kernel, target.batch, sparsity, 1) is target
    vit = {c.batch: c.sparsities for c in CASES if c.kernel == "ViT-B/16"}
    assert vit == {1: (0.8, 0.9, 0.95, 0.99), 256: (0.8, 0.9, 0.95, 0.99)}
    assert {c.masks for c in CASES} <= set(DRAWS)


def test_timing_takes_turns_and_counts_calls(monkeypatch):
    said = []
    times = timed({name: lambda name=name: said.append(name) for name in "ab"}, rounds=3)
    turns = [name for name, after in zip(said, [*said[1:], ""], strict=True) if name != after]
    assert "".join(turns) == "abababab"
    assert len(times["a"]) == 3 * 200 and min(times["a"]) >= 0


def test_quartiles_and_pinning():
    assert quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    before = numba.get_num_threads()
    with pytest.raises(ZeroDivisionError), pinned(1):
        assert numba.get_num_threads() == 1
        raise ZeroDivisionError
    assert numba.get_num_threads() == before
