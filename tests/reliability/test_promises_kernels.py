"""C: compiled loops against dense matrices, and what must not change their bits.

C1 error bound, C2 layouts and types, C4 narrow indices: every format, drawn anew; C5 threads and C8 Python
threads: processes with either thread pool; C6 without the compiler; C7 indices checked, arrays fenced.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numba
import numpy as np
import pytest

import minisparse
from minisparse.errors import ShapeError, SparseFormatError
from minisparse.kernels.jit import COMPILED
from minisparse.nn.mode import EVAL
from minisparse.weights import pattern as patterns
from minisparse.weights.exchange import from_csr
from minisparse.weights.formats import FORMATS
from tests.reliability import kernel_cases, kernel_runs, races
from tests.reliability.counts import examples, profile
from tests.reliability.processes import ROOT, environment
from tests.structures import MASKS, VALUES, csr_arrays, layouts

SIZES = (0, 1, 2, 63, 64, 65)  # samples
LAYOUTS = ("C", "Fortran", "sliced", "reversed", "read-only", "unaligned", "big-endian", "0-stride")
TYPES = ("float32", "float64", "float16")
# (columns up to which a type can count, type): as it is, and as if 10 columns were too many for a type
WIDE = (1 << 63, np.int64)
INDICES = {
    "own": patterns.INDEX_TYPES,
    "int32": ((10, np.uint16), (1 << 31, np.int32), WIDE),
    "int64": ((10, np.int32), WIDE),
}
LARGEST = 3500  # entries of a matrix: its products are taken in extended precision too
WIDER = np.longdouble if np.finfo(np.longdouble).eps < 1e-18 else np.float64
SLACK = 1 if WIDER is np.longdouble else 2  # where there is nothing wider than float64 the oracle errs too


@cache
def places(name: str) -> list[str]:
    """Names of the masks a format stores."""
    found = {place: make(np.random.default_rng(0)) for place, make in MASKS.items()}
    return [p for p, m in found.items() if m.size <= LARGEST and not FORMATS[name].objection(m)]


def combinations(name: str, count: int) -> list[tuple[int, str, str, str]]:
    """(samples, layout, type, index type): all before any comes again, each format in its own order."""
    every = list(itertools.product(SIZES, LAYOUTS, TYPES, INDICES))
    order = np.random.default_rng(sum(map(ord, name))).permutation(len(every))
    return [every[order[k % len(every)]] for k in range(count)]


def laid(x: np.ndarray, layout: str) -> np.ndarray:
    """x (n, size) in memory as the layout says; 0-stride: the first sample, repeated."""
    if layout == "0-stride":
        return np.broadcast_to(x[0] if len(x) else np.zeros(x.shape[1], x.dtype), x.shape)
    return dict(layouts(x))[layout]


def within(got: np.ndarray, left: np.ndarray, right: np.ndarray, terms: np.ndarray | int, what: str) -> None:
    """got = left @ right within (terms + 2) eps |left| |right|, and a denormal for each term."""
    info = np.finfo(got.dtype)
    exact = left.astype(WIDER) @ right.astype(WIDER)
    size = np.abs(left.astype(WIDER)) @ np.abs(right.astype(WIDER))
    bound = SLACK * (np.asarray(terms) + 2) * (info.eps * size + info.smallest_subnormal)
    error = np.abs(got - exact)
    assert got.shape == exact.shape and (error <= bound).all(), f"{what}: {(error - bound).max()} too far"


def memory(*arrays: np.ndarray) -> str:
    """SHA-256 of what arrays hold."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_the_error_bound_whatever_comes(name: str, monkeypatch) -> None:
    """C1, C2, C4, B6: Y, dX and dW of random cases; inputs and weights stay as they are."""
    count = examples(30, 500, 20_000)
    kind = FORMATS[name]
    for k, (samples, layout, dtype, index) in enumerate(combinations(name, count)):
        rng = np.random.default_rng([k, *map(ord, name)])
        place = places(name)[k % len(places(name))]
        mask = MASKS[place](rng)
        if kind.objection(mask):
            mask = MASKS[place](np.random.default_rng(0))
        values, inputs = (list(VALUES)[int(i)] for i in rng.integers(len(VALUES), size=2))
        stored = "float32" if dtype == "float16" else dtype
        with np.errstate(over="ignore"):
            dense = np.zeros(mask.shape)
            dense[mask] = VALUES[values](rng, np.count_nonzero(mask))
            dense = np.clip(dense, -6e4, 6e4).astype(dtype) if dtype == "float16" else dense.astype(stored)
        monkeypatch.setattr(patterns, "INDEX_TYPES", INDICES[index])
        settings = kind.settings[k % len(kind.settings)]
        indptr, indices = csr_arrays(mask)
        weight = from_csr(indptr, indices, dense[mask], mask.shape, name, **settings)
        assert weight.param.value.dtype == np.dtype(stored)
        with np.errstate(over="ignore"):
            x = VALUES[inputs](rng, samples * mask.shape[1]).astype(stored)
        dy = rng.standard_normal((samples, len(mask))).astype(stored)
        x, dy = laid(x.reshape(samples, mask.shape[1]), layout), laid(dy, layout)
        before = memory(x, dy, weight.param.value, *weight._structure())
        what = f"example {k}: {place} {settings} {values} {inputs} {samples} {layout} {dtype} {index}"
        wide = dense.astype(stored)
        rows, columns = np.count_nonzero(mask, axis=1), np.count_nonzero(mask, axis=0)
        within(weight.apply(x, EVAL), x, wide.T, rows, what)
        within(weight.pull(dy), dy, wide, columns, what)
        weight.pullback(x, dy)
        grad = np.zeros(mask.shape, stored)
        grad.flat[weight.flat] = weight.grads
        within_entries(grad[mask], dy, x, mask, what)
        assert memory(x, dy, weight.param.value, *weight._structure()) == before, what


