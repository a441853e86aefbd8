"""tickets and sanity: interrupted anywhere, the same command goes on, and nothing is made twice."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minisparse.cli import console, sanity, tickets
from minisparse.cli.main import main
from minisparse.training.run import Course
from minisparse.training.state import TrainState

TINY = ["--model", "mlp:64-8-10", "--epochs", "2", "--batch", "256", "--seeds", "1"]  # 6 steps an epoch
TICKETS = [*TINY, "--sparsities", "0.5,0.8", "--rounds", "2"]
COMMANDS = {
    "controls": ["tickets", *TICKETS, "--rewind", "0.25"],
    "without the ladder's own run": ["tickets", *TICKETS, "--controls", "reinit,shuffle"],
    "scratch": ["tickets", "scratch", *TINY, "--sparsities", "0.8"],
    "connectivity": ["tickets", "connectivity", *TICKETS, "--rewind", "0,0.25"],
    "alignment": ["tickets", "alignment", *TICKETS],
    "transfer": ["tickets", "transfer", *TICKETS, "--target", "digits"],
    "sanity": ["sanity", *TINY, "--methods", "snip,ticket", "--sparsities", "0.8", "--controls", "shuffle"],
    "collapse": ["sanity", "collapse", *TINY, "--methods", "synflow"],
    "flow": ["sanity", "flow", *TINY, "--sparsities", "0.8"],
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (sanity, tickets):
        monkeypatch.setattr(module, "png", lambda figure: b"")  # drawing is most of the time


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C is heard, which it is not where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Steps:
    """Steps of all trainings, their beginnings counted too; Ctrl-C after so many more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made, self.stop = 0, -1
        real = Course.record

        def record(course: Course, state: TrainState) -> None:
            self.made += 1
            if self.made == self.stop:
                signal.raise_signal(signal.SIGINT)
            real(course, state)

        monkeypatch.setattr(Course, "record", record)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def facts(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What a command says, but for where its files are."""
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)
    return {key: value for key, value in told.items() if key not in ("files", "plots")}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupted_command_goes_on(name: str, steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    argv = COMMANDS[name]
    expected = facts([*argv, "--out", "whole"], capsys)
    whole, steps.made = steps.made, 0
    times, every = 0, max(5, whole // 6)
    while times < 30:
        steps.stop = steps.made + every
        status = main([*argv, "-q"])
        said = capsys.readouterr().err
        if status == 0:
            break
        times += 1
        assert status == 130 and said.startswith("minisparse: interrupted: ") and said.count("\n") == 1
        assert "minisparse-runs" in said and "the same command resumes" in said
    assert times >= 5 and steps.made == whole
    steps.stop = -1
    assert facts(argv, capsys) == expected
    assert steps.made == whole  # all of it was there
    assert not list(Path("minisparse-runs").glob("unfinished/*"))


@pytest.mark.parametrize("name", ["controls", "connectivity", "sanity", "flow"])
def test_fresh_makes_all_of_it_again(name: str, steps: Steps, capsys: pytest.CaptureFixture[str]) -> None:
    argv = COMMANDS[name]
    expected = facts(argv, capsys)
    whole = steps.made
    steps.stop = whole + whole // 2
    assert main([*argv, "-q", "--fresh"]) == 130
    steps.made, steps.stop = 0, -1
    assert facts([*argv, "--fresh"], capsys) == expected
    assert steps.made == whole


@pytest.mark.parametrize("name", ["controls", "connectivity", "alignment", "transfer", "flow"])
def test_progress_and_time_left_go_to_stderr(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "QUIET_SECONDS", 0.0)
    assert main([*COMMANDS[name], "--json"]) == 0
    out, err = capsys.readouterr()
    json.loads(out)
    shares = [int(share) for share in re.findall(r"(\d+)% done, .* left", err)]
    assert len(set(shares)) > 5 and shares == sorted(shares)


@pytest.mark.parametrize("name", ["connectivity", "alignment", "transfer"])
def test_trainings_that_are_no_runs_of_a_grid_take_no_jobs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags in (["--jobs", "2"], ["--cluster", "tcp://127.0.0.1:9"]):
        assert main([*COMMANDS[name], *flags]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "no runs of a grid" in error


def test_traces_do_not_leave_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMANDS["flow"], "--cluster", "tcp://127.0.0.1:9"]) == 2
    assert "Use --jobs" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["{}", ""])
def test_a_damaged_or_missing_trace_is_measured_again(
    damage: str, steps: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = facts(COMMANDS["flow"], capsys)
    path = next(Path("minisparse-runs/traces").glob("*.json"))
    path.write_text(damage) if damage else path.unlink()
    steps.made = 0
    assert facts(COMMANDS["flow"], capsys) == expected and steps.made == 13


def test_workers_give_what_one_process_gives(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed")
    for name in ("flow", "controls"):
        alone = facts([*COMMANDS[name], "--out", "one", "--threads", "1"], capsys)
        assert facts([*COMMANDS[name], "--out", "two", "--jobs", "2", "--threads", "1"], capsys) == alone
    assert not list(Path("two").glob("unfinished/*"))
