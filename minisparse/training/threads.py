"""How many threads BLAS is given in a training: several where most of the work is its own, else one.

Threads of BLAS that have nothing to do spin for tens of milliseconds after each product, on the processors
that the kernels of this project want next; and a second thread pays only for a large product. Where BLAS
has one, kernels take their own second thread for less work (`kernels.jit.alone`). With P the
multiply-adds of a step in a layer, absent weights included, BLAS is left its threads if both

    max over layers multiplied by BLAS of P >= LARGE                                     (1)
    sum over layers multiplied by BLAS of P >= sum over all other layers of P            (2)

hold, and has one thread otherwise. The answer depends on the formats of the weights and on nothing that
moves during training: a run that goes on from a snapshot must have the bits of one that never stopped.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

from threadpoolctl import threadpool_limits

from minisparse.kernels.jit import alone
from minisparse.nn.network import Network

LARGE = 1 << 23  # multiply-adds of a product worth a second thread


def blas_threads(network: Network, batch: int) -> int | None:
    """1, or None for as many threads as BLAS has: equations (1) and (2)."""
    positions = network.positions()
    layers = network.prunable().items()
    work = [(layer.by_blas, batch * positions[n] * layer.weight.size) for n, layer in layers]
    blas = [count for by_blas, count in work if by_blas]
    worth_it = max(blas, default=0) >= LARGE and 2 * sum(blas) >= sum(count for _, count in work)
    return None if worth_it else 1


class BlasThreads:
    """Within its block BLAS has the threads that suit the network; `suit` again when formats changed."""

    def __init__(self, network: Network, batch: int) -> None:
        self.batch = batch
        self._formats: list[bool] | None = None
        self._limit = ExitStack()
        self.suit(network)

    def suit(self, network: Network) -> None:
        """Look at the weights' formats, and at the network only where they are not as before."""
        formats = [layer.by_blas for layer in network.prunable().values()]
        if formats != self._formats:
            self._formats = formats
            self._limit.close()
            if (threads := blas_threads(network, self.batch)) is not None:
                self._limit.enter_context(threadpool_limits(threads, user_api="blas"))
                self._limit.enter_context(alone())

    def __enter__(self) -> BlasThreads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit.close()
