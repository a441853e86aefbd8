"""Workers of a grid: processes on this machine, or those of a cluster that is running already.

Needs the extra `cluster`; see `experiments.distributed` for what they are given to do.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path

import dask
import numba
from distributed import Client, LocalCluster
from distributed.comm import CommClosedError

from minisparse.errors import MinisparseError, UsageError

LOGGERS = ("distributed", "distributed.client")  # those with a level of their own
CONNECT = "10s"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read when a worker starts
STARTS = 3  # times the workers are started before it is given up
SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # a cell whose worker died is ours again at once
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.daemon": True,
    "distributed.admin.log-format": "%(message)s",
}


@contextmanager
def local(jobs: int) -> Iterator[Client]:
    """This many worker processes on this machine; they end with this process, however it ends."""
    threads = max(1, numba.config.NUMBA_NUM_THREADS // jobs)
    environ = {f"distributed.nanny.pre-spawn-environ.{name}": threads for name in THREADS}
    # set in the worker alone: here Numba would read it at its next compilation, and refuse to go on
    environ["distributed.nanny.environ.NUMBA_NUM_THREADS"] = threads
    own = dask.config.set(SETTINGS | environ)
    with own, _hushed(), _own_environment(), _workers(jobs) as cluster, Client(cluster) as client:
        yield client


@contextmanager
def _own_environment() -> Iterator[None]:
    """What workers are to find when they start is set in this process too; it does not stay."""
    before = {name: os.environ.get(name) for name in THREADS}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _workers(jobs: int) -> Iterator[LocalCluster]:
    """The worker processes. One that had to be killed leaves the lock of its scratch folder; it goes, too."""
    locks: list[Path] = []
    try:
        with _cluster(jobs) as cluster:
            try:
                yield cluster
            finally:
                folders = [nanny.worker_dir for nanny in cluster.workers.values()]
                locks = [Path(f"{folder}.dirlock") for folder in folders if folder]
    finally:
        for lock in locks:
            with suppress(OSError):  # another grid may be looking after it
                lock.unlink(missing_ok=True)


def _cluster(jobs: int, starts: int = STARTS) -> LocalCluster:
    """The worker processes. One that dies while it starts takes the others with it, and all start again."""
    try:
        with _deaf():
            return LocalCluster(
                n_workers=jobs, threads_per_worker=1, processes=True, silence_logs=logging.CRITICAL,
                dashboard_address="127.0.0.1:0",  # any free port; the usual one may be another grid's
            )  # fmt: skip
    except (RuntimeError, OSError) as error:
        if starts > 1:
            return _cluster(jobs, starts - 1)
        raise MinisparseError(
            f"worker processes did not start: got '{error}' {STARTS} times, expected {jobs} of them. "
            "Check the memory, or use fewer --jobs."
        ) from error


@contextmanager
def _deaf() -> Iterator[None]:
    """Threads that start within, and their processes, do not hear Ctrl-C: this process answers it for all."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first use of it would lift the block in its thread
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def remote(address: str) -> Iterator[Client]:
    """A cluster that is running already. UsageError when there is none at this address."""
    with dask.config.set(SETTINGS), _hushed():
        try:
            client = Client(address, timeout=CONNECT)
        except (OSError, ValueError, TimeoutError) as error:
            text = " ".join(str(error).split())[:120] or type(error).__name__
            raise UsageError(
                f"cluster: got {address!r}, expected the address of a dask scheduler that answers ({text})."
            ) from None
        with client:
            try:
                yield client
            except (CommClosedError, TimeoutError):
                raise MinisparseError(
                    f"cluster: got no more answers from the scheduler at {address!r}, expected it to last. "
                    "Finished runs are kept; the same command goes on from there."
                ) from None


@contextmanager
def _hushed() -> Iterator[None]:
    """Workers that die are told of by us, in one line, and not by the library in forty."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(loggers, before, strict=True):
            log.setLevel(level)
