"""E7: several processes on one results folder take turns; none corrupts what another wrote."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from minisparse.errors import CheckpointError
from minisparse.experiments import store as module
from minisparse.experiments.store import FILE, NETWORKS, Store
from minisparse.training.checkpoint import TEMPORARY
from tests.reliability.processes import environment
from tests.reliability.writers import OWN, SHARED, outcome

WRITERS = (1, 2, 3)


def test_processes_that_write_the_same_runs_at_once_leave_whole_results(tmp_path: Path) -> None:
    """Their networks differ, so that a mixture would be seen. They make the store at the same moment too."""
    begin, folder = tmp_path / "begin", tmp_path / "runs"
    argv = [sys.executable, "-m", "tests.reliability.writers", str(folder)]
    processes = [
        subprocess.Popen([*argv, str(k), str(begin), "3"], env=environment(), stderr=subprocess.PIPE)
        for k in WRITERS
    ]
    begin.touch()
    for process in processes:
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint.decode()
    with Store(folder) as store:
        found = {o.spec.seed: o for o in store.all()}
        alone = {1000 * k + n for k in WRITERS for n in range(OWN)}
        assert set(found) == set(range(SHARED)) | alone
        for seed, kept in found.items():
            writer = round(100 * kept.accuracy)
            assert writer == (seed // 1000 or writer) and writer in WRITERS
            values = {float(p.value.flat[0]) for p in store.network(kept.spec.key).params().values()}
            assert values == {writer}  # the network of the process whose row it is
    assert not list(folder.rglob(f"*{TEMPORARY}"))


def test_a_writer_waits_for_the_other_and_then_says_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_TO_WAIT", 0.1)
    with Store(tmp_path) as store:
        store.put(outcome(0, 1))
        other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert len(store.all()) == 1  # readers do not wait
        with pytest.raises(CheckpointError, match="database is locked.* whether another process has it"):
            store.put(outcome(1, 1))
        assert not store.has_network(outcome(1, 1).spec.key)  # not begun, so nothing is half done
        other.execute("ROLLBACK")
        other.close()
        store.put(outcome(1, 1))
        assert len(store.all()) == 2


def test_the_lock_of_a_dead_process_is_gone(tmp_path: Path) -> None:
    """There is nothing stale to clean up after a kill in the middle of a `put`."""
    code = (
        "import os, signal, sys; from minisparse.experiments import store as m\n"
        "from tests.reliability.writers import outcome\n"
        "m.checkpoint.save = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "m.Store(sys.argv[1]).put(outcome(0, 1))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment(), check=False)
    assert done.returncode == -9
    with Store(tmp_path) as store:
        assert store.all() == []
        store.put(outcome(0, 2))
        assert len(store.all()) == 1


def test_temporary_files_of_dead_processes_are_swept_and_of_living_ones_not(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put(outcome(0, 1))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    places = [tmp_path, tmp_path / "plots", tmp_path / NETWORKS / outcome(0, 1).spec.key]
    places[1].mkdir()
    for place in places:
        for process in (dead.pid, os.getpid(), os.getppid(), 1 << 70, "x", ""):
            (place / f"report.html.{process}{TEMPORARY}").touch()
        (place / "mine.tmp").touch()
    with Store(tmp_path) as store:
        assert store.has_network(outcome(0, 1).spec.key)
    for place in places:
        left = {path.name for path in place.iterdir()}
        assert f"report.html.{dead.pid}{TEMPORARY}" not in left
        stay = {f"report.html.{name}{TEMPORARY}" for name in (os.getppid(), "x", "")}
        assert stay | {"mine.tmp"} <= left


def test_a_network_that_is_being_replaced_is_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def unlucky(folder: Path) -> object:
        calls.append(folder)
        if len(calls) == 1:
            raise CheckpointError("between its two files")
        return real(folder)

    real = module.checkpoint.load
    with Store(tmp_path) as store:
        store.put(outcome(0, 1))
        monkeypatch.setattr(module.checkpoint, "load", unlucky)
        assert store.network(outcome(0, 1).spec.key).name == "mlp:3-40-2"
    assert len(calls) == 2
