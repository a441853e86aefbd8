"""A grid on several processes, here or on a cluster: dask.distributed runs the cells, we keep the results.

Needs the extra `cluster`. Each worker is one process with one cell at a time. A worker that dies (killed, out
of memory, a fault in native code) costs its cell, which is given to another worker once more and recorded as
failed if that one dies too; all others go on. Only this process writes to the store. Results do not depend on
the number of workers: a run is a function of its spec.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import dask
import numba
from distributed import Client, Future, KilledWorker, LocalCluster, get_worker, wait
from threadpoolctl import threadpool_limits

from minisparse.errors import UsageError
from minisparse.experiments.compare import Progress, silent
from minisparse.experiments.runner import Outcome, dataset, execute, failure
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.training.state import TrainState

TOPIC = "minisparse"
SECONDS = 0.5  # between looks at what the workers say
CONNECT = "10s"
SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,  # a cell whose worker dies is tried once more
    "distributed.scheduler.worker-saturation": 1.0,  # no cell waits at a worker, so none dies with another's
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.daemon": True,
    "distributed.admin.log-format": "%(message)s",
}


@contextmanager
def local(jobs: int) -> Iterator[Client]:
    """This many worker processes on this machine; they end with this process, however it ends."""
    threads = max(1, numba.config.NUMBA_NUM_THREADS // jobs)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environ = {f"distributed.nanny.pre-spawn-environ.{name}": threads for name in names}
    with dask.config.set(SETTINGS | environ), _hushed():
        cluster = LocalCluster(
            n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )  # fmt: skip
        with cluster, Client(cluster) as client:
            yield client


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
            yield client


@contextmanager
def _hushed() -> Iterator[None]:
    """Workers that die are told of by us, in one line, and not by the library in forty."""
    log = logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
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
    done = len({s.key for s in specs}) - len(missing)
    waiting = {
        client.submit(cell, spec.to_json(), place, threads, key=f"{key}-{TOPIC}", pure=False): spec
        for key, spec in missing.items()
    }
    shares = Shares()
    client.subscribe_topic(TOPIC, shares.hear)
    try:
        while waiting:
            ended = _ended(list(waiting))
            first = next(iter(waiting.values()))
            progress(done + shares.total([s.key for s in waiting.values()]), first, None)
            for future in ended:
                spec = waiting.pop(future)
                outcome = _result(future, spec)
                store.put(outcome)
                outcome.network = None
                found[spec.key] = outcome
                done += 1
                progress(done, spec, None)
                progress(done, spec, outcome)
    finally:
        client.unsubscribe_topic(TOPIC)
        client.cancel(list(waiting), force=True)
    return [kept for spec in specs if (kept := found[spec.key]) is not None]


def _finished(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.finished


def _ended(futures: list[Future]) -> list[Future]:
    """The futures that are complete; waits a little for the first."""
    with suppress(TimeoutError):
        wait(futures, timeout=SECONDS, return_when="FIRST_COMPLETED")
    return [future for future in futures if future.done()]


def _result(future: Future, spec: RunSpec) -> Outcome:
    try:
        return future.result()
    except KilledWorker:
        return failure(spec, RuntimeError("its worker process died twice (killed, or out of memory)"))
    except Exception as error:  # lost on the way: what came back cannot be read, or nothing did
        return failure(spec, error)
