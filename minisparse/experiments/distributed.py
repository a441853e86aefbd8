"""A grid on several processes, here or on a cluster: dask.distributed runs the cells, we keep the results.

Needs the extra `cluster`. Each worker is one process and has one cell at a time: the next one is sent to it
when it is idle, so that a worker that dies (killed, out of memory, a fault in native code) costs just the
cell it ran. That cell is given to a worker once more, and recorded as failed if that one dies too; all
others go on. A worker that hangs is not noticed: there is no limit on the time of a cell. Only this process
writes to the store. Results do not depend on the number of workers: a run is a function of its spec, and of
the number of threads of BLAS, which `threads` fixes.
"""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from threading import Lock
from typing import Any

import dask
import numba
from distributed import Client, Future, KilledWorker, LocalCluster, get_worker, wait
from distributed.comm import CommClosedError
from threadpoolctl import threadpool_limits

from minisparse.errors import MinisparseError, UsageError
from minisparse.experiments.compare import Progress, silent
from minisparse.experiments.runner import Outcome, dataset, execute, failure
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.training.state import TrainState

TOPIC = "minisparse"
SECONDS = 0.5  # between looks at what the workers say
LOGGERS = ("distributed", "distributed.client")  # those with a level of their own
CONNECT = "10s"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read when a worker starts
STARTS = 3  # times the workers are started before it is given up
RETRIES = 1  # of a cell whose worker died
SECONDS_TO_COME = 60.0  # for a result that is made to be here
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
    with own, _hushed(), _own_environment(), _cluster(jobs) as cluster, Client(cluster) as client:
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


def _cluster(jobs: int, starts: int = STARTS) -> LocalCluster:
    """The worker processes. One that dies while it starts takes the others with it, and all start again."""
    try:
        with _deaf():
            return LocalCluster(
                n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None,
                silence_logs=logging.CRITICAL,
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


def cell(facts: dict[str, Any], data_dir: str | None, threads: int | None) -> Outcome:
    """On a worker: run one spec and say once an epoch how far it is."""
    spec = RunSpec.from_json(facts)
    method, worker = spec.build(), get_worker()

    def watch(state: TrainState) -> None:
        if state.step % state.steps_per_epoch == 0:
            share = min(1.0, state.step / max(1, method.length(state.horizon)))
            worker.log_event(TOPIC, {"key": spec.key, "share": share})

    if threads is not None:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    with threadpool_limits(threads):
        try:
            return execute(spec, data_dir, watch)
        except SystemExit as error:  # let through, it would end the worker
            return failure(spec, RuntimeError(f"the run asked for exit status {error.code}"))
        except Exception as error:
            return failure(spec, error)


class Shares:
    """How far each cell under way is, as the workers tell."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.known: dict[str, float] = {}

    def hear(self, event: tuple[float, Any]) -> None:
        """One message of a worker: (time, {key, share})."""
        message = event[1]
        if isinstance(message, dict) and {"key", "share"} <= message.keys():
            with self.lock:
                self.known[message["key"]] = message["share"]

    def total(self, keys: Sequence[str]) -> float:
        """Sum of the shares of these cells."""
        with self.lock:
            return sum(self.known.get(key, 0.0) for key in keys)


class Cells:
    """The runs that are to be made, and which worker has which. Deaths are counted for each."""

    def __init__(
        self, client: Client, specs: Sequence[RunSpec], place: str | None, threads: int | None
    ) -> None:
        self.client, self.place, self.threads = client, place, threads
        self.waiting = deque(specs)
        self.under_way: dict[Future, tuple[RunSpec, str]] = {}
        self.deaths: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.waiting) + len(self.under_way)

    def send(self, workers: Set[str]) -> None:
        """A waiting cell to each of these workers that has none."""
        for address in sorted(workers - {address for _, address in self.under_way.values()}):
            if self.waiting:
                spec = self.waiting.popleft()
                name = f"{TOPIC}-{spec.key}-{self.deaths[spec.key]}-{self.client.id}"
                future = self.client.submit(
                    cell, spec.to_json(), self.place, self.threads, key=name, pure=False, workers=[address]
                )
                self.under_way[future] = (spec, address)

    def ended(self) -> Iterator[Outcome]:
        """Those that have come to an end; waits a little for the first."""
        with suppress(TimeoutError):
            wait(list(self.under_way), timeout=SECONDS, return_when="FIRST_COMPLETED")
        workers = self.workers()
        for future, (spec, address) in list(self.under_way.items()):
            try:
                if future.done():
                    outcome = self._result(future, spec)
                elif address in workers:
                    continue
                else:
                    outcome = self._lost(spec)
            except TimeoutError:  # it was done, but what it returned is slow to come, or gone with its worker
                continue
            del self.under_way[future]
            future.cancel(force=True)
            if outcome is not None:
                yield outcome

    def workers(self) -> set[str]:
        """Addresses of those that are there now."""
        return set(self.client.nthreads())

    def _result(self, future: Future, spec: RunSpec) -> Outcome | None:
        try:
            return future.result(timeout=SECONDS_TO_COME)
        except TimeoutError:
            raise
        except (KilledWorker, CancelledError):
            return self._lost(spec)
        except Exception as error:  # what came back cannot be read
            return failure(spec, error)

    def _lost(self, spec: RunSpec) -> Outcome | None:
        """None for a cell that is tried once more."""
        self.deaths[spec.key] += 1
        if self.deaths[spec.key] <= RETRIES:
            self.waiting.append(spec)
            return None
        return failure(spec, RuntimeError("its worker process died twice (killed, or out of memory)"))


def compare_on(
    client: Client,
    specs: Sequence[RunSpec],
    store: Store,
    progress: Progress = silent,
    data_dir: str | Path | None = None,
    threads: int | None = None,
) -> list[Outcome]:
    """As `compare.compare`, on the workers of `client`."""
    place = None if data_dir is None else str(Path(data_dir).absolute())
    for name in dict.fromkeys(spec.data for spec in specs):
        dataset(name, place)
    found = {spec.key: store.get(spec.key) for spec in specs}
    missing = {s.key: s for s in specs if not _finished(found[s.key])}
    done = len(found) - len(missing)
    cells, shares = Cells(client, list(missing.values()), place, threads), Shares()
    client.subscribe_topic(TOPIC, shares.hear)
    try:
        while cells:
            cells.send(cells.workers())
            at_work = [spec for spec, _ in cells.under_way.values()] or list(cells.waiting)
            progress(done + shares.total([spec.key for spec in at_work]), at_work[0], None)
            for outcome in cells.ended():
                spec = outcome.spec
                store.put(outcome)
                outcome.network = None
                found[spec.key] = outcome
                done += 1
                progress(done, spec, None)
                progress(done, spec, outcome)
    finally:
        client.unsubscribe_topic(TOPIC)
        client.cancel(list(cells.under_way), force=True)
    return [kept for spec in specs if (kept := found[spec.key]) is not None]


def _finished(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.finished
