"""What is compared between processes: the kernels without the compiler, in threads, bounded, fenced.

    python -m tests.reliability.kernel_runs plain            digests, in one thread
    python -m tests.reliability.kernel_runs threads 50       what changes with threads and repetitions
    python -m tests.reliability.kernel_runs bounds           the serial twins, with every index checked
    python -m tests.reliability.kernel_runs fence            every array beside a page that cannot be touched

Each prints JSON.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

if sys.argv[1:2] == ["bounds"] and __name__ == "__main__":
    # before the kernels are decorated: an error within a parallel kernel would be lost
    _njit = numba.njit
    numba.njit = lambda *f, **options: _njit(*f, **{**options, "parallel": False, "boundscheck": True})

# ruff: noqa: E402
from minisparse.kernels import (
    adjoint,
    bitmask,
    block,
    columns,
    csr,
    jit,
    lanes,
    multiply,
    nm,
    norm,
    order,
    sliced,
    sparse_conv,
    unfold,
)
from minisparse.nn import direct
from tests.reliability.kernel_cases import Array, Case, cases, digest, exact_cases, executed

THREADS = 8
PAGE = mmap.PAGESIZE


def plain() -> dict[str, object]:
    """Digests without the compiler, and the kernels that ran."""
    found: dict[str, str] = {}
    ran: set[str] = set()
    if jit.COMPILED:
        found = {name: digest(case()) for name, case in exact_cases().items()}
    else:
        ran = executed(lambda: found.update({name: digest(case()) for name, case in exact_cases().items()}))
    return {"compiled": jit.COMPILED, "digests": found, "ran": sorted(ran)}


def threads(repeats: int) -> dict[str, object]:
    """Cases whose bits depend on the number of threads, on the repetition, or on a second Python thread."""
    jit.SMALL = lanes.SMALL = 0  # nothing is too small for all threads
    numba.set_num_threads(1)
    all_cases = cases(True)
    expected = {name: digest(case()) for name, case in all_cases.items()}
    changed, runs = [], 0
    for count in range(1, min(THREADS, numba.config.NUMBA_NUM_THREADS) + 1):
        numba.set_num_threads(count)
        for name, case in all_cases.items():
            wrong = sum(digest(case()) != expected[name] for _ in range(repeats))
            runs += repeats
            if wrong:
                changed.append(f"{name}: {wrong} of {repeats} with {count} threads")
    together: list[str] = []

    def both() -> None:
        for name, case in cases(True).items():
            if digest(case()) != expected[name]:
                together.append(name)

    python = [threading.Thread(target=both) for _ in range(2)]
    for thread in python:
        thread.start()
    for thread in python:
        thread.join()
    layer = numba.threading_layer()
    return {"layer": layer, "runs": runs, "changed": changed, "cases": len(expected), "together": together}


def wrong_indices() -> dict[str, Case]:
    """Calls that read or write outside an array, of kernels that are parallel and of others."""
    x, three = np.ones(3), np.ones((3, 3))
    starts = np.array([0, 1])

    def done(call: Callable[..., object], *args: object) -> tuple[Array, ...]:
        call(*args)
        return ()

    return {
        "csr.matvec_plain": lambda: done(csr.matvec_plain, starts, np.array([3]), x[:1], x, np.empty(1)),
        "csr.fan_in_plain": lambda: done(
            csr.fan_in_plain, np.array([[9]]), three[:1, :1], np.array([0]), x, np.empty(1)
        ),
        "order.multiply_plain": lambda: done(
            order.multiply_plain, starts[None, :1], starts[None, 1:], np.array([7]), 3, False, x[:1], three,
            np.empty((1, 3)),
        ),
        "block.multiply_plain": lambda: done(
            block.multiply_plain, starts, np.array([3]), three[:1, :2], three, np.empty((2, 3))
        ),
        "nm.matvec_any": lambda: done(
            nm.matvec_any, np.array([[[5]]]), three[:1, :1, None], 4, x, np.empty(1)
        ),
        "sliced.matvec_plain": lambda: done(
            sliced.matvec_plain, starts, np.array([[9, 9]]), np.full(64, 32, np.uint8), np.ones(16),
            starts[:0], 1, 1, x, np.empty(16),
        ),
        "bitmask.matvec_plain": lambda: done(
            bitmask.matvec_plain, np.full((1, 1, 4), 1 << 15, np.uint16), np.array([0]), np.ones(4), x,
            np.empty(4),
        ),
        "columns.sweep (parallel)": lambda: done(
            columns.sweep, three.copy(), three, np.zeros((3, 3), bool), three.copy(), 1, 3
        ),
        "norm.affine (parallel)": lambda: done(norm.affine, three, x, x, np.empty((2, 3))),
        "unfold.scatter_pool": lambda: done(
            unfold.scatter_pool, np.ones((1, 1, 1)), np.array([[[4]]]), np.empty((1, 4, 1))
        ),
    }  # fmt: skip


def bounds() -> dict[str, object]:
    """Errors of all cases, and of calls that must fail."""
    errors, missed = {}, []
    found = cases(False)
    for name, case in found.items():
        try:
            case()
        except IndexError as error:
            errors[name] = str(error)
    for name, case in wrong_indices().items():
        try:
            case()
        except IndexError:
            continue
        missed.append(name)
    return {"cases": len(found), "errors": errors, "wrong": len(wrong_indices()), "missed": missed}


# where a kernel is called from, and its name there
ENTRIES: tuple[tuple[Any, str], ...] = (
    (csr, "matvec"), (csr, "fan_in"), (bitmask, "matvec"), (block, "matvec"), (block, "multiply"),
    (nm, "matvec"), (nm, "matvec_any"), (sliced, "matvec"), (multiply, "multiply"), (adjoint, "scatter"),
    (adjoint, "sample"), (sparse_conv, "correlate"), (sparse_conv, "pull"), (sparse_conv, "gradient"),
    (direct, "correlate"), (direct, "place"), (direct, "weight_gradient"),
)  # fmt: skip


def beside_a_fence(a: Array, after: bool) -> Array:
    """A copy that ends where a page begins that cannot be touched, or begins where one ends."""
    if not a.flags.c_contiguous:
        return beside_a_fence(a.T, after).T if a.flags.f_contiguous else a
    whole = -(-a.nbytes // PAGE) * PAGE
    room = mmap.mmap(-1, whole + PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    fence = ctypes.c_void_p(address + (whole if after else 0))
    if ctypes.CDLL(None, use_errno=True).mprotect(fence, ctypes.c_size_t(PAGE), 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    at = whole - a.nbytes if after else PAGE
    copy = np.frombuffer(room, a.dtype, a.size, at).reshape(a.shape)
    copy[...] = a
    copy.flags.writeable = a.flags.writeable
    return copy


def fenced(call: Callable[..., object], after: bool, reached: list[int]) -> Callable[..., object]:
    """The kernel with all its arrays beside fences; what it writes is copied back. Calls are counted."""

    def moved(a: Any, pairs: list[tuple[Array, Array]]) -> Any:
        if isinstance(a, tuple):
            parts = [moved(part, pairs) for part in a]
            return type(a)(*parts) if hasattr(a, "_fields") else tuple(parts)
        if not isinstance(a, np.ndarray) or not a.size:
            return a
        pairs.append((a, beside_a_fence(a, after)))
        return pairs[-1][1]

    def run(*args: object) -> object:
        reached[0] += 1
        pairs: list[tuple[Array, Array]] = []
        result = call(*moved(args, pairs))
        for a, copy in pairs:
            if a.flags.writeable:
                a[...] = copy
        return result

    return run


def fence() -> dict[str, object]:
    """Cases whose results change when arrays lie beside fences; the process ends where one is touched."""
    found = cases(True)
    expected = {name: digest(case()) for name, case in found.items()}
    changed, runs = [], 0
    reached = {f"{place.__name__}.{name}": [0] for place, name in ENTRIES}
    for after in (True, False):
        real = [getattr(place, name) for place, name in ENTRIES]
        for (place, name), call in zip(ENTRIES, real, strict=True):
            setattr(place, name, fenced(call, after, reached[f"{place.__name__}.{name}"]))
        for name, case in found.items():
            print(name, file=sys.stderr, flush=True)  # the last one says who broke through
            runs += 1
            if digest(case()) != expected[name]:
                changed.append(name)
        for (place, name), call in zip(ENTRIES, real, strict=True):
            setattr(place, name, call)
    return {"runs": runs, "changed": changed, "idle": [name for name, (n,) in reached.items() if not n]}


def breach() -> dict[str, object]:
    """A kernel with an index one too high: the fence ends the process."""
    x = np.ones(4, np.float32)
    fenced(csr.matvec, True, [0])(np.array([0, 1]), np.array([4]), x[:1], x, np.empty(1, np.float32))
    return {}


def main(argv: list[str]) -> None:
    """The process named by the first argument."""
    if argv[0] == "threads":
        print(json.dumps(threads(int(argv[1]))))
    else:
        print(json.dumps({"plain": plain, "bounds": bounds, "fence": fence, "breach": breach}[argv[0]]()))


if __name__ == "__main__":
    main(sys.argv[1:])
