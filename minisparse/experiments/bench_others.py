"""The same products in PyTorch and in Intel's MKL, each in a process of its own, where they are installed.

Two OpenMP runtimes in one process disturb each other, and no process of this project loads either library.
The other process draws the same matrices (`bench_cases.problem`). PyTorch: `W @ X` with W dense, and with W
a CSR tensor of 32-bit indices. MKL: `mkl_sparse_s_mv` and `mkl_sparse_s_mm` on a CSR handle that
`mkl_sparse_optimize` has prepared, from `libmkl_rt` in $MKLROOT, in this Python's own folders or on the
system's library path. None stands for a library that is not there or does not work.
"""

from __future__ import annotations

import ctypes.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minisparse.experiments.bench_cases import Case, Shape
from minisparse.experiments.bench_timing import BUDGET, MOST, QUICK_ROUNDS, ROUNDS

COLUMNS = ("torch_dense_s", "torch_csr_s", "mkl_s")
TIMEOUT = 900  # seconds
log = logging.getLogger("minisparse.experiments")
Found = dict[tuple[Shape, float, int], dict[str, float]]


def others(cases: Sequence[Case], threads: Sequence[int], quick: bool = False) -> list[Found]:
    """For each case, median seconds by column for each (shape, sparsity, threads) that was measured."""
    keys = [
        (at, shape, sparsity)
        for at, case in enumerate(cases)
        if case.product == "apply" and not case.image
        for shape in case.shapes
        for sparsity in case.sparsities
    ]
    library = mkl_library()
    problems = [
        [cases[at].masks, cases[at].kernel, shape, sparsity, cases[at].batch, cases[at].by_rows]
        for at, shape, sparsity in keys
    ]
    job = {
        "path": sys.path, "threads": list(threads), "rounds": QUICK_ROUNDS if quick else ROUNDS,
        "budget": BUDGET, "most": MOST, "problems": problems, "library": library,
    }  # fmt: skip
    found: list[Found] = [{} for _ in cases]
    for script, present in ((TORCH, find_spec("torch") is not None), (MKL, bool(library))):
        answers = asked(script, job) if present else []
        for (at, shape, sparsity), answer in zip(keys, answers, strict=False):
            for count, seconds in zip(threads, answer, strict=True):
                found[at].setdefault((shape, sparsity, count), {}).update(seconds)
    return found


def mkl_library() -> str | None:
    """Path or name of MKL's single library, or None."""
    roots = [os.environ.get("MKLROOT"), sys.prefix]
    folders = [
        Path(root) / part for root in roots if root for part in ("lib", "Library/bin", "redist/intel64")
    ]
    names = ("libmkl_rt.so*", "mkl_rt*.dll", "libmkl_rt*.dylib")
    paths = (path for folder in folders for name in names for path in sorted(folder.glob(name)))
    return str(next(paths, None) or ctypes.util.find_library("mkl_rt") or "") or None


