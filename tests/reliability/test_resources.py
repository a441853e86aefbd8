"""H-2, H-4, H-6: no leak; compiled kernels; what is in the wheel; what need not be installed or loaded."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import minisparse
from minisparse.kernels import jit
from tests.reliability.processes import PROC, ROOT, python

PACKAGE = Path(minisparse.__file__).parent


@pytest.mark.skipif(not (PROC / "self" / "statm").exists(), reason="memory is read from /proc")
def test_two_hundred_runs_do_not_grow(tmp_path: Path) -> None:
    done = python(["-m", "tests.reliability.leak", "200"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 5_000_000


HEAVY = ("matplotlib", "numba", "scipy", "rich", "pooch", "distributed", "PIL", "numpy")


def loaded(code: str, tmp_path: Path) -> set[str]:
    """Which of HEAVY a program has loaded at its end."""
    tail = f"; import sys; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = python(["-c", code + tail], tmp_path)
    assert done.returncode == 0, done.stderr
    return set(eval(done.stdout.splitlines()[-1], {}))


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded("import minisparse; minisparse.__version__; dir(minisparse)", tmp_path) == set()
    assert loaded("from minisparse.cli.main import main; main(['--help'])", tmp_path) == set()


ONE_RUN = """
from minisparse.experiments.runner import execute
from minisparse.experiments.spec import RunSpec
assert execute(RunSpec("dense", model="mlp:64-4-10", epochs=1, batch=1437)).status == "done"
"""


def test_training_needs_neither_plots_nor_cluster(tmp_path: Path) -> None:
    """Not installed, they are not missed."""
    missing = "import sys\nfor name in ('matplotlib', 'distributed', 'dask', 'PIL'): sys.modules[name] = None"
    done = python(["-c", missing + ONE_RUN], tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_compiler_can_be_switched_off(tmp_path: Path) -> None:
    done = python(["-c", ONE_RUN], tmp_path, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr


BUILDS = find_spec("hatchling") is not None


@pytest.mark.skipif(not BUILDS, reason="hatchling, which builds the wheel, is not installed")
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = {name for name in names if ".dist-info/" not in name}
    assert {f"minisparse/{path}" for path in wanted()} == ours
    assert any(name.endswith(".dist-info/entry_points.txt") for name in names)
    assert any(name.endswith("LICENSE") for name in names)


def wanted() -> set[str]:
    """Files of the package, those of compilers and editors aside."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file())
    return {
        path.relative_to(PACKAGE).as_posix() for path in files
        if "__pycache__" not in path.parts and path.suffix not in (".pyc", ".nbi", ".nbc", ".swp")
    }  # fmt: skip


def test_the_package_holds_what_is_not_python_too() -> None:
    """Data, grids, style sheet and the mark of typing are in the folder that the wheel is made of."""
    found = wanted()
    assert {"py.typed", "experiments/grids/dynamic.toml", "experiments/report.css"} <= found
    assert any(name.startswith("data/") and not name.endswith(".py") for name in found)


def test_where_no_folder_can_be_written_kernels_are_compiled_anew_and_one_note_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """H-4."""

    def njit(*args: object, cache: bool = False, **settings: object):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*args, **settings)

    real = jit.numba.njit
    monkeypatch.setattr(jit.numba, "njit", njit)
    monkeypatch.setattr(jit, "_uncached", False)
    with caplog.at_level("WARNING", logger="minisparse.kernels"):
        first, second = jit.kernel(twice), jit.kernel(twice)
    assert first(2) == second(2) == 4
    assert [record.message for record in caplog.records if "no writable cache folder" in record.message]
    assert len(caplog.records) == 1


def twice(x):
    return 2 * x
