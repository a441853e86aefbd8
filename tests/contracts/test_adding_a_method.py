"""docs/adding-a-method.md does what it says: its files and commands are run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import minisparse
from minisparse.testing import PROMISES

ROOT = Path(minisparse.__file__).parent.parent
PAGE = ROOT / "docs" / "adding-a-method.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the pages are not beside the package")
NAME = "magnitude-increase"


def blocks(language: str) -> list[str]:
    """Fenced blocks of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own")
    (path / "magnitude_increase.py").write_text(blocks("python")[0], encoding="utf-8")
    return path


def python(folder: Path, *words: str) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_method_has_about_thirty_lines() -> None:
    lines = blocks("python")[0].splitlines()
    assert len([line for line in lines if line.strip()]) <= 35
    assert max(map(len, lines)) <= 110


def command(verb: str, *rest: str) -> list[str]:
    """The command of the page that begins so, as words behind `python`."""
    (block,) = blocks("sh")
    for line in block.splitlines():
        words = shlex.split(line)
        if words[2] == verb and all(word in words for word in rest):
            return words[1:]
    raise AssertionError(f"the page has no command {verb} {rest}")


def line_of(text: str) -> int:
    """Number of the line of the method's file that begins so."""
    return next(k for k, line in enumerate(blocks("python")[0].splitlines(), 1) if line.startswith(text))


def test_it_is_listed_and_explained(folder: Path) -> None:
    assert NAME in python(folder, *command("list"))
    text = python(folder, *command("explain"))
    assert (
        "score = |w| - |w_0|" in text and f"magnitude_increase.py:{line_of('def increase')}  increase" in text
    )


def test_it_is_traced(folder: Path) -> None:
    text = python(folder, *command("explain", "--trace"))
    assert (
        "asked 14 (sparsity 0.5)" in text
        and f"(1) increase, magnitude_increase.py:{line_of('def increase')}" in text
    )
    assert re.search(r"\n  weights +score\n", text)


def test_it_runs_and_is_compared(folder: Path) -> None:
    found = json.loads(python(folder, *command("run"), "--json", "-q"))
    assert found["sparsity"] == pytest.approx(0.9, abs=1e-3)
    text = python(folder, *command("compare"), "-q")
    assert f"{NAME} " in text and "magnitude " in text


def test_it_keeps_its_promises_and_the_page_names_all_of_them(folder: Path) -> None:
    script = ["from magnitude_increase import MagnitudeIncrease", *blocks("python")[1:]]
    (folder / "check.py").write_text("\n".join(script), encoding="utf-8")
    report = python(folder, "check.py")
    assert report.startswith("MagnitudeIncrease(sparsity=0.8) on mlp, conv")
    assert all(f"  {name} " in report for name in PROMISES)
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert listed == list(PROMISES)