def asked(script: str, job: dict[str, Any]) -> list[list[dict[str, float]]]:
    """What the script answers for each problem of the job and number of threads; nothing if it fails."""
    most = str(max(job["threads"], default=1))
    limits = {name: most for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} | {"OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + script + END], input=json.dumps(job), env=os.environ | limits,
            capture_output=True, text=True, timeout=TIMEOUT, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        log.info("another library could not be timed: %s", type(error).__name__)
        return []


# A job as JSON on stdin; per problem and number of threads {column: median seconds} on stdout. The script in
# the middle defines limit(threads), and works(dense, indptr, indices, values, x) -> {column: function} with x
# (in) or (in, batch).
BEGIN = """
import json, statistics, sys, time
job = json.load(sys.stdin)
sys.path[:] = job["path"]
import numpy as np
from minisparse.experiments.bench_cases import columns, problem

def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

def median(work):
    work()
    count = int(min(max(job["budget"] / seconds(work), 1), job["most"]))
    times = []
    for _ in range(job["rounds"]):
        if count > 1:
            work()
        times += [seconds(work) for _ in range(count)]
    return statistics.median(times)
"""
END = """
answers = []
for masks, kernel, shape, sparsity, batch, by_rows in job["problems"]:
    found = problem(masks, kernel, tuple(shape), sparsity)
    x = columns(found, batch, by_rows)
    rows, indices = np.nonzero(found.mask)
    indptr = np.searchsorted(rows, np.arange(shape[0] + 1)).astype(np.int32)
    parts = indptr, indices.astype(np.int32), found.dense[found.mask]
    inputs = x[:, 0].copy() if batch == 1 else x
    answers.append([])
    for threads in job["threads"]:
        limit(threads)
        todo = works(found.dense, *parts, inputs)  # preparing may divide the work between the threads
        answers[-1].append({name: median(work) for name, work in todo.items()})
print(json.dumps(answers))
"""
TORCH = """
import torch
limit = torch.set_num_threads
torch.set_grad_enabled(False)

def works(dense, indptr, indices, values, x):
    whole, inputs = torch.from_numpy(dense), torch.from_numpy(x)
    csr = torch.sparse_csr_tensor(*map(torch.from_numpy, (indptr, indices, values)), size=dense.shape)
    return {"torch_dense_s": lambda: whole @ inputs, "torch_csr_s": lambda: csr @ inputs}
"""
MKL = """
import ctypes, weakref
from ctypes import POINTER, Structure, byref, c_float, c_int, c_void_p

mkl = ctypes.CDLL(job["library"])
limit = mkl.MKL_Set_Num_Threads
PLAIN, BY_ROWS, BY_COLUMNS, MANY = 10, 101, 102, 100000

class Description(Structure):
    _fields_ = [("type", c_int), ("mode", c_int), ("diag", c_int)]

GENERAL = Description(20, 0, 0)

def pointer(array, kind=c_float):
    return array.ctypes.data_as(POINTER(kind))

def check(status):
    if status:
        raise RuntimeError(f"MKL status {status}")

def works(dense, indptr, indices, values, x):
    out, inputs = dense.shape
    handle = c_void_p()
    check(mkl.mkl_sparse_s_create_csr(
        byref(handle), c_int(0), c_int(out), c_int(inputs), pointer(indptr, c_int),
        pointer(indptr[1:], c_int), pointer(indices, c_int), pointer(values)))
    kept = indptr, indices, values
    one, none = c_float(1), c_float(0)
    if x.ndim == 1:
        check(mkl.mkl_sparse_set_mv_hint(handle, PLAIN, GENERAL, c_int(MANY)))
        check(mkl.mkl_sparse_optimize(handle))
        def product(kept=kept):
            y = np.empty(out, np.float32)
            check(mkl.mkl_sparse_s_mv(PLAIN, one, handle, GENERAL, pointer(x), none, pointer(y)))
            return y
    else:
        by_rows = x.flags.c_contiguous
        layout, batch = BY_ROWS if by_rows else BY_COLUMNS, x.shape[1]
        ldx, ldy = (batch, batch) if by_rows else (inputs, out)
        check(mkl.mkl_sparse_set_mm_hint(handle, PLAIN, GENERAL, layout, c_int(batch), c_int(MANY)))
        check(mkl.mkl_sparse_optimize(handle))
        def product(kept=kept):
            y = np.empty((out, batch), np.float32, order="C" if by_rows else "F")
            check(mkl.mkl_sparse_s_mm(
                PLAIN, one, handle, GENERAL, layout, pointer(x), c_int(batch), c_int(ldx), none, pointer(y),
                c_int(ldy)))
            return y
    scale = max(1.0, float(np.abs(x).max())) * indices.size / out
    sparse = np.zeros_like(dense)
    sparse[np.repeat(np.arange(out), np.diff(indptr)), indices] = values
    if not np.allclose(product(), sparse @ x, atol=1e-4 * scale):
        raise RuntimeError("MKL gives another product")
    weakref.finalize(product, mkl.mkl_sparse_destroy, handle)
    return {"mkl_s": product}
"""
