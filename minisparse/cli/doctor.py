"""Versions, threads, BLAS, kernels, caches, disk and data of this machine, ready to paste into a report.

Exits with 1 when something essential is broken.
"""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import llvmlite.binding as llvm
import numba
import numpy as np
import scipy.linalg  # noqa: F401 - brings its own BLAS, which should be listed
from threadpoolctl import threadpool_info

import minisparse
from minisparse import data
from minisparse.cli.arguments import Parser
from minisparse.cli.console import scaled
from minisparse.cli.data import where
from minisparse.cli.errors import DONE, FAILED
from minisparse.data.registry import FILES
from minisparse.kernels.jit import kernel
from minisparse.kernels.update import sgd_update
from minisparse.nn.param import Array

PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "matplotlib",
    "rich",
    "safetensors",
    "pooch",
    "threadpoolctl",
)
VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR",
    "NUMBA_DISABLE_JIT", "NUMBA_THREADING_LAYER", "MINISPARSE_DATA", "NO_COLOR",
)  # fmt: skip
FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "neon", "asimd", "sve")


@dataclass(frozen=True)
class Check:
    """One fact. `ok` is None where there is nothing to judge; a broken essential fails the command."""

    name: str
    value: str
    ok: bool | None = None
    essential: bool = False


def add_arguments(parser: Parser) -> None:
    """Where data is looked for."""
    parser.add_argument("--data-dir", metavar="DIR", help="folder of data sets (or MINISPARSE_DATA)")


def run(args: Namespace) -> int:
    """Print all checks."""
    checks = [
        *versions(),
        *machine(),
        *threads(),
        *kernels(),
        *storage(Path(args.out)),
        *datasets(args.data_dir),
    ]
    broken = [check for check in checks if check.essential and check.ok is False]
    if args.json:
        args.screen.json({"checks": checks, "broken": [check.name for check in broken]})
    else:
        words = {None: "", True: "ok", False: "BROKEN"}
        rows = [[c.name, c.value, words[c.ok] if c.essential or c.ok is not False else "no"] for c in checks]
        args.screen.table(["what", "found", ""], rows, title=f"minisparse {minisparse.__version__}")
        verdict = f"broken: {', '.join(c.name for c in broken)}" if broken else "everything essential works"
        args.screen.line(verdict)
    return FAILED if broken else DONE


def versions() -> Iterator[Check]:
    """Python and the packages that are needed."""
    yield Check(
        "python",
        f"{platform.python_version()} ({platform.python_implementation()})",
        sys.version_info >= (3, 11),
        True,
    )
    for name in PACKAGES:
        try:
            yield Check(name, version(name), True, True)
        except PackageNotFoundError:
            yield Check(name, "not installed", False, True)
    yield Check("sqlite", sqlite3.sqlite_version)


def machine() -> Iterator[Check]:
    """System and processor."""
    yield Check("system", f"{platform.system()} {platform.release()} {platform.machine()}")
    found = llvm.get_host_cpu_features()
    listed = " ".join(name for name in FEATURES if found.get(name))
    yield Check("processor", f"{llvm.get_host_cpu_name()}: {listed or 'no vector features known here'}")
    yield Check("processors", f"{os.cpu_count()} in the machine, {usable_processors()} for this process")


def usable_processors() -> int:
    """Processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def threads() -> Iterator[Check]:
    """Thread pools of BLAS and OpenMP, and the variables that set them."""
    for pool in threadpool_info():
        kind = f"{pool['user_api']} {pool['internal_api']} {pool.get('version') or ''}".strip()
        more = " ".join(str(pool[key]) for key in ("architecture", "threading_layer") if pool.get(key))
        yield Check("thread pool", f"{kind}, {pool['num_threads']} threads {more}".strip())
    for name in VARIABLES:
        if name in os.environ:
            yield Check(name, os.environ[name])


@kernel(parallel=True)
def _rows(x: Array, out: Array) -> None:
    """out_i = sum_j x_ij; shows that parallel kernels compile and run, and with which layer."""
    for i in numba.prange(len(x)):
        total = 0.0
        for j in range(x.shape[1]):
            total += x[i, j]
        out[i] = total


def kernels() -> Iterator[Check]:
    """Compilation, threading layer and cache of the kernels."""
    yield attempt("kernels", _try_kernels)
    yield Check("kernel threads", f"{numba.get_num_threads()} of {numba.config.NUMBA_NUM_THREADS}")
    folder = getattr(getattr(sgd_update, "stats", None), "cache_path", None)
    works = folder is not None and writable(Path(folder))
    text = str(folder) if works else "not writable: kernels are compiled anew in each process"
    yield Check("kernel cache", text, works)


def _try_kernels() -> str:
    x, out = np.arange(12.0).reshape(3, 4), np.zeros(3)
    _rows(x, out)
    if not np.array_equal(out, x.sum(axis=1)):
        raise ArithmeticError(f"a parallel kernel computed {out.tolist()}")
    layer = "none (compilation is off)" if numba.config.DISABLE_JIT else numba.threading_layer()
    return f"compile and agree with NumPy; threading layer {layer}"


def storage(out: Path) -> Iterator[Check]:
    """Folder of results, temporary folder, space."""
    place = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    yield Check("results folder", str(out), writable(place), True)
    yield Check("temporary folder", tempfile.gettempdir(), writable(Path(tempfile.gettempdir())))
    free = shutil.disk_usage(place).free
    yield Check("free space", scaled(free, "B"), free > 100e6)


def writable(folder: Path) -> bool:
    """Whether a file can be made in the folder; the folder itself is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def datasets(data_dir: str | None) -> Iterator[Check]:
    """The embedded data set, and which others are found."""
    yield attempt("digits", lambda: f"{data.load('digits').n_train:,} training images in the package")
    for name in FILES:
        place = where(name, data_dir)
        yield Check(name, place, place != "not found")


def attempt(name: str, probe: Callable[[], str]) -> Check:
    """An essential check that is broken when the probe raises."""
    try:
        return Check(name, probe(), True, True)
    except Exception as error:  # whatever it is, it is what the report must say
        return Check(name, f"{type(error).__name__}: {' '.join(str(error).split())}", False, True)