def within_entries(got: np.ndarray, dy: np.ndarray, x: np.ndarray, mask: np.ndarray, what: str) -> None:
    """The entries of dY^T X on a mask, in row order."""
    out, columns = np.nonzero(mask)
    a, b = dy.astype(WIDER)[:, out], x.astype(WIDER)[:, columns]
    info = np.finfo(got.dtype)
    bound = SLACK * (len(x) + 2) * (info.eps * np.abs(a * b).sum(axis=0) + info.smallest_subnormal)
    assert (np.abs(got - (a * b).sum(axis=0)) <= bound).all(), what


def test_every_combination_comes_within_the_examples_of_ci() -> None:
    every = set(itertools.product(SIZES, LAYOUTS, TYPES, INDICES))
    assert len(every) == 432 <= 500
    for name in FORMATS:
        assert set(combinations(name, 500)) == every
        assert len(places(name)) >= 5, name
    few = [c for name in FORMATS for c in combinations(name, 30)]
    assert {c[:2] for c in few} == set(itertools.product(SIZES, LAYOUTS))
    assert {c[2:] for c in few} == set(itertools.product(TYPES, INDICES))


def test_a_mask_is_of_booleans_and_values_are_numbers() -> None:
    dense = np.ones((3, 4), np.float32)
    for kind in FORMATS.values():
        for wrong in (np.int8, np.uint8, float, object):
            with pytest.raises(ShapeError, match="mask"):
                kind.from_dense(dense, np.ones((3, 4), wrong))
    for values in (np.ones(1, bool), np.ones(1, int), np.ones(1, object), ["a"]):
        with pytest.raises(SparseFormatError, match="sparse values"):
            from_csr([0, 1], [0], values, (1, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_numbers_overflow_to_infinity_and_no_further(dtype: type) -> None:
    most = np.finfo(dtype).max
    for kind in FORMATS.values():
        mask = np.eye(8, dtype=bool) | np.eye(8, k=4, dtype=bool) | np.eye(8, k=-4, dtype=bool)
        if kind.objection(mask):
            mask[...] = True
        weight = kind.from_dense(np.where(mask, most, 0).astype(dtype), mask)
        for samples in (1, 20):
            one = weight.apply(np.eye(8, dtype=dtype)[:1].repeat(samples, axis=0), EVAL)
            assert (one == np.where(mask[:, 0], most, 0)).all(), kind
            with np.errstate(over="ignore"):
                all_ = weight.apply(np.ones((samples, 8), dtype), EVAL)
            assert (all_ == np.inf).all(), kind


def process(*arguments: str, **variables: str) -> dict:
    """What a process of kernel_runs.py prints."""
    done = started(*arguments, **variables)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return json.loads(done.stdout)


def started(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """That process, ended; its threads sleep while they wait, so that others may work."""
    return subprocess.run(
        [sys.executable, "-m", "tests.reliability.kernel_runs", *arguments], cwd=ROOT, text=True, check=False,
        env=environment(OMP_WAIT_POLICY="passive", **variables), capture_output=True,
    )  # fmt: skip


def test_without_the_compiler_every_bit_is_the_same() -> None:
    """C6. The same process sees which kernels ran: all but those that are made of vectors."""
    found = process("plain", NUMBA_DISABLE_JIT="1")
    assert not found["compiled"]
    kernels = kernel_cases.defined()
    vectors = kernel_cases.with_vectors(kernels)
    assert len(kernels) > 60 and len(vectors) < len(kernels)
    assert not set(kernels) - vectors - set(found["ran"]), "kernels that no case reaches"
    if COMPILED:
        here = {name: kernel_cases.digest(case()) for name, case in kernel_cases.exact_cases().items()}
        assert [name for name in here if here[name] != found["digests"][name]] == []
        assert here.keys() == found["digests"].keys() and len(set(here.values())) > 60


def test_serial_twins_stay_within_their_arrays(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """C7. Parallel kernels are compiled as serial ones from the same source; ten wrong calls are caught."""
    kept = tmp_path if profile() == "nightly" else request.config.cache.mkdir("bounds")
    found = process("bounds", NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(kept))
    assert found["errors"] == {} and found["cases"] > 60
    assert found["missed"] == [] and found["wrong"] == 10


@pytest.mark.skipif(not COMPILED, reason="the vectors exist only in compiled code")
def test_vectors_stay_within_their_arrays() -> None:
    """C7 for what no compiler checks: every array ends, then begins, beside a page that cannot be touched."""
    found = process("fence")
    assert found["changed"] == [] and found["idle"] == [] and found["runs"] > 200
    done = started("breach")
    assert done.returncode < 0  # the fence is one


@pytest.mark.skipif(not COMPILED, reason="threads exist only in compiled code")
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_threads_and_python_threads_change_no_bit(layer: str) -> None:
    """C5 and C8: up to 8 threads, at least 4; all cases again in two Python threads at once."""
    count, repeats = max(4, min(8, os.cpu_count() or 1)), examples(3, 50, 500)
    variables = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": str(count)}
    done = started("threads", str(repeats), **variables)
    if layer == "omp" and "No threading layer could be loaded" in done.stderr:
        pytest.skip("this machine has no OpenMP")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["layer"] == layer
    assert found["changed"] == [] and found["together"] == []
    assert found["runs"] == repeats * count * found["cases"] and found["cases"] > 100


# What parallel loops may do.

GOOD = [
    "for i in prange(n):\n    y[i] = 0\n    for k in range(m):\n        y[i] += x[i, k]",
    "for i in prange(n):\n    p = q.copy()\n    for k in range(m):\n        p[k] += 1\n    y[i, 0] = p[0]",
    "for part in prange(n):\n    first, last = part * 2, part * 2 + 2\n    _part(x, y, first, last)",
    "for s in nb.prange(n):\n    sum = 0.0\n    for k in range(m):\n        sum += x[s, k]\n    y[s] = sum",
]
BAD = {
    "adds to total": "total = 0\nfor i in prange(n):\n    total += x[i]",
    "adds to acc": "acc = 0\nfor i in prange(n):\n    acc = acc + x[i]",
    "stores to y[idx[i]]": "for i in prange(n):\n    y[idx[i]] = 1",
    "stores to y[0]": "for i in prange(n):\n    y[0] += x[i]",
    "stores to y[k, i]": "for i in prange(n):\n    for k in range(m):\n        y[k, i] += 1",
    "stores to y[i + 1]": "for i in prange(n):\n    y[i + 1] = y[i]",
    "calls _part": "for i in prange(n):\n    _part(x, y, 0, n)",
    "assigns to self.total": "for i in prange(n):\n    self.total = i",
    "not a name": "for y[0] in prange(n):\n    pass",
}


def test_parallel_loops_write_to_places_of_their_own() -> None:
    files = {path: path.read_text("utf-8") for path in Path(minisparse.__file__).parent.rglob("*.py")}
    trees = {path: ast.parse(text) for path, text in files.items() if "prange" in text}
    assert sum(1 for tree in trees.values() for _ in races.loops(tree)) >= 25
    assert [f"{path.name}:{text}" for path, tree in trees.items() for text in races.breaches(tree)] == []


@pytest.mark.parametrize("words", BAD)
def test_a_race_is_seen(words: str) -> None:
    (breach,) = races.breaches(ast.parse(BAD[words]))
    assert words in breach


@pytest.mark.parametrize("source", GOOD)
def test_what_is_no_race_passes(source: str) -> None:
    assert races.breaches(ast.parse(source)) == [] and list(races.loops(ast.parse(source)))


def test_threads_tried_are_at_least_those_promised() -> None:
    assert kernel_runs.THREADS == 8 and numba.config.NUMBA_NUM_THREADS >= 1
