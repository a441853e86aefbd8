"""minisparse study: what there is, the files it writes, and its complaints."""

import json

import pytest

from minisparse.cli.main import main
from minisparse.cli.study import STUDIES


def test_without_a_name_it_lists_all(capsys):
    assert main(["study", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(STUDIES)
    assert all(row["claim"].endswith((".", "?")) for row in rows)
    assert main(["study"]) == 0
    assert all(row["claim"] in capsys.readouterr().out for row in rows[:1])


def test_a_study_writes_figure_and_numbers(capsys, tmp_path):
    argv = ["study", "trajectory", "--seeds", "4,", "--out", str(tmp_path), "-q"]
    assert main([*argv, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    saved = json.loads((tmp_path / "studies" / "trajectory.json").read_text())
    assert shown["seeds"] == saved["seeds"] == [4] and saved["rows"] == shown["rows"]
    assert saved["study"] == "trajectory" and saved["environment"]["numpy"]
    assert (tmp_path / "studies" / "trajectory.png").read_bytes().startswith(b"\x89PNG")
    first = (tmp_path / "studies" / "trajectory.png").read_bytes()
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert "lower bound" in captured.out and "figure:" in captured.out and captured.err == ""
    assert (tmp_path / "studies" / "trajectory.png").read_bytes() == first


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["study", "trajectori"], "Did you mean 'trajectory'"),
        (["study", "taylor", "--seeds", "0"], "seeds"),
        (["study", "taylor", "--seed", "2", "--seeds", "1,2"], "seeds given twice"),
    ],
)
def test_complaints(argv, words, capsys):
    assert main(argv) == 2
    assert words in capsys.readouterr().err
