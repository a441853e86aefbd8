"""The kernel benchmark: masks are what they say, compared products are equal, records complete."""

from dataclasses import replace

import numba
import numpy as np
import pytest

from minisparse.experiments import bench_kernels as bench
from minisparse.weights.formats import FORMATS, accepts

KEYS = [
    "kernel", "format", "shape", "batch", "sparsity", "threads", "median_s", "q25_s", "q75_s", "dense_s",
    "scipy_s", "speedup_dense", "speedup_scipy", "bytes",
]  # fmt: skip


def small(case):
    shapes = ((24, 72),) if case.image else ((24, 64),)
    return replace(case, shapes=shapes, batch=min(case.batch, 5), image=min(case.image, 6))


def test_masks_have_their_structure_and_exact_sparsity():
    rng = np.random.default_rng(0)
    assert np.count_nonzero(bench.unstructured((30, 50), 0.37, rng)) == 945
    assert (bench.fan_in((30, 50), 0.9, rng).sum(axis=1) == 5).all()
    assert (bench.groups(2, 4)((6, 16), 0.5, rng).reshape(6, 4, 4).sum(axis=2) == 2).all()
    counts = bench.ablated((40, 100), 0.9, rng).sum(axis=1)
    assert sorted(set(counts.tolist())) == [0, 20] and np.count_nonzero(counts) == 20


@pytest.mark.parametrize("case", bench.CASES, ids=lambda c: f"{c.kernel} {c.batch} {c.image}")
def test_every_case_compares_equal_products(case):
    case = small(case)
    for sparsity in case.sparsities:
        rng = np.random.default_rng(1)
        mask = case.draw(case.shapes[0], sparsity, rng)
        assert all(accepts(name, mask) for name in case.formats)
        dense = rng.standard_normal(mask.shape).astype(np.float32)
        works, sizes = (bench._images if case.image else bench._works)(case, dense * mask, mask, rng)
        assert list(works) == ["dense", "scipy", *case.formats] and set(sizes) == set(case.formats)
        if case.product == "pullback":
            continue  # writes a gradient and returns nothing
        results = [np.asarray(work()) for work in works.values()]
        for found in results[1:]:
            # samples may be rows or columns, filters the first or the last axis
            flat = sorted(found.reshape(-1).tolist())
            np.testing.assert_allclose(flat, sorted(results[0].reshape(-1).tolist()), rtol=1e-3, atol=1e-3)


def test_records_are_complete_and_threads_are_put_back():
    case = small(bench.CASES[0])
    before = numba.get_num_threads()
    rows = list(bench.measured(case, 1, quick=True))
    assert numba.get_num_threads() == before
    assert len(rows) == len(case.sparsities) * len(case.formats)
    for row in rows:
        assert list(row) == KEYS
        assert row["format"] in FORMATS and row["bytes"] > 0 and row["shape"] == "24x64"
        assert 0 < row["q25_s"] <= row["median_s"] <= row["q75_s"]
        assert row["speedup_dense"] == pytest.approx(row["dense_s"] / row["median_s"])
        assert row["speedup_scipy"] == pytest.approx(row["scipy_s"] / row["median_s"])


def test_targets_are_all_measured():
    found = {(c.kernel, c.batch): c for c in bench.CASES}
    assert {0.3, 0.5, 0.7, 0.8} <= set(found["matvec unstructured", 1].sparsities)
    assert {0.6, 0.8, 0.9, 0.95, 0.99} <= set(found["matmat unstructured", 256].sparsities)
    assert 0.9 in found["matvec fan-in", 1].sparsities
    assert all(
        (f"{kind} {pattern}", batch) in found
        for kind, batch in (("matvec", 1), ("matmat", 256))
        for pattern in ("2:4", "4:8")
    )
    assert all(found["ViT-B/16", batch].sparsities == (0.8, 0.9, 0.95, 0.99) for batch in (1, 256))
