"""A grid on several processes, here or on a cluster: dask.distributed runs the cells, we keep the results.

Needs the extra `cluster`; the workers come from `experiments.workers`. Each is one process and has one cell
at a time: the next one is sent to it when it is idle, so that a worker that dies (killed, out of memory, a
fault in native code) costs just the cell it ran. That cell is given to a worker once more, and recorded as
failed if that one dies too; all others go on. A worker that hangs is not noticed: there is no limit on the
time of a cell. Only this process writes to the store. Results do not depend on the number of workers: a run
is a function of its spec, and of the number of threads of BLAS, which `threads` fixes.

Workers on this machine save the run they are at where `compare` does, so that a cell that is tried again, or
a grid that is started again, goes on from its last snapshot, bit for bit. A snapshot has one writer: a cell
is given to another worker when the process that had it is no more. The workers of a cluster need not share
a file system; their cells have no snapshots and start from the beginning.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Any

import numba
from distributed import Client, Future, KilledWorker, Status, get_worker, wait
from threadpoolctl import threadpool_limits

from minisparse.errors import MinisparseError
from minisparse.experiments.compare import Execute, Progress, silent
from minisparse.experiments.runner import Outcome, dataset, execute, failure, unfinished
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from minisparse.training.keeper import Keeping
from minisparse.training.state import TrainState

TOPIC = "minisparse"
SECONDS = 0.5  # between looks at what the workers say
RETRIES = 1  # of a cell whose worker died
SECONDS_TO_COME = 60.0  # for a result that is made to be here
SECONDS_TO_END = 30.0  # for a process that is killed
SECONDS_WITHOUT = 120.0  # until workers of this machine that are gone are given up


def free(spec: RunSpec) -> str:
    """No name: this run may be under way together with any other."""
    return ""


@dataclass(frozen=True)
class Task:
    """How cells are run.

    data_dir, threads   of the data sets, and of BLAS and the kernels
    folder              of the results, where workers save what they are at; None: they do not
    execute             what runs a spec, pickled to the workers; None: `runner.execute`
    alone               runs of one name, other than "", are not under way at the same time
    """

    data_dir: str | None = None
    threads: int | None = None
    folder: Path | None = None
    execute: Execute | None = None
    alone: Callable[[RunSpec], str] = free

    def arguments(self, spec: RunSpec) -> tuple[Any, ...]:
        """Those of `cell`."""
        place = None if self.folder is None else str(unfinished(self.folder, spec))
        return spec.to_json(), self.data_dir, self.threads, place, self.execute


def cell(
    facts: dict[str, Any],
    data_dir: str | None,
    threads: int | None,
    place: str | None = None,
    own: Execute | None = None,
) -> Outcome:
    """On a worker: run one spec and say once an epoch how far it is.

    place: where it is saved on its way, if it is; own: what runs it.
    """
    spec = RunSpec.from_json(facts)
    method, worker = spec.build(), get_worker()
    run = own or partial(execute, keeping=None if place is None else Keeping(place))

    def watch(state: TrainState) -> None:
        if state.step % state.steps_per_epoch == 0:
            share = min(1.0, state.step / max(1, method.length(state.horizon)))
            worker.log_event(TOPIC, {"key": spec.key, "share": share})

    if threads is not None:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    with threadpool_limits(threads):
        try:
            return run(spec, data_dir, watch)
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


@dataclass
class UnderWay:
    """A cell and the worker that has it: address and, on this machine, process; name: see `Task.alone`."""

    spec: RunSpec
    address: str
    process: Any
    name: str

    def over(self) -> bool:
        """Whether nothing of this worker writes any more; its process is killed if it still lives."""
        if self.process is None:
            return True
        end = monotonic() + SECONDS_TO_END
        with suppress(ValueError):  # closed: it has ended
            while self.process.is_alive() and monotonic() < end:
                self.process.kill()
                sleep(SECONDS / 10)
        return not self.process.is_alive()


class Cells:
    """The runs that are to be made, and which worker has which. Deaths are counted for each."""

    def __init__(self, client: Client, specs: Sequence[RunSpec], task: Task) -> None:
        self.client, self.task = client, task
        self.waiting = deque(specs)
        self.under_way: dict[Future, UnderWay] = {}
        self.deaths: Counter[str] = Counter()
        self.seen = monotonic()

    def __len__(self) -> int:
        return len(self.waiting) + len(self.under_way)

    def send(self, workers: Set[str]) -> None:
        """A waiting cell to each of these workers that has none.

        MinisparseError if there have been none for long; those of a cluster may come at any time.
        """
        if workers or not self.task.folder:
            self.seen = monotonic()
        elif monotonic() - self.seen > SECONDS_WITHOUT:
            raise MinisparseError(
                f"worker processes are gone: got none for {SECONDS_WITHOUT:.0f} s, expected new ones. "
                "Finished runs are kept; the same command goes on from there."
            )
        for address in sorted(workers - {one.address for one in self.under_way.values()}):
            process = self._process(address)
            if process is None and self.client.cluster is not None:  # it begins, or is about to end
                continue
            chosen = self._next()
            if chosen is not None:
                spec, alone = chosen
                name = f"{TOPIC}-{spec.key}-{self.deaths[spec.key]}-{self.client.id}"
                future = self.client.submit(
                    cell, *self.task.arguments(spec), key=name, pure=False, workers=[address]
                )
                self.under_way[future] = UnderWay(spec, address, process, alone)

    def _next(self) -> tuple[RunSpec, str] | None:
        """The first waiting cell that may run beside those under way, and its name to be alone."""
        busy = {one.name for one in self.under_way.values()}
        for at, spec in enumerate(self.waiting):
            name = self.task.alone(spec)
            if not name or name not in busy:
                del self.waiting[at]
                return spec, name
        return None

    def _process(self, address: str) -> Any:
        """The process of a worker that this one has started, None unless it is at work.

        A nanny that is starting the next one still has the address of the last. So the process is asked for
        first: that it is another's shows in what is asked for after it.
        """
        for nanny in list(getattr(self.client.cluster, "workers", {}).values()):
            worker = nanny.process
            process = getattr(worker, "process", None)
            if process is not None and worker.status == Status.running and worker.worker_address == address:
                return process
        return None

    def ended(self) -> Iterator[Outcome]:
        """Those that have come to an end; waits a little for the first."""
        if not self.under_way:
            sleep(SECONDS / 10)
        with suppress(TimeoutError):
            wait(list(self.under_way), timeout=SECONDS, return_when="FIRST_COMPLETED")
        workers = self.workers()
        for future, one in list(self.under_way.items()):
            try:
                if future.done():
                    outcome = self._result(future, one)
                elif one.address in workers:
                    continue
                else:
                    outcome = self._lost(one)
            except TimeoutError:  # it was done, but what it returned is slow to come, or gone with its worker
                continue
            del self.under_way[future]
            future.cancel(force=True)
            if outcome is not None:
                yield outcome

    def workers(self) -> set[str]:
        """Addresses of those that are there now; what is missing of our own, given up by its nanny, comes."""
        cluster = self.client.cluster
        if cluster is not None and len(cluster.workers) < len(cluster.worker_spec):
            cluster.scale(len(cluster.worker_spec))
        return set(self.client.nthreads())

    def _result(self, future: Future, one: UnderWay) -> Outcome | None:
        try:
            return future.result(timeout=SECONDS_TO_COME)
        except TimeoutError:
            raise
        except (KilledWorker, CancelledError):
            return self._lost(one)
        except Exception as error:  # what came back cannot be read
            return failure(one.spec, error)

    def _lost(self, one: UnderWay) -> Outcome | None:
        """None for a cell that is tried once more."""
        spec = one.spec
        self.deaths[spec.key] += 1
        if not one.over():
            return failure(spec, RuntimeError("its worker process was lost and does not end"))
        if self.deaths[spec.key] <= RETRIES:
            if one.name:  # others wait for it
                self.waiting.appendleft(spec)
            else:
                self.waiting.append(spec)
            return None
        return failure(spec, RuntimeError("its worker process died twice (killed, or out of memory)"))


def compare_on(
    client: Client,
    specs: Sequence[RunSpec],
    store: Store,
    progress: Progress = silent,
    data_dir: str | Path | None = None,
    execute: Execute | None = None,
    alone: Callable[[RunSpec], str] = free,
    threads: int | None = None,
    shared: bool = False,
) -> list[Outcome]:
    """As `compare.compare`, on the workers of `client`.

    shared: whether workers see the files of this process; if so runs are saved on their way. execute, alone:
    see `Task`; what `execute` writes beside the outcome it must see to itself.
    """
    place = None if data_dir is None else str(Path(data_dir).absolute())
    folder = store.folder.absolute() if shared else None
    for name in dict.fromkeys(spec.data for spec in specs):
        dataset(name, place)
    found = {spec.key: store.get(spec.key) for spec in specs}
    missing = {s.key: s for s in specs if not _finished(found[s.key])}
    done = len(found) - len(missing)
    cells = Cells(client, list(missing.values()), Task(place, threads, folder, execute, alone))
    shares = Shares()
    client.subscribe_topic(TOPIC, shares.hear)
    try:
        while cells:
            cells.send(cells.workers())
            at_work = [one.spec for one in cells.under_way.values()] or list(cells.waiting)
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
