"""E6: a full disk (exit status 1) or an unusable folder (3) is one line; earlier files stay."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minisparse.cli.main import main
from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec
from minisparse.experiments.store import Store
from tests.reliability.counts import examples
from tests.reliability.processes import environment, file_size, python

TINY = ["--model", "mlp:64-8-10", "--epochs", "1", "--batch", "512", "-q"]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")


def digests(folder: Path) -> dict[str, str]:
    """Of every file that stands for itself: the results file may grow, its log and index come and go."""
    files = (path for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.startswith("minisparse: error") and "Traceback" not in text


# bytes that a file may have: nothing can be written, SQLite cannot, the network cannot, the row cannot
LIMITS = (0, 4096, 33_000)
MORE = (1, 511, 4095, 4097, 8192, 12_288, 16_384, 20_000, 24_576, 28_672, 32_768, 40_000, 65_536, 75_000)


@pytest.mark.parametrize("limit", examples(LIMITS, LIMITS + MORE, LIMITS + MORE))
def test_a_run_on_a_full_disk(limit: int, tmp_path: Path) -> None:
    with Store(tmp_path / "out") as store:
        store.put(Outcome(RunSpec("dense", seed=5), accuracy=0.5))
    (tmp_path / "out" / "report.html").write_text("an earlier report")
    before = digests(tmp_path)
    model = ["--model", "mlp:64-300-10"]  # 80 kB
    done = python(
        ["-m", "minisparse", "run", "dense", *TINY, *model, "--out", "out"], tmp_path, file_size(limit)
    )
    assert done.returncode == 1, done.stderr
    assert one_line(done.stderr) and done.stdout == ""
    assert "'out/" in done.stderr.split("got")[0]  # the file it is about
    assert digests(tmp_path) == before
    with Store(tmp_path / "out") as store:
        (only,) = store.all()
        assert only.spec.seed == 5


@needs_full
def test_results_that_cannot_be_printed(tmp_path: Path) -> None:
    with FULL.open("w") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "minisparse", "list", "methods"], cwd=tmp_path, env=environment(),
            stdout=stream, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "No space left on device" in done.stderr and one_line(done.stderr)


@needs_full
def test_an_export_to_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["run", "dense", *TINY, "--out", out]) == 0
    with Store(out) as store:
        key = store.all()[0].spec.key
    before = digests(tmp_path)
    (tmp_path / "full").symlink_to(FULL)
    capsys.readouterr()
    status = main(["export", key, "--to", "csv", "--file", str(tmp_path / "full"), "--force", "--out", out])
    captured = capsys.readouterr()
    # written beside and then put in the place of the link, or refused: never half a file
    assert status == 0 or (status == 1 and one_line(captured.err))
    assert {k: v for k, v in digests(tmp_path).items() if k in before} == before


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/full/x", "/dev/null"])
def test_a_folder_that_cannot_be_made(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path(place).parent.exists():
        pytest.skip(f"no {Path(place).parent} on this system")
    assert main(["run", "dense", *TINY, "--out", place]) == 3
    line = capsys.readouterr().err
    assert one_line(line) and place in line and "--out" in line


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert main(["run", "dense", *TINY, "--out", str(tmp_path / "out")]) == 3
    assert one_line(capsys.readouterr().err)


GRID = """
seeds = 2
epochs = 1
batch = 512
[[runs]]
method = "dense"
model = ["mlp:64-4-10", "mlp:64-300-10"]
"""


def test_a_grid_on_a_disk_that_fills_up_keeps_what_it_had(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(GRID)
    Store(tmp_path / "out").close()
    arguments = ["-m", "tests.reliability.grid_process", "out", "1", "grid.toml"]
    done = python(arguments, tmp_path, file_size(70_000))
    assert done.returncode != 0 and "File too large" in done.stderr
    with Store(tmp_path / "out") as store:
        (only,) = store.all()
        assert only.spec.model == "mlp:64-4-10"
        assert store.network(only.spec.key).name == "mlp:64-4-10"
    assert python(arguments, tmp_path).returncode == 0  # with room again, the same command goes on
    with Store(tmp_path / "out") as store:
        assert len(store.all()) == 4
