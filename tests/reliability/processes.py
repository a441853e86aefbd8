"""Processes of a test: started with a mark in their environment, found by it in /proc, and killed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = "MINISPARSE_TEST_MARK"
WORKER = b"multiprocessing.spawn"  # in the command line of a worker, but not of its helpers
PROC = Path("/proc")


def environment(mark: str = "", **more: str) -> dict[str, str]:
    """This process's, with the project importable, one thread, and a mark that children inherit."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, "PYTHONPATH": str(ROOT), MARK: mark, **dict.fromkeys(names, "1"), **more}


def python(
    arguments: Sequence[str],
    cwd: Path,
    limit: Callable[[], None] | None = None,
    seconds: float = 120,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """A finished interpreter with these arguments. TimeoutExpired after so many seconds."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment(**more), preexec_fn=limit,
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


def start(arguments: Sequence[str], cwd: Path, mark: str, **more: str) -> subprocess.Popen[str]:
    """A running interpreter, the leader of a process group of its own.

    It minds Ctrl-C even where the tests were started by a script in the background, which would pass on
    that it is ignored.
    """
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=cwd, env=environment(mark, **more), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def marked(mark: str) -> dict[int, bytes]:
    """Process id -> command line of all living processes that carry the mark."""
    sign, found = f"{MARK}={mark}".encode(), {}
    for place in PROC.glob("[0-9]*"):
        try:
            if sign in (place / "environ").read_bytes().split(b"\0"):
                found[int(place.name)] = (place / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
    return {process: line for process, line in found.items() if line}  # the dead have no command line


def workers(mark: str) -> list[int]:
    """Those of them that run cells."""
    return sorted(process for process, line in marked(mark).items() if WORKER in line)


def until(condition: Callable[[], object], seconds: float = 30.0) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def kill(process: int) -> None:
    """SIGKILL; a process that has ended already is left alone."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def file_size(limit: int) -> Callable[[], None]:
    """For `python`: no file can grow beyond so many bytes. (EFBIG: Python ignores SIGXFSZ.)"""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def ended(outcomes: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Outcomes as JSON without what is measured by the clock."""
    return [{k: v for k, v in facts.items() if k not in ("seconds", "forward_seconds")} for facts in outcomes]
