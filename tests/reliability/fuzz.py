"""Damaged inputs for every reader, within bounds of memory and time.

    python -m tests.reliability.fuzz                      a quick look at all readers
    python -m tests.reliability.fuzz --profile ci         as many inputs as are promised
    python -m tests.reliability.fuzz --count 6000 --targets npz,idx
    python -m tests.reliability.fuzz --targets npz --case 1234     one input again, with its traceback

Each target runs in a process of its own that cannot have more than MEMORY bytes beyond what the imports
take, and no input may take longer than SECONDS. Input k of a target is a function of (seed, target, k), so
that a finding is replayed by its number.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np

from tests.reliability.counts import PROFILES
from tests.reliability.processes import ROOT, environment
from tests.reliability.targets import TARGETS, Target

MEMORY = 1 << 30
SECONDS = 5.0
FINDINGS = 10  # after so many a target is given up


class TooLong(BaseException):
    """An input took longer than SECONDS."""


@contextmanager
def bounded() -> Iterator[None]:
    """TooLong after SECONDS."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory() -> None:
    """No more than MEMORY bytes of addresses beyond those in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def attack(target: Target, count: int, seed: int, only: int | None = None) -> dict[str, object]:
    """Read so many inputs; how they ended, and the findings with the numbers of their inputs."""
    ends: Counter[str] = Counter()
    findings: list[dict[str, object]] = []
    slowest, begin = 0.0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case = target.prepare(Path(folder))
        limit_memory()
        for k in range(count) if only is None else [only]:
            rng = np.random.default_rng([seed, zlib.crc32(target.name.encode()), k])
            shown, read = case(rng)
            start = time.perf_counter()
            try:
                with bounded():
                    found = read()
                ends[f"status {found}" if isinstance(found, int) else "read"] += 1
            except target.errors as error:
                ends[type(error).__name__] += 1
                if "\n" in str(error):
                    findings.append({"case": k, "error": f"two lines: {error}", "input": repr(shown)[:400]})
            except BaseException as error:
                text = "".join(traceback.format_exception(error)) if only is not None else repr(error)
                findings.append({"case": k, "error": text[:4000], "input": repr(shown)[:400]})
                if isinstance(error, KeyboardInterrupt) or len(findings) >= FINDINGS:
                    break
            slowest = max(slowest, time.perf_counter() - start)
    return {
        "target": target.name, "inputs": sum(ends.values()) + len(findings), "ends": dict(ends),
        "slowest, s": round(slowest, 3), "seconds": round(time.monotonic() - begin, 1), "findings": findings,
    }  # fmt: skip


def apart(names: Sequence[str], profile: str, count: int | None, seed: int) -> list[dict[str, object]]:
    """`attack`, for each target in a process of its own."""
    found = []
    for name in names:
        n = TARGETS[name].counts[PROFILES.index(profile)] if count is None else count
        argv = [sys.executable, "-m", "tests.reliability.fuzz", "--inside", "--targets", name]
        argv += ["--count", str(n), "--seed", str(seed)]
        done = subprocess.run(argv, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        try:
            found += json.loads(done.stdout)
        except ValueError:  # it did not live to tell
            error = f"exit status {done.returncode}: {done.stderr[-2000:]}"
            found.append({"target": name, "inputs": 0, "findings": [{"case": None, "error": error}]})
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Results as JSON on stdout; exit status 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", default=",".join(TARGETS), help="names joined by commas")
    parser.add_argument("--profile", choices=PROFILES, default="dev")
    parser.add_argument("--count", type=int, help="inputs of each target, instead of the profile's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this input, in this process")
    parser.add_argument("--inside", action="store_true", help="all in this process")
    args = parser.parse_args(argv)
    names = args.targets.split(",")
    if args.inside or args.case is not None:
        counts = {n: args.count or TARGETS[n].counts[PROFILES.index(args.profile)] for n in names}
        found = [attack(TARGETS[n], counts[n], args.seed, args.case) for n in names]
    else:
        found = apart(names, args.profile, args.count, args.seed)
    print(json.dumps(found, indent=1))
    return int(any(result["findings"] for result in found))


if __name__ == "__main__":
    sys.exit(main())
