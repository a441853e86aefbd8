"""Timing by turns: threads pinned, one library at work at a time, medians and quartiles of single calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import quantiles

import numba
import scipy.linalg  # noqa: F401 - brings its own BLAS, which must be loaded to be limited
from threadpoolctl import threadpool_limits

from minisparse.nn.threads import settle

Work = Callable[[], object]

ROUNDS = 5  # blocks of calls of one library; the libraries take turns, so that a disturbance meets all
QUICK_ROUNDS = 2
BUDGET = 0.03  # seconds of a block
MOST = 200  # calls of a block


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """So many threads in BLAS and in compiled kernels, and as many as before afterwards."""
    before = numba.get_num_threads()
    with threadpool_limits(threads):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        try:
            yield
        finally:
            numba.set_num_threads(before)


def timed(works: Mapping[str, Work], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of single calls of each work, the first of a block not counted unless one fills the block.

    One library works at a time, and a block begins when threads of the one before have stopped to spin.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    counts = {}
    for name, work in works.items():
        work()
        counts[name] = int(min(max(BUDGET / seconds(work), 1), MOST))
    for _ in range(rounds):
        for name, work in works.items():
            settle()
            if counts[name] > 1:
                work()
            times[name] += [seconds(work) for _ in range(counts[name])]
    return times


def seconds(work: Work) -> float:
    """Of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def quartiles(times: list[float]) -> tuple[float, float, float]:
    """25 %, 50 % and 75 % quantiles, interpolated."""
    low, median, high = quantiles(times, n=4, method="inclusive")
    return low, median, high
