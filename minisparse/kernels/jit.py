"""The one way kernels are compiled: lazily, cached on disk where that is possible, and announced.

`fastmath` stays off (it would hide NaN). A kernel releases the interpreter lock. Where no cache folder
is writable the kernel is compiled in memory, and a single note says so. Parallel kernels run one at a
time, whatever the number of Python threads: the thread pool that Numba brings along (workqueue, used where
there is no OpenMP) ends the process when two enter it at once. They are called from Python only.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import numba
from numba.core import event

log = logging.getLogger("minisparse.kernels")
COMPILED = not numba.config.DISABLE_JIT  # False under NUMBA_DISABLE_JIT=1, where vectors do not exist


class _Announce(event.Listener):
    """Says once per process that compilation has started, so that a slow first call is explained."""

    said = False

    def on_start(self, event: Any) -> None:
        if not _Announce.said:
            _Announce.said = True
            log.info("compiling kernels (once; later runs read them from the cache)")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announce())
_uncached = False
_pool = threading.RLock()


def _one_at_a_time(run: Callable) -> Callable:
    """`run`, which waits while another Python thread is in a parallel kernel."""

    @wraps(run)
    def call(*args: Any) -> Any:
        with _pool:
            return run(*args)

    return call


def kernel(function: Callable | None = None, *, parallel: bool = False) -> Callable:
    """Decorator: compile a loop over raw arrays, serially or over disjoint output with prange."""

    def compile_(f: Callable) -> Callable:
        global _uncached
        try:
            compiled = numba.njit(cache=True, nogil=True, parallel=parallel)(f)
        except RuntimeError:
            if not _uncached:
                _uncached = True
                log.warning("no writable cache folder: kernels are compiled anew in each process")
            compiled = numba.njit(nogil=True, parallel=parallel)(f)
        return _one_at_a_time(compiled) if parallel and COMPILED else compiled

    return compile_ if function is None else compile_(function)


# Below this many multiply-adds a second thread costs more than it saves: it competes with those of BLAS that
# spin for a while after each product; from the lower number on where BLAS has a single one.
SMALL, SMALL_ALONE = 1 << 25, 1 << 23
_small = ContextVar("small", default=SMALL)


@contextmanager
def alone() -> Iterator[None]:
    """For the block, in which BLAS has one thread: kernels take a second one for less work."""
    before = _small.set(SMALL_ALONE)
    try:
        yield
    finally:
        _small.reset(before)


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Run parallel kernels on one thread while the work is small: multiply-adds, or 16 per entry touched."""
    threads = numba.get_num_threads()
    if work >= _small.get() or threads == 1:
        yield
        return
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(threads)
