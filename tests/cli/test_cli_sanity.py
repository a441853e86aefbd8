"""minisparse sanity: tables, plots and resuming, on a network of a few hundred weights."""

import json
from pathlib import Path

import pytest

from minisparse.cli.main import VERBS, main

TINY = ["--model", "mlp:64-8-10", "--epochs", "1", "--batch", "512", "--seeds", "2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(VERBS, "sanity", "put pruning at initialisation to the test")


def call(argv, capsys, status=0):
    capsys.readouterr()
    assert main(["sanity", *argv, "--json"]) == status, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_controls_are_run_told_drawn_and_kept(capsys, monkeypatch):
    argv = [*TINY, "--methods", "random,snip", "--sparsities", "0.8", "--controls", "shuffle"]
    found = call(argv, capsys)
    cells = [(cell["label"], cell["control"], cell["sparsity"]) for cell in found["cells"]]
    assert cells == [
        ("dense", "none", 0.0),
        ("random", "none", 0.8),
        ("random", "shuffle", 0.8),
        ("snip", "none", 0.8),
        ("snip", "shuffle", 0.8),
    ]
    assert len(found["sentences"]) == 1
    names = ["controls", "densities", "survivors", "conservation"]
    assert [Path(path).stem for path in found["plots"]] == names
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in found["plots"])

    def never(*rest):
        raise AssertionError("a stored run was made again")

    monkeypatch.setattr("minisparse.experiments.runner.train", never)
    assert call(argv, capsys)["cells"] == found["cells"]
    assert main(["sanity", *argv]) == 0
    out = capsys.readouterr().out
    assert "shuffle, points of accuracy" in out and "snip" in out and "0/4" in out


def test_collapse(capsys):
    found = call(["collapse", *TINY, "--methods", "magnitude-init,synflow"], capsys)
    assert found["maximal"] == (64 * 8 + 80) / 2
    by_label = {row["label"]: row for row in found["critical"]}
    assert by_label["synflow"]["compression"] == pytest.approx(found["maximal"])
    assert {p["label"] for p in found["points"]} == set(by_label)
    assert main(["sanity", "collapse", *TINY, "--methods", "magnitude-init,synflow"]) == 0
    assert "maximal compression 296" in capsys.readouterr().out


def test_flow(capsys):
    found = call(["flow", *TINY, "--sparsities", "0.9"], capsys)
    assert [row["kind"] for row in found["rows"]][:3] == ["dense network", "dense weights", "sparse-init"]
    assert set(found["signals"]) == {"0.9"} and len(found["signals"]["0.9"]["sparse-init"]) == 11
    assert main(["sanity", "flow", *TINY, "--sparsities", "0.9", "-q"]) == 0
    assert "sparse-init" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["collaps"], "collapse"),
        (["--methods", "sinp"], "snip"),
        (["--methods", "rigl"], "no setting 'control'"),
        (["--controls", "shufle"], "shuffle"),
        (["--seeds", "1,2", "--seed", "3"], "seeds given twice"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(argv, text, capsys):
    assert main(["sanity", *argv, "--epochs", "1"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and text in line


def test_interrupted_runs_are_kept(capsys, monkeypatch):
    argv = [*TINY, "--methods", "random", "--sparsities", "0.8", "--controls", "none"]

    def interrupted(specs, store, watch, data_dir):
        raise KeyboardInterrupt

    monkeypatch.setattr("minisparse.cli.jobs.compare", interrupted)
    assert main(["sanity", *argv]) == 130
    assert "the same command resumes" in capsys.readouterr().err
