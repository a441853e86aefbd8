"""Who has several threads, BLAS or the kernels of this project: whoever has most of the work, never both.

Threads of BLAS that have nothing to do spin for up to a tenth of a second after a product, and those of
kernels spin too, each on the processors that the others want next: a network with layers of both kinds takes
several times as long on two threads as on one. And a second thread pays only for a large product. With P the
multiply-adds of a batch in a layer, absent weights included, BLAS has its threads, and kernels one, if both

    max over layers multiplied by BLAS of P >= LARGE                                     (1)
    sum over layers multiplied by BLAS of P >= sum over all other layers of P            (2)

hold; else BLAS has one. Where no layer is a kernel's, small kernels (BatchNorm) keep theirs. The answer
depends on the formats of the weights and on nothing that moves during training: a run that goes on from a
snapshot must have the bits of one that never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

import numba
import scipy.linalg  # noqa: F401 - brings its own BLAS, which must be loaded to be limited
from threadpoolctl import ThreadpoolController

from minisparse.kernels.jit import alone
from minisparse.nn import memory

if TYPE_CHECKING:
    from minisparse.nn.network import Network

# Seconds: of one look at idle threads, and in all. Processor time is counted in ticks of 4 ms on many
# systems: a shorter look takes a thread that spins for one that sleeps.
LOOK, PATIENCE = 12e-3, 0.3
LARGE = 1 << 23  # multiply-adds of a product worth a second thread
Work = list[tuple[bool, int]]  # of each layer: whether BLAS multiplies, and multiply-adds


def division(work: Work) -> tuple[int | None, int | None]:
    """Threads of BLAS and of kernels, None for as many as they have: equations (1) and (2)."""
    blas = [count for by_blas, count in work if by_blas]
    others = [count for by_blas, count in work if not by_blas]
    if max(blas, default=0) < LARGE or sum(blas) < sum(others):
        return 1, None
    return None, (1 if others else None)


def settle() -> None:
    """Wait until no idle thread spins: what is timed next has the processors to itself."""
    end = time.perf_counter() + (PATIENCE if numba.get_num_threads() > 1 else 0)
    while time.perf_counter() < end:
        before = time.process_time()  # of all threads
        time.sleep(LOOK)
        if time.process_time() - before < LOOK / 2:
            return


class OneThread:
    """BLAS has one thread while any block of any Python thread asks for it: the limit is the process's."""

    def __init__(self) -> None:
        self._lock, self._blocks, self._limit = Lock(), 0, ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._blocks == 0:
                self._limit.enter_context(_libraries().limit(limits=1, user_api="blas"))
            self._blocks += 1
        try:
            with alone():
                yield
        finally:
            with self._lock:
                self._blocks -= 1
                if self._blocks == 0:
                    self._limit.close()


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """Looking for them takes longer than limiting them."""
    return ThreadpoolController()


kernels_alone = OneThread()


@contextmanager
def blas_alone() -> Iterator[None]:
    """Kernels have one thread within the block."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)


class Threads:
    """Within its block threads are divided as suits the network; `suit` again when formats changed."""

    def __init__(self, network: Network, batch: int) -> None:
        self.batch = batch
        self._formats: list[bool] | None = None
        self._limit = ExitStack()
        memory.keep()
        self.suit(network)

    def suit(self, network: Network) -> None:
        """Look at the weights' formats, and at the network only where they are not as before."""
        formats = [layer.by_blas for layer in network.prunable().values()]
        if formats == self._formats:
            return
        self._formats = formats
        self._limit.close()
        of_blas, of_kernels = division(network.work(self.batch))
        if of_blas is not None:
            self._limit.enter_context(kernels_alone())
        if of_kernels is not None:
            self._limit.enter_context(blas_alone())

    def __enter__(self) -> Threads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit.close()
