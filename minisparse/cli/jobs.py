"""Where the cells of a grid run: in this process, in several, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from minisparse.cli.arguments import Parser
from minisparse.cli.flags import whole
from minisparse.errors import UsageError
from minisparse.experiments.compare import compare
from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec

Run = Callable[..., list[Outcome]]
WORKERS, DISTRIBUTED = "minisparse.experiments.workers", "minisparse.experiments.distributed"


def add_jobs(parser: Parser, group: Any) -> None:
    """--jobs and --cluster."""
    parser.value(
        "--jobs", read=whole("jobs", 1), group=group, metavar="N", default=1,
        help="worker processes (1: this one); more need the extra 'cluster'",
    )  # fmt: skip
    group.add_argument("--cluster", metavar="ADDRESS", help="a dask scheduler, e.g. tcp://host:8786")


@contextmanager
def pool(jobs: int, cluster: str | None, threads: int | None) -> Iterator[Run]:
    """A function with the arguments of `compare` that runs the cells there. UsageError without the extra.

    Beyond those of `compare` it takes `alone`, see `distributed.Task`. Workers of a cluster need not share
    our files, so `execute` must not be given for one if it needs them.
    """
    if cluster is not None and jobs > 1:
        raise UsageError(f"jobs: got --jobs {jobs} and --cluster {cluster}, expected one of them.")
    if cluster is None and jobs == 1:
        yield _here
        return
    if find_spec("distributed") is None:
        raise UsageError(
            f"jobs: got {cluster or jobs}, expected the library dask.distributed to be installed. "
            'Run: pip install "minisparse[cluster]"'
        )
    workers, run = import_module(WORKERS), import_module(DISTRIBUTED).compare_on
    with workers.local(jobs) if cluster is None else workers.remote(cluster) as client:
        yield partial(run, client, threads=threads, shared=cluster is None)


def _here(*args: Any, alone: Callable[[RunSpec], str] | None = None, **more: Any) -> list[Outcome]:
    """`compare`, where no two runs are ever under way at the same time."""
    return compare(*args, **more)
