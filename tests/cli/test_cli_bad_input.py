"""Bad input of every kind: the right exit status, exactly one line on stderr, no traceback."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minisparse.cli.main import VERBS, main
from minisparse.data.idx import STEMS

RUN = ["run", "magnitude"]
FAST = ["--model", "mlp:64-4-10", "--epochs", "1", "--batch", "1438"]

# arguments, exit status, code, a piece of the line
TABLE = [
    # the command and its flags
    (["comprae"], 2, "MS102", "Did you mean 'compare'?"),
    (["--seed", "3"], 2, "MS100", "expected a command"),
    (["--threads"], 2, "MS100", "expected a command"),
    ([""], 2, "MS102", "unknown command ''"),
    (["run"], 2, "MS100", "METHOD"),
    (["explain"], 2, "MS100", "METHOD"),
    ([*RUN, "--sparsty", "0.9"], 2, "MS100", "Did you mean '--sparsity'?"),
    ([*RUN, "--sparsty=0.9"], 2, "MS100", "Did you mean '--sparsity'?"),
    (["--sparsty", "0.9", *RUN], 2, "MS102", "unknown command '0.9'"),
    (["run", "--sparsty", "0.9"], 2, "MS100", "unknown option '--sparsty'"),
    ([*RUN, "-z"], 2, "MS100", "-z"),
    ([*RUN, "extra"], 2, "MS100", "'extra'"),
    ([*RUN, "--epochs"], 2, "MS100", "--epochs"),
    ([*RUN, "--spars", "0.9"], 2, "MS100", "Did you mean '--sparsity'?"),
    (["run", "dense", "--sparsity", "0.9"], 2, "MS100", "unknown option '--sparsity'"),
    (["compare", "magnitude"], 2, "MS102", "unknown grid 'magnitude'"),
    # sparsity
    ([*RUN, "--sparsity", "90"], 2, "MS101", "got 90, expected 0 <= sparsity < 1. Did you mean 0.90?"),
    ([*RUN, "--sparsity", "95.5"], 2, "MS101", "Did you mean 0.955?"),
    ([*RUN, "--sparsity", "1"], 2, "MS101", "removes every weight"),
    ([*RUN, "--sparsity", "nan"], 2, "MS101", "got nan"),
    ([*RUN, "--sparsity", "inf"], 2, "MS101", "got inf"),
    ([*RUN, "--sparsity", "-0.1"], 2, "MS101", "got -0.1"),
    ([*RUN, "--sparsity", "abc"], 2, "MS101", "got 'abc'"),
    ([*RUN, "--sparsity", ""], 2, "MS101", "got ''"),
    ([*RUN, "--sparsity", "90%"], 2, "MS101", "got '90%'"),
    ([*RUN, "--sparsity=-inf"], 2, "MS101", "got -inf"),
    (["run", "rigl", "--sparsity", "True"], 2, "MS101", "got 'True'"),
    (["compare", "--sparsities", "0.5,90"], 2, "MS101", "Did you mean 0.90?"),
    (["compare", "--sparsities", "0.5,nan"], 2, "MS101", "got nan"),
    (["compare", "--sparsities", "0.5,0.5"], 2, "MS100", "each value once"),
    (["compare", "--sparsities", ","], 2, "MS100", "joined by commas"),
    # names
    (["run", "magnitud"], 2, "MS102", "Did you mean 'magnitude'?"),
    (["run", ""], 2, "MS102", "unknown method ''"),
    (["compare", "--methods", "magnitude,ringl"], 2, "MS102", "Did you mean 'rigl'?"),
    ([*RUN, "--model", "lenet-301"], 2, "MS102", "Did you mean 'lenet-300-100'?"),
    (["compare", "--model", "resnet20"], 2, "MS102", "Did you mean 'resnet-20'?"),
    ([*RUN, "--data", "digit"], 2, "MS102", "Did you mean 'digits'?"),
    (["compare", "--data", "mnits"], 2, "MS102", "Did you mean 'mnist'?"),
    ([*RUN, "--optimizer", "sdg"], 2, "MS102", "Did you mean 'sgd'?"),
    ([*RUN, "--optimizer", "sgd:momentun=0.9"], 2, "MS102", "Did you mean 'momentum'?"),
    ([*RUN, "--rate", "cosin"], 2, "MS102", "Did you mean 'cosine'?"),
    ([*RUN, "--init", "kaiming-norm"], 2, "MS102", "Did you mean 'kaiming-normal'?"),
    ([*RUN, "--dtype", "float16"], 2, "MS102", "float32"),
    ([*RUN, "--schedule", "cubik"], 2, "MS102", "Did you mean 'cubic'?"),
    ([*RUN, "--allocation", "unifrom"], 2, "MS102", "Did you mean 'uniform'?"),
    ([*RUN, "--pattern", "blok"], 2, "MS102", "Did you mean 'block'?"),
    (["list", "method"], 2, "MS102", "Did you mean 'methods'?"),
    (["explain", "rigel"], 2, "MS102", "Did you mean 'rigl'?"),
    (["explain", "MS999"], 2, "MS102", "MS999"),
    (["bench", "trian"], 2, "MS102", "Did you mean 'train'?"),
    (["data", "verfy"], 2, "MS102", "Did you mean 'verify'?"),
    (["data", "list", "mnits"], 2, "MS102", "Did you mean 'mnist'?"),
    (["data", "get", "mnits", "--data-dir", "."], 2, "MS102", "Did you mean 'mnist'?"),
    (["data", "get"], 2, "MS100", "got none"),
    (["data", "verify", "mnits"], 2, "MS102", "Did you mean 'mnist'?"),
    (["export", "abc", "--to", "pickle"], 2, "MS102", "expected one of csv, npz, safetensors, scipy"),
    (["export", "abc"], 2, "MS100", "--to"),
    # settings of methods
    ([*RUN, "--norm", "3"], 2, "MS100", "expected 1 or 2"),
    ([*RUN, "--norm", "x"], 2, "MS100", "expected a whole number"),
    ([*RUN, "--schedule", "cubic:begin=2"], 2, "MS100", "begin"),
    ([*RUN, "--schedule", "cubic:begun=0.1"], 2, "MS102", "Did you mean 'begin'?"),
    ([*RUN, "--pattern", "5:4"], 2, "MS100", "5:4"),
    (["run", "rigl", "--alpha", "nan"], 2, "MS100", "alpha"),
    (["run", "rigl", "--every", "0"], 2, "MS100", "every"),
    # sizes and numbers
    ([*RUN, "--model", "mlp:64-0-10"], 2, "MS100", "64-0-10"),
    ([*RUN, "--model", "mlp:64--10"], 2, "MS100", "positive integers joined by"),
    ([*RUN, "--model", "mlp:"], 2, "MS100", "mlp"),
    ([*RUN, "--model", "mlp:63-10"], 2, "MS103", "expected 64 and 10"),
    ([*RUN, "--model", "mlp:64-8-11"], 2, "MS103", "expected 64 and 10"),
    ([*RUN, "--model", "lenet-5:2"], 2, "MS100", "expected just 'lenet-5'"),
    ([*RUN, "--model", "resnet-20:nan"], 2, "MS103", "nan"),
    ([*RUN, "--model", "lenet-5", "--data", "moons"], 2, "MS103", "lenet-5"),
    (["compare", "--model", "mlp:64-0-10"], 2, "MS100", "64-0-10"),
    ([*RUN, "--epochs", "0"], 2, "MS100", "epochs: got '0', expected a whole number >= 1"),
    ([*RUN, "--epochs", "-1"], 2, "MS100", "epochs"),
    ([*RUN, "--epochs", "1.5"], 2, "MS100", "epochs"),
    (["compare", "--epochs", "x"], 2, "MS100", "epochs"),
    ([*RUN, "--batch", "0"], 2, "MS100", "batch: got '0'"),
    ([*RUN, "--batch", "nan"], 2, "MS100", "batch"),
    ([*RUN, "--lr", "0"], 2, "MS100", "lr: got '0', expected a finite number > 0"),
    ([*RUN, "--lr", "nan"], 2, "MS100", "lr: got 'nan'"),
    ([*RUN, "--lr", "-1"], 2, "MS100", "lr: got '-1'"),
    ([*RUN, "--lr", "inf"], 2, "MS100", "lr: got 'inf'"),
    ([*RUN, "--rate", "cosine:lr=0"], 2, "MS100", "got 0.0, expected a number > 0"),
    ([*RUN, "--rate", "cosine:lr=nan"], 2, "MS100", "nan"),
    ([*RUN, "--lr", "0.1", "--rate", "step:lr=0.2"], 2, "MS100", "twice"),
    ([*RUN, "--optimizer", "sgd:momentum=1.5"], 2, "MS100", "momentum"),
    ([*RUN, "--seed", "-1"], 2, "MS100", "seed: got '-1'"),
    ([*RUN, "--seed", "x"], 2, "MS100", "seed"),
    (["compare", "--seeds", "0"], 2, "MS100", "seeds"),
    (["compare", "--seeds", "1,1"], 2, "MS100", "each value once"),
    (["compare", "--seeds", "0,x"], 2, "MS100", "seeds"),
    (["compare", "--seeds", "0,1", "--seed", "4"], 2, "MS100", "twice"),
    (["list", "--threads", "0"], 2, "MS100", "threads: got '0'"),
    (["list", "--threads", "99999"], 2, "MS100", "threads: got 99999"),
    # what is not there
    (["inspect", "abc"], 3, "MS302", "holds no results"),
    (["inspect", "no/such/folder"], 3, "MS302", "cannot be read"),
    (["report", "all"], 3, "MS302", "holds no results"),
    (["export", "abc", "--to", "npz"], 3, "MS302", "holds no results"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh working folder, and no data but what a test makes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINISPARSE_DATA", raising=False)


def one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Status and error line of a command that must fail with nothing else to say."""
    code = main(argv)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n")
    assert "Traceback" not in captured.err
    return code, captured.err


