"""E2: what the package writes is written by one function, and that leaves the old file or the new one."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import minisparse
from minisparse.experiments.theory import study
from minisparse.training import files
from tests.training.failing import ERRORS, a_disk_that_works, call_sites

PACKAGE = Path(minisparse.__file__).parent
# Files that are opened for writing elsewhere, and why that is no exception.
ELSEWHERE = {
    "training/files.py": "the one function itself",
    "weights/timings.py": "a cache, in the same way; this layer may not import the other",
    "data/download.py": "pooch puts it in place when its SHA-256 is right",
    "cli/errors.py": "/dev/null",
    "experiments/bench_memory.py": "a switch of the kernel under /proc",
    "exchange/npz_file.py": "an archive in memory",
}


def written(tree: ast.AST) -> Iterator[int]:
    """Lines that write a file in one go, or open one to write."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        modes = [
            a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)
        ]
        opens = name in ("open", "fdopen", "NamedTemporaryFile") and any(
            isinstance(mode, str) and mode and set(mode) <= set("rwaxbt+") and set(mode) & set("wax+")
            for mode in modes
        )
        if opens or name in ("write_text", "write_bytes", "tofile", "savetxt"):
            yield node.lineno


def test_every_file_is_written_by_the_one_function() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): list(written(ast.parse(path.read_text(encoding="utf-8"))))
        for path in PACKAGE.rglob("*.py")
    }
    lines = {name: lines for name, lines in found.items() if lines}
    assert lines.keys() == ELSEWHERE.keys(), "use training.files.write_atomic, or say here why not"


@pytest.mark.parametrize("text", ["open(p, 'wb')", "p.open('a')", "p.write_text(t)", "open(p, mode='x')"])
def test_writing_is_seen(text: str) -> None:
    assert list(written(ast.parse(text))) == [1]
    assert not list(written(ast.parse("open(p); open(p, 'rb'); p.read_text('utf-8')")))


@pytest.mark.parametrize("number", ERRORS)
def test_whatever_call_fails_the_old_file_is_there_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    old, new = b"old" * 1000, b"new" * 2000
    seen = set()
    for k, site in enumerate(call_sites(monkeypatch, number, written=1)):
        path = tmp_path / f"{k}.json"
        with a_disk_that_works():
            files.write_atomic(path, old)
        if site == "mkdir":  # folders are made by those who write
            continue
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            files.write_atomic(path, new)
        assert caught.value.filename == str(path)
        found = path.read_bytes()
        assert found == (new if site in ("os.open 0", "os.fsync 1") else old), site
        assert [p.name for p in tmp_path.glob(f"*{files.TEMPORARY}")] == []
        seen.add(site)
    assert len(seen) == 7


def test_a_study_on_a_disk_that_fails_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "png", lambda figure: b"picture")
    made = [study.Study([{"x": k}], [], None, {"gif": b"moving"}) for k in range(2)]  # type: ignore[arg-type]
    places = study.write(made[0], "example", [0], tmp_path)
    before = [place.read_bytes() for place in places]
    monkeypatch.setattr(files.os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, os.strerror(28))))
    with pytest.raises(OSError, match="No space left"):
        study.write(made[1], "example", [0], tmp_path)
    assert [place.read_bytes() for place in places] == before
