"""Real processes that are interrupted, terminated and killed, one after another, until their run is done."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from minisparse.methods.registry import catalogue
from minisparse.nn.lr import Cosine
from minisparse.nn.optim import Adam
from minisparse.testing.problems import NETWORKS, data_for
from minisparse.training import snapshot
from minisparse.training.run import Run, train
from minisparse.training.state import TrainState

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
SIGNALS = (signal.SIGINT, signal.SIGTERM, KILL)
AFTER = {signal.SIGINT: 4, signal.SIGTERM: 8, KILL: 16}  # the step at which it comes
SAVED = {signal.SIGINT: 4, signal.SIGTERM: 8, KILL: 15}  # the last step that is saved then


def course(name: str, folder: Path | None = None, asking: bool = False) -> Run:
    """A run of 21 steps; if `asking`, each is told on stdout and a line awaited on stdin."""

    def tell(state: TrainState) -> None:
        print(state.step, flush=True)
        sys.stdin.readline()

    watch = {"progress": tell} if asking else {}
    network = NETWORKS["mlp"]()
    return train(
        network, data_for(network), catalogue()[name].cls(sparsity=0.6), epochs=7, batch=16,
        optimizer=Adam(), rate=Cosine(0.01), checkpoint=folder, every=3, **watch,
    )  # fmt: skip


def child(name: str, folder: Path) -> subprocess.Popen[str]:
    code = (
        f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from pathlib import Path; from tests.training.test_signals import course\n"
        f"course({name!r}, Path({json.dumps(str(folder))}), asking=True)"
    )
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, text=True, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )


def hit(process: subprocess.Popen[str], number: signal.Signals) -> list[int]:
    """Let it make its steps up to the one at which the signal comes; the steps that were told of."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    seen = [int(process.stdout.readline())]
    while seen[-1] < AFTER[number]:
        process.stdin.write("\n")
        process.stdin.flush()
        seen.append(int(process.stdout.readline()))
    process.send_signal(number)
    _, err = process.communicate("\n" if number != KILL else None, timeout=60)
    assert process.returncode != 0
    assert ("KeyboardInterrupt" in err) is (number != KILL), err
    return seen


@pytest.mark.skipif(sys.platform == "win32", reason="processes are ended in another way there")
def test_processes_that_are_interrupted_terminated_and_killed(tmp_path: Path) -> None:
    names, before = ("rigl", "magnitude"), -1
    for number in SIGNALS:
        children = {name: child(name, tmp_path / name) for name in names}
        for name, process in children.items():
            assert hit(process, number) == list(range(before + 1, AFTER[number] + 1))
            assert snapshot.latest(tmp_path / name) == SAVED[number]
        before = SAVED[number]
    for name in names:
        whole, rest = course(name), course(name, tmp_path / name)
        assert repr(whole.history) == repr(rest.history)
        a, b = whole.network.state(), rest.network.state()
        assert all(a[key].tobytes() == b[key].tobytes() for key in a)
