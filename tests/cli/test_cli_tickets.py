"""tickets: tables, files, resuming, and what cannot be asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from minisparse.cli import tickets
from minisparse.cli.main import main
from minisparse.experiments.runner import Outcome

TINY = ["--model", "mlp:64-12-10", "--epochs", "1", "--batch", "512", "--seeds", "1", "--rounds", "2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(argv: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert main(["tickets", *argv, *TINY, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_controls_are_compared_kept_and_not_run_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--sparsities", "0.8", "--controls", "none,reinit+shuffle"]
    first = call(flags, capsys)
    assert [row["arm"] for row in first["rows"]] == ["dense", "winning ticket", "reinit+shuffle"]
    for path in first["files"]:
        assert Path(path).stat().st_size > 100
    kept = json.loads(Path(first["files"][0]).read_text())
    assert kept["rows"] == first["rows"] and kept["curves"] == first["curves"]
    assert {c["arm"] for c in kept["curves"]} == {"dense", "winning ticket", "reinit+shuffle"}

    def never(*parts: object) -> Outcome:
        raise AssertionError("run again")

    monkeypatch.setattr(tickets.Climb, "execute", never)
    assert call(flags, capsys)["rows"] == first["rows"]


def test_the_table_says_what_its_columns_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tickets", *TINY, "--sparsities", "0.5", "-q"]) == 0
    text = capsys.readouterr().out
    assert "winning ticket" in text and "shuffled mask" in text and "standard error" in text
    assert "controls-curves.png" in text


def test_gales_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    rows = call(["scratch", "--sparsities", "0.7"], capsys)["rows"]
    arms = [
        "dense",
        "pruned in training",
        "scratch, twice as long",
        "scratch",
        "scratch, augmented",
        "lottery",
    ]
    assert [row["arm"] for row in rows] == arms


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (["connectivity", "--sparsities", "0.7", "--rewind", "0,0.5"], 4),
        (["alignment", "--sparsities", "0.7"], 4),
        (["transfer", "--data", "digits", "--target", "digits", "--sparsities", "0.7"], 4),
    ],
)
def test_other_experiments(argv: list[str], count: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = call(argv, capsys)
    assert len(found["rows"]) == count and found["study"] == argv[0]
    assert Path(found["files"][0]).name == f"{argv[0]}.json"
    assert main(["tickets", *argv, *TINY, "-q"]) == 0
    assert "error" in capsys.readouterr().out or argv[0] != "connectivity"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["lotery"], "unknown ticket experiment"),
        (["--rewind", "0,0.5"], "expected one"),
        (["--rewind", "x"], "rewind"),
        (["--controls", "reint"], "Did you mean 'reinit'"),
        (["transfer"], "target"),
        (["transfer", "--target", "digitz"], "unknown data set"),
    ],
)
def test_what_cannot_be_asked_for(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tickets", *argv, *TINY]) == 2
    assert words in capsys.readouterr().err
