"""Start-up, help, dispatch, and what happens to errors of every kind."""

import os
import subprocess
import sys

import pytest

from minisparse import __version__
from minisparse.cli import errors, main
from minisparse.cli.main import VERBS, split
from minisparse.errors import CheckpointError, MinisparseWarning, SparsityError

HEAVY = ("numpy", "scipy", "numba", "matplotlib", "rich", "safetensors", "pooch")


def test_help_imports_nothing_heavy() -> None:
    probe = (
        "import sys; from minisparse.cli.main import main; code = main(sys.argv[1:]); "
        f"sys.exit(','.join(n for n in {HEAVY!r} if n in sys.modules) or code)"
    )
    for flag in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", probe, flag], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "minisparse", "--version"], capture_output=True, text=True)
    assert done.stdout == f"minisparse {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_overview_names_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(argv) == 0
    out = capsys.readouterr().out
    for verb, text in VERBS.items():
        assert f"  {verb} " in out and text in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([verb, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"usage: minisparse {verb}") and "--threads" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("tokens", "verb", "rest"),
    [
        (["list", "models"], "list", ["models"]),
        (["--seed", "7", "--json", "list"], "list", ["--seed", "7", "--json"]),
        (["--seed=7", "run", "rigl"], "run", ["--seed=7", "rigl"]),
        (["-q"], None, ["-q"]),
    ],
)
def test_flags_may_stand_before_the_command(tokens: list[str], verb: str | None, rest: list[str]) -> None:
    assert split(tokens) == (verb, rest)


class Scene:
    """A stand-in for a command whose `run` raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def add_arguments(self, parser: object) -> None:
        pass

    def run(self, args: object) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SparsityError("too much"), 2, "minisparse: error[MS101]: too much"),
        (CheckpointError("bad\nfile"), 3, "minisparse: error[MS302]: bad file"),
        (KeyboardInterrupt("2 of 3 saved"), 130, "minisparse: interrupted: 2 of 3 saved"),
        (
            KeyboardInterrupt(),
            130,
            "minisparse: interrupted: finished runs are kept; the same command goes on from there",
        ),
        (MinisparseWarning("odd"), 1, "minisparse: error: odd (a warning, and --strict is on)"),
        (
            FileNotFoundError(2, "No such file", "a.b"),
            1,
            "minisparse: error: system call failed 'a.b': got 'No such file'.",
        ),
        (
            KeyError("x"),
            1,
            "minisparse: error: unforeseen KeyError: 'x'. Run again with --debug for the traceback.",
        ),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_become_one_line_and_a_status(
    error: BaseException,
    code: int,
    line: str,
    debug: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = main.import_module
    scene = Scene(error)
    monkeypatch.setattr(main, "import_module", lambda name: scene if name.endswith(".list") else real(name))
    assert main.main(["list", *["--debug"] * debug]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == line
    assert ("Traceback" in captured.err) is debug
    assert debug or captured.err == line + "\n"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """The pipe is closed before the first byte: no message, status 0."""
    probe = (
        "import sys; from minisparse.cli.main import main; sys.stdin.read(); "
        "sys.exit(main(['list', 'models', '-q']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", probe], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_broken_pipe_leaves_a_usable_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file descriptor under sys.stdout too."""

    class Closed:
        def fileno(self) -> int:
            raise ValueError

    monkeypatch.setattr(sys, "stdout", Closed())
    errors.silence_stdout()
    with sys.stdout as stream:
        assert stream.name == os.devnull
