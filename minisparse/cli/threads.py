"""Thread limits of everything that computes: BLAS and OpenMP by threadpoolctl, and Numba."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import scipy.linalg  # noqa: F401 - brings its own BLAS, which must be loaded to be limited
from threadpoolctl import threadpool_limits

from minisparse.errors import UsageError


def most_threads() -> int:
    """Threads the kernels can use in this process."""
    return numba.config.NUMBA_NUM_THREADS


@contextmanager
def limited(count: int) -> Iterator[None]:
    """At most `count` threads within the block; UsageError unless 1 <= count <= most_threads()."""
    if not 1 <= count <= most_threads():
        raise UsageError(
            f"threads: got {count}, expected 1 to {most_threads()}, the processors this process may use."
        )
    before = numba.get_num_threads()
    with threadpool_limits(count):
        numba.set_num_threads(count)
        try:
            yield
        finally:
            numba.set_num_threads(before)
