"""Records of `bench kernels` of a simple machine: a product costs so much, and so much per entry more."""

from __future__ import annotations

from typing import Any

from minisparse.experiments.bench_cases import CASES, Case
from minisparse.experiments.bench_kernels import Setting, record
from minisparse.weights.formats import FORMATS

DENSE_S, FIXED_S = 1e-3, 1e-4
COST = {name: 1 + k / 4 for k, name in enumerate(FORMATS)}  # relative to dense, per entry


def synthetic(
    cases: tuple[Case, ...] = CASES, threads: tuple[int, ...] = (1, 2), others: bool = True
) -> list[dict[str, Any]]:
    """One record for each that would be measured; the time is affine in the density."""
    rows = []
    for case in cases:
        for shape in case.shapes:
            for sparsity in case.sparsities:
                nnz = round((1 - sparsity) * shape[0] * shape[1])
                for count in threads:
                    for name in case.formats:
                        seconds = (FIXED_S + COST[name] * (1 - sparsity) * DENSE_S) / count
                        times = {name: [seconds] * 3, "dense": [DENSE_S / count] * 3}
                        if case.product != "pullback":
                            times["scipy"] = [3 * seconds * count] * 3
                        more = (
                            {"torch_dense_s": 1.1 * DENSE_S, "torch_csr_s": 2 * seconds} if others else None
                        )
                        setting = Setting(case, shape, sparsity, count)
                        rows.append(record(setting, name, times, 6 * nnz, nnz, more))
    return rows


def even(name: str) -> float:
    """Where the format breaks even with dense on that machine: FIXED + COST (1 - s) DENSE = DENSE."""
    return 1 - (1 - FIXED_S / DENSE_S) / COST[name]
