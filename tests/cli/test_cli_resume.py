"""run and compare: interrupted ones are saved and go on; what is over leaves nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisparse.cli import pages
from minisparse.cli.main import main
from minisparse.cli.run import Epochs
from minisparse.experiments import compare
from minisparse.experiments.runner import UNFINISHED
from minisparse.experiments.store import Store
from minisparse.nn.network import Network
from minisparse.training import keeper, snapshot
from minisparse.training.state import TrainState

TINY = ["--model", "mlp:64-8-10", "--epochs", "2", "--batch", "256"]  # 6 steps an epoch
RUN = ["run", "rigl", "--sparsity", "0.5", "--every", "2", *TINY]
OUT = Path("minisparse-runs")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C is heard, which it is not where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def at_step(step: int, act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Do this when a run has made so many steps; the steps that were made."""
    real, seen = Epochs.__call__, list[int]()

    def watched(self: Epochs, state: TrainState) -> None:
        seen.append(state.step)
        real(self, state)
        if state.step == step:
            act()

    monkeypatch.setattr(Epochs, "__call__", watched)
    return seen


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def stored() -> Network:
    with Store(OUT) as store:
        (outcome,) = store.all()
        return store.network(outcome.spec.key)


def same(a: Network, b: Network) -> bool:
    one, two = a.state(), b.state()
    return one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)


def test_an_interrupted_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN, "--out", "whole", "-q"]) == 0
    with monkeypatch.context() as patch:
        at_step(5, interrupt, patch)
        assert main([*RUN, "-q"]) == 130
    assert capsys.readouterr().err == (
        "minisparse: interrupted: step 5 of this run is saved in minisparse-runs; the same command goes on "
        "from there\n"
    )
    with monkeypatch.context() as patch:
        seen = at_step(99, interrupt, patch)
        assert main(RUN) == 0
    assert seen == list(range(6, 13))
    assert "goes on after step 5 (--fresh starts again)" in capsys.readouterr().err
    with Store("whole") as store:
        (outcome,) = store.all()
        whole = store.network(outcome.spec.key)
    assert same(stored(), whole)
    assert not list(OUT.glob(f"{UNFINISHED}/*"))


def test_twice_is_at_once_and_what_was_saved_before_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(5, lambda: (interrupt(), interrupt()), monkeypatch)
    assert main([*RUN, "-q"]) == 130
    assert "nothing of this run was kept" in capsys.readouterr().err
    assert main([*RUN, "-q", "--checkpoint-every", "4"]) == 130
    assert "step 4 of this run is saved" in capsys.readouterr().err


def test_fresh_starts_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        at_step(5, interrupt, patch)
        assert main([*RUN, "-q"]) == 130
    with monkeypatch.context() as patch:
        seen = at_step(3, interrupt, patch)
        assert main([*RUN, "-q", "--fresh"]) == 130
    assert seen == [0, 1, 2, 3]
    assert "the same command without --fresh goes on from there" in capsys.readouterr().err


def test_another_spec_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_step(5, interrupt, patch)
        assert main([*RUN, "-q"]) == 130
    seen = at_step(99, interrupt, monkeypatch)
    assert main([*RUN, "-q", "--lr", "0.05"]) == 0
    assert seen == list(range(13))
    assert len(list(OUT.glob(f"{UNFINISHED}/*"))) == 1  # the first can still go on


def test_damage_is_one_line_and_not_a_result(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        at_step(5, interrupt, patch)
        assert main([*RUN, "-q"]) == 130
    (path,) = OUT.glob(f"{UNFINISHED}/*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    assert main([*RUN, "-q"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "MS302" in error and path.name in error
    assert main([*RUN, "-q", "--fresh"]) == 0


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*rest: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot.files, "write_atomic", full)
    assert main([*RUN, "-q", "--checkpoint-every", "4"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "No space left" in error and "Nothing was saved before" in error


@pytest.mark.parametrize("every", ["0", "-2", "x", "1.5"])
def test_unusable_intervals(every: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--checkpoint-every", every]) == 2
    assert "checkpoint-every" in capsys.readouterr().err


GRID = ["compare", "--methods", "rigl", "--sparsities", "0.5", "--seeds", "1", *TINY, "-q"]


def test_cells_of_a_grid_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pages, "write_report", lambda o, n, folder, title: folder / "report.html")
    monkeypatch.setattr(keeper, "SECONDS", 0.0)
    assert main([*GRID, "--out", "whole"]) == 0
    real, steps = compare.runner.execute, list[int]()

    def watched(spec: Any, data_dir: Any, progress: Any, keeping: Any = None) -> Any:
        def watch(state: TrainState) -> None:
            progress(state)
            steps.append(state.step)
            if len(steps) == 20:  # in the second cell
                interrupt()

        return real(spec, data_dir, watch, keeping)

    monkeypatch.setattr(compare.runner, "execute", watched)
    assert main(GRID) == 130
    assert "1 of 2 runs are saved in minisparse-runs; the same command resumes" in capsys.readouterr().err
    (folder,) = OUT.glob(f"{UNFINISHED}/*")
    assert snapshot.latest(folder) == steps[-1] == 6
    assert main(GRID) == 0
    assert steps[20:] == list(range(7, 13))
    with Store("whole") as a, Store(OUT) as b:
        for one, two in zip(a.all(), b.all(), strict=True):
            assert one.history == two.history or repr(one.history) == repr(two.history)
            assert same(a.network(one.spec.key), b.network(two.spec.key))
    assert not list(OUT.glob(f"{UNFINISHED}/*"))
    assert main([*GRID, "--fresh"]) == 0
    assert len(steps) == 20 + 6 + 2 * 13
