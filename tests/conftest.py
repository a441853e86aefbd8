"""One thread for all tests: arrays are tiny, and several workers run side by side."""

from collections.abc import Iterator

import numba
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Every test starts on one thread, whatever the one before it set."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def one_blas_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield
