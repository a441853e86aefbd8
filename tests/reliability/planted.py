"""Tests are tested: faults are planted one at a time in a copy of the package, and the tests must see them.

    python -m tests.reliability.planted                       all of planted_faults.py, one after another
    python -m tests.reliability.planted --only rewind,edges   those whose names have one of these words
    python -m tests.reliability.planted --list                their names

The package and its tests are copied to a temporary folder. Before a fault is planted, all the tests it names
must pass there. A fault is found if they then fail, and survives if they pass. Exit status 1 if one survives.
Compiled kernels of the copy are thrown away around each fault in a kernel.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.reliability.planted_faults import FAULTS, Fault
from tests.reliability.processes import ROOT, environment

COPIED = ("minisparse", "tests", "docs", "pyproject.toml", "README.md")
PASSED, FAILED = 0, 1  # exit status of pytest
SECONDS = 900


def copied(place: Path) -> None:
    """The package and its tests, compiled kernels included."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copy2(source, place)


def pytest(place: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """These tests of the copy, up to the first that fails."""
    argv = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-n", "0", *tests]
    variables = {"PYTHONPATH": str(place), "HYPOTHESIS_STORAGE_DIRECTORY": str(place / "hypothesis")}
    return subprocess.run(
        argv, cwd=place, env=environment() | variables, capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip


def forget_compiled(place: Path) -> None:
    for path in (place / "minisparse").rglob("*.nb[ic]"):
        path.unlink()


def plant(place: Path, fault: Fault) -> tuple[int, str]:
    """Exit status of the fault's tests with it, and the line that says which failed."""
    path = place / "minisparse" / fault.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(fault.old) != 1:
        raise SystemExit(f"'{fault.name}': its text occurs {whole.count(fault.old)} times in {fault.file}")
    compiled = fault.file.startswith("kernels/")
    try:
        path.write_text(whole.replace(fault.old, fault.new), encoding="utf-8")
        if compiled:
            forget_compiled(place)
        done = pytest(place, fault.tests)
    except subprocess.TimeoutExpired:
        return FAILED, f"no end within {SECONDS} s"
    finally:
        path.write_text(whole, encoding="utf-8")
        if compiled:
            forget_compiled(place)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, (lines or [done.stdout[-300:]])[0]


def main(argv: Sequence[str] | None = None) -> int:
    """A line for each fault, and how many were found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="words of names, joined by commas")
    parser.add_argument("--list", action="store_true", help="names only")
    args = parser.parse_args(argv)
    chosen = [fault for fault in FAULTS if any(word in fault.name for word in args.only.split(","))]
    if args.list:
        print("\n".join(fault.name for fault in chosen))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        copied(place)
        sound = pytest(place, sorted({test for fault in chosen for test in fault.tests}))
        if sound.returncode != PASSED:
            print(f"the tests fail without a fault:\n{sound.stdout[-3000:]}{sound.stderr[-1000:]}")
            return 1
        survived = []
        for fault in chosen:
            start = time.monotonic()
            status, line = plant(place, fault)
            word = {PASSED: "SURVIVED", FAILED: "found"}.get(status, f"exit status {status}")
            survived += [] if status == FAILED else [fault.name]
            print(f"{word:9} {time.monotonic() - start:5.1f} s  {fault.name}: {line}", flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} faults found")
    return int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
