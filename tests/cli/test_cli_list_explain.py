"""list, explain, data, doctor and bench: complete, and JSON that parses."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minisparse import errors
from minisparse.cli import bench, doctor, explain
from minisparse.cli.list import LISTS
from minisparse.cli.main import main
from minisparse.data import available
from minisparse.experiments.settings import fields_of
from minisparse.methods.registry import catalogue
from minisparse.nn.models import PLANS
from minisparse.sparsity.parse import (
    ALLOCATIONS,
    CONTROLS,
    PATTERNS,
    SCHEDULES,
    parse_control,
    parse_pattern,
    parse_schedule,
)

NAMES = {
    "methods": set(catalogue()),
    "models": set(PLANS),
    "data": set(available()),
    "schedules": set(SCHEDULES),
    "allocations": set(ALLOCATIONS),
    "patterns": set(PATTERNS),
    "controls": set(CONTROLS),
}


def call(argv: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """Parsed stdout of a command that must succeed."""
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("what", LISTS)
def test_list_is_complete(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = call(["list", what], capsys)
    names = [row["name"] for row in rows]
    assert names and set(names) == NAMES.get(what, set(names)) and len(set(names)) == len(names)
    assert all(row["idea"].strip() for row in rows)
    assert main(["list", what, "-q"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    for row in rows:  # on a pipe each row is one line, whatever its length
        assert any(all(str(cell) in line for cell in row.values()) for line in lines)
    assert captured.err == ""


def test_list_defaults_to_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["list"], capsys) == call(["list", "methods"], capsys)


def test_listed_settings_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"schedules": parse_schedule, "patterns": parse_pattern, "controls": parse_control}
    for kind, parse in kinds.items():
        for row in call(["list", kind], capsys):
            text = f"{row['name']}:{row['settings']}" if row["settings"] else row["name"]
            assert parse(text) == parse(row["name"])


@pytest.mark.parametrize("name", catalogue())
def test_explain_every_method(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts = call(["explain", name], capsys)
    entry = catalogue()[name]
    assert (facts["idea"], facts["paper"]) == (entry.idea, entry.paper)
    assert [row["name"] for row in facts["settings"]] == [s.name for s in fields_of(entry.cls)]
    for part in (*facts["functions"], *facts["hooks"]):
        path, _, first = part["place"].rpartition(":")
        source = (explain.ROOT / path).read_text(encoding="utf-8").splitlines()
        shown = part["source"].splitlines()
        # the lines quoted are the lines of the file, but for their indentation
        quoted = source[int(first) - 1 : int(first) - 1 + len(shown)]
        assert [line.strip() for line in shown] == [line.strip() for line in quoted]
    assert all((explain.ROOT / path).is_file() for path in facts["tests"])
    assert main(["explain", name]) == 0
    text = capsys.readouterr().out
    assert entry.idea in text and facts["command"] in text
    for line in facts["text"].splitlines() + facts["departures"].splitlines():
        assert line in text


def test_explain_shows_functions_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    facts = call(["explain", "rigl"], capsys)
    assert [part["name"] for part in facts["functions"]] == ["exchange_fraction", "exchange"]
    assert "(1)" in facts["text"] and facts["departures"].startswith("Departures:")
    assert "Departures" not in facts["text"]


@pytest.mark.parametrize("code", explain.codes())
def test_explain_every_error_code(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts = call(["explain", code.lower()], capsys)
    cls = getattr(errors, facts["error"])
    assert (cls.code, cls.exit_status) == (code, facts["exit_status"])
    assert facts["meaning"]
    assert main(["explain", code]) == 0
    assert facts["meaning"] in capsys.readouterr().out


def test_every_error_class_has_its_own_code() -> None:
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.MinisparseError)
    ]
    assert set(explain.codes().values()) == set(classes)


def test_data_list_finds_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row["where"] for row in call(["data", "--data-dir", str(tmp_path)], capsys)}
    assert (rows["digits"], rows["mnist"]) == ("in the package", "not found")
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").touch()
    rows = {row["name"]: row["where"] for row in call(["data", "list", "--data-dir", str(tmp_path)], capsys)}
    assert rows["mnist"] == str(tmp_path / "mnist")
    assert call(["data", "list", "moons"], capsys)[0]["name"] == "moons"


def test_data_verify(capsys: pytest.CaptureFixture[str]) -> None:
    rows = call(["data", "verify", "digits"], capsys)
    assert rows == [{"name": "digits", "train": 1438, "test": 359, "files": 0, "bytes": 0, "state": "intact"}]
    assert main(["data", "verify", "digits"]) == 0
    assert "1438" in capsys.readouterr().out


def test_data_get_reports_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def get(name: str, data_dir: str | None, progress: Any) -> Path:
        progress("a.gz", 10, 10)
        progress("b.gz", 5, 20)
        seen.append((name, data_dir, sum(progress.sizes.values())))
        return Path("there") / name

    monkeypatch.setattr("minisparse.cli.data.get", get)
    rows = call(["data", "get", "mnist", "--data-dir", "there"], capsys)
    assert seen == [("mnist", "there", 15)]
    assert rows[0]["folder"] == str(Path("there") / "mnist")


def test_doctor_is_well_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = call(["doctor", "--out", str(tmp_path)], capsys)
    assert found["broken"] == []
    names = [check["name"] for check in found["checks"]]
    assert {"python", "numpy", "processor", "kernels", "kernel cache", "free space", "mnist"} <= set(names)
    assert main(["doctor", "--out", str(tmp_path)]) == 0
    assert "everything essential works" in capsys.readouterr().out


def test_doctor_fails_when_an_essential_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(doctor, "_try_kernels", broken)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "BROKEN" in out and "RuntimeError: no compiler" in out and "broken: kernels" in out


def test_bench_prints_what_a_module_measures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def records(threads: tuple[int, ...], quick: bool) -> list[dict[str, Any]]:
        asked.append((threads, quick))
        return [{"model": "a", "median_ms": 1.23456, "ours/torch": None}]

    fake = SimpleNamespace(__doc__="A title.\n\nMore.", records=records)
    monkeypatch.setattr(bench, "BENCHES", {"train": "json"})
    monkeypatch.setattr(bench, "import_module", lambda name: fake)
    assert call(["bench", "train", "--quick", "--threads", "1"], capsys) == [
        {"model": "a", "median_ms": 1.23456, "ours/torch": None}
    ]
    assert asked == [((1,), True)]
    assert main(["bench"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("A title.") and "median ms" in out and "1.23" in out


def test_bench_prints_a_table_for_each_set_of_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"model": "a", "median_ms": 1.0}, {"model": "b", "median_ms": 2.0}, {"fit": "line", "R2": 0.5}]
    fake = SimpleNamespace(__doc__="A title.", records=lambda threads, quick: rows)
    monkeypatch.setattr(bench, "BENCHES", {"train": "json"})
    monkeypatch.setattr(bench, "import_module", lambda name: fake)
    assert main(["bench", "train"]) == 0
    out = capsys.readouterr().out
    heads = [line.split() for line in out.splitlines() if "model" in line or "fit" in line]
    assert heads == [["model", "median", "ms"], ["fit", "R2"]]
    assert out.count("A title.") == 1 and call(["bench", "train"], capsys) == rows


def test_bench_says_what_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "BENCHES", {"train": "json", "kernels": "minisparse.no_such_module"})
    assert main(["bench", "kernels"]) == 2
    assert capsys.readouterr().err == (
        "minisparse: error[MS100]: benchmark 'kernels' is not in this version: got none of it, "
        "expected one of train.\n"
    )