@pytest.mark.parametrize(("argv", "status", "code", "piece"), TABLE)
def test_bad_input(
    argv: list[str], status: int, code: str, piece: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, line = one_line(argv, capsys)
    assert line.startswith(f"minisparse: error[{code}]: ")
    assert piece in line
    assert found == status


def images(n: int, side: int = 28) -> bytes:
    return bytes([0, 0, 8, 3]) + np.array([n, side, side], ">u4").tobytes() + bytes(n * side * side)


def labels(n: int, top: int = 9) -> bytes:
    return bytes([0, 0, 8, 1]) + np.array([n], ">u4").tobytes() + bytes(i % (top + 1) for i in range(n))


def whole_set() -> dict[str, bytes]:
    return dict(zip(STEMS, (images(20), labels(20), images(10), labels(10)), strict=True))


def spoil(stem: int, change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    files = whole_set()
    return files | {STEMS[stem]: change(files[STEMS[stem]])}


FILES = {
    "no files": ({}, "MS300", "not found"),
    "one file": ({STEMS[0]: images(20)}, "MS300", "is missing"),
    "all empty": (dict.fromkeys(STEMS, b""), "MS300", "byte 0"),
    "empty images": (spoil(0, lambda b: b""), "MS300", "byte 0"),
    "header only": (spoil(0, lambda b: b[:16]), "MS300", "too short"),
    "truncated images": (spoil(0, lambda b: b[:-1]), "MS300", "too short"),
    "truncated labels": (spoil(3, lambda b: b[:-1]), "MS300", "too short"),
    "a byte too many": (spoil(2, lambda b: b + b"\0"), "MS300", "goes on after its end"),
    "not IDX": (spoil(1, lambda b: b"PK\3\4" + b), "MS300", "is no IDX file"),
    "label 10": (spoil(1, lambda b: labels(20, 10)), "MS300", "bad label"),
    "fewer labels": (spoil(1, lambda b: labels(19)), "MS300", "number of images"),
    "small images": (spoil(0, lambda b: images(20, 8)), "MS300", "holds no images"),
    "broken gzip": (spoil(0, lambda b: gzip.compress(b)[:-3]), "MS300", "damaged"),
    "huge shape": (spoil(0, lambda b: images(1)[:4] + b"\xff" * 12 + b"\0"), "MS300", "declares too much"),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("verb", ["run", "compare", "data"])
def test_bad_files(case: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, code, piece = FILES[case]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    argv = {"run": RUN, "compare": ["compare"], "data": ["data", "verify", "mnist"]}[verb]
    data = [] if verb == "data" else ["--data", "mnist"]
    status, line = one_line([*argv, *data, "--data-dir", str(tmp_path)], capsys)
    assert (status, line[:25]) == (3, f"minisparse: error[{code}]: "[:25])
    assert piece in line


def test_no_data_folder_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    status, line = one_line([*RUN, "--data", "mnist"], capsys)
    assert status == 3 and "--data-dir" in line and "minisparse data get mnist" in line


def test_results_folder_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    status, line = one_line([*RUN, *FAST, "--out", "taken"], capsys)
    assert (status, "MS302" in line, "taken" in line) == (3, True, True)


def test_results_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "results.sqlite").write_text("this is not a results file, but long enough" * 99)
    for argv in (["inspect", "abc"], [*RUN, *FAST], ["report", "all"]):
        status, line = one_line([*argv, "--out", "runs"], capsys)
        assert (status, "MS302" in line) == (3, True)


WORDS = st.sampled_from(
    [*VERBS, "magnitude", "rigl", "mnist", "digits", "methods", "0.9", "nan", "-1", "90", "", "--", "-", "-q",
     "--sparsity", "--model", "mlp:0", "--data", "--epochs", "--lr", "--seeds", "--to", "npz", "--data-dir",
     "--threads", "--strict", "--json", "--debug=1", "--norm", "\x00", "é", "--out"]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tokens=st.lists(WORDS, max_size=5))
def test_no_command_line_gives_a_traceback(tokens: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Any words: a status of the list, and an error is one line. Commands that would work are cut short
    by a flag that no command has."""
    status = main([*tokens, "--no-such-flag"])
    captured = capsys.readouterr()
    assert status in (0, 2, 3)  # 0: help; 3: after '--' the flag is the name of a run
    assert captured.err.count("\n") == (status != 0)
    assert "Traceback" not in captured.err
    assert not re.search("unforeseen", captured.err)
