"""The one way kernels are compiled: lazily, cached on disk where that is possible, and announced.

`fastmath` stays off (it would hide NaN). A kernel releases the interpreter lock. Where no cache folder
is writable the kernel is compiled in memory, and a single note says so.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def kernel(function: Callable | None = None, *, parallel: bool = False) -> Callable:
    """Decorator: compile a loop over raw arrays, serially or over disjoint output with prange."""

    def compile_(f: Callable) -> Callable:
        global _uncached
        try:
            return numba.njit(cache=True, nogil=True, parallel=parallel)(f)
        except RuntimeError:
            if not _uncached:
                _uncached = True
                log.warning("no writable cache folder: kernels are compiled anew in each process")
            return numba.njit(nogil=True, parallel=parallel)(f)

    return compile_ if function is None else compile_(function)


# Below this many multiply-adds a second thread costs more than it saves: it competes with those of BLAS.
SMALL = 1 << 25


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Run parallel kernels on one thread while the work is small: multiply-adds, or 16 per entry touched."""
    threads = numba.get_num_threads()
    if work >= SMALL or threads == 1:
        yield
        return
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(threads)
